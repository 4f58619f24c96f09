"""`--resume`: where an interrupted run goes on, and its logs as they were at that point."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.checkpointing import TrainingState, checkpoints_in, load_checkpoint
from allenact.errors import CheckpointError, OutputDirectoryError
from allenact.utils.files import write_whole
from allenact.utils.metrics_files import FILE_NAME, readable_rows
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.run_directory import RunDirectory
    from allenact.pipeline.pipeline import TrainingPipeline


@dataclass(frozen=True)
class Continuation:
    """An interrupted run and the checkpoint that it goes on from."""

    start_time: str
    """When the run began, which names its folders."""
    checkpoint: str
    state: TrainingState

    @property
    def steps(self) -> int:
        """Environment steps of the checkpoint."""
        return self.state.total_steps


def find_continuation(paths: RunDirectory, seed: int | None) -> Continuation | None:
    """Returns where the newest run of an experiment goes on; None if it has none with a readable checkpoint.

    It goes on from its newest checkpoint that can be read and until which everything has been logged. (A log may be
    lost with the process that writes it, after the checkpoint has been saved by another one.)

    Args:
        paths: of the experiment.
        seed: only runs of this seed; None: of any.
    """
    for start_time in reversed(paths.start_times()):
        unlogged: Continuation | None = None
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


def _good_checkpoints(folder: Path, start_time: str) -> Iterator[Continuation]:
    """Yields the readable checkpoints of a run, newest first; warns of the others."""
    for path in reversed(checkpoints_in(folder)):
        try:
            yield Continuation(start_time, path, load_checkpoint(path))
        except CheckpointError as error:
            get_logger().warning(f"A checkpoint is skipped, it is truncated or damaged: {error.given}")


def rewards_of_validation(metrics_folder: Path) -> dict[int, float]:
    """Returns environment steps -> mean reward of every validation that a run has logged."""
    tag = "valid-metrics/reward"
    return {
        row["training_steps"]: row[tag]
        for row in readable_rows(metrics_folder / FILE_NAME)
        if row["mode"] == "valid" and tag in row
    }


def take_back_logs(
    found: Continuation, metrics_folder: Path, tensorboard_folder: Path, pipeline: TrainingPipeline
) -> None:
    """Removes from a run's logs what was written after the checkpoint, since the run is going to write it again.

    Args:
        found: where the run goes on.
        metrics_folder: of its metrics file.
        tensorboard_folder: of its event files.
        pipeline: says which tags have the experiences of a storage, not steps, as their x-axis.
    """
    rows = readable_rows(metrics_folder / FILE_NAME)
    kept = [row for row in rows if row["training_steps"] <= found.steps]
    if len(kept) < len(rows):
        write_whole("".join(json.dumps(row) + "\n" for row in kept).encode(), metrics_folder / FILE_NAME)
    for table in ("train.csv", "valid.csv"):
        _take_back_table(metrics_folder / table, found.steps)
    limit = _step_limits(found.state, pipeline)
    for events in sorted(tensorboard_folder.glob("events.out.tfevents.*")):
        _take_back_events(events, limit)


def _take_back_table(file: Path, steps: int) -> None:
    """Rewrites a table of the callback `csv` without the rows of later steps, and without one that was cut off."""
    if not file.exists():
        return
    with open(file, newline="", encoding="utf-8") as text:
        header, *rows = [*csv.reader(text)] or [[]]
    kept = [row for row in rows if len(row) == len(header) and int(row[header.index("training_steps")]) <= steps]
    if len(kept) < len(rows):
        table = io.StringIO(newline="")
        csv.writer(table).writerows([header, *kept])
        write_whole(table.getvalue().encode(), file)


def _step_limits(state: TrainingState, pipeline: TrainingPipeline) -> Callable[[str], int]:
    """Returns what tells the last step of a tag that lies before the checkpoint."""
    pipeline.load_state_dict(state.training_pipeline_state_dict)
    experiences = pipeline.storage_uuid_to_total_experiences
    storage_of = {
        component.uuid: component.storage_uuid
        for stage in pipeline.pipeline_stages
        for component in stage.stage_components
    }

    def limit(tag: str) -> int:
        of_component = re.match(r"(?:train|valid)-(.+)-(?:losses|misc)/", tag)
        storage = storage_of.get(of_component.group(1)) if of_component else None
        return state.total_steps if storage is None else experiences[storage]

    return limit


def _take_back_events(file: Path, limit: Callable[[str], int]) -> None:
    """Rewrites an event file without what lies after the limit, and without an entry that was cut off."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    kept = io.BytesIO()
    writer = RecordWriter(kept)
    for record in RawEventFileLoader(str(file)).Load():
        event = Event.FromString(record)
        if all(event.step <= limit(value.tag) for value in event.summary.value):
            writer.write(record)
    if kept.tell() < file.stat().st_size:
        write_whole(kept.getbuffer(), file)


class RunLock:
    """Lets only one process at a time write into a run's folders. It ends with the process, however that ends."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, folder: Path) -> None:
        """Locks a folder, which is created if need be.

        Raises:
            OutputDirectoryError: another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise OutputDirectoryError(
                "the run that is to be resumed is still going on.",
                f"{folder} is locked by another process",
                "stop that one, or start another run without --resume.",
            ) from error
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Gives the lock back. Calling it again does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
