"""`--resume`: which run is resumed, and from which checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.checkpointing import TrainingState, checkpoints_in, load_checkpoint
from allenact.errors import CheckpointError
from allenact.utils.metrics_files import FILE_NAME, readable_rows
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.runs.run_directory import RunDirectory


@dataclass(frozen=True)
class ResumePoint:
    """An interrupted run and the checkpoint that it is resumed from."""

    start_time: str
    """When the run began, which names its folders."""
    checkpoint: str
    state: TrainingState

    @property
    def steps(self) -> int:
        """Environment steps of the checkpoint."""
        return self.state.total_steps


def find_resume_point(paths: RunDirectory, seed: int | None) -> ResumePoint | None:
    """Returns where to resume the newest run of an experiment; None if there is no run with a readable checkpoint.

    That is the newest checkpoint that can be read and until which everything has been logged. (A log may be lost with
    the process that writes it, after another process has saved the checkpoint.)

    Args:
        paths: of the experiment.
        seed: only runs of this seed; None: of any.
    """
    for start_time in reversed(paths.start_times()):
        unlogged: ResumePoint | None = None
        logged = {
            row["training_steps"]
            for row in readable_rows(paths.train_metrics(start_time) / FILE_NAME)
            if row["mode"] == "train"
        }
        for found in _good_checkpoints(paths.checkpoints(start_time), start_time):
            if seed is not None and found.state.trainer_seed != seed:
                break  # it is the same for all of them
            last_log = (found.state.tracker_state or {}).get("last_log", 0)
            if not last_log or last_log in logged:
                return found
            unlogged = unlogged or found
        if unlogged is not None:
            get_logger().warning(f"What was logged until {unlogged.steps:,} steps is lost: {unlogged.checkpoint}")
            return unlogged
    return None


def _good_checkpoints(folder: Path, start_time: str) -> Iterator[ResumePoint]:
    """Yields the readable checkpoints of a run, newest first; warns of the others."""
    for path in reversed(checkpoints_in(folder)):
        try:
            yield ResumePoint(start_time, path, load_checkpoint(path))
        except CheckpointError as error:
            get_logger().warning(f"A checkpoint is skipped, it is truncated or damaged: {error.given}")
