"""TrainingRun: what a training run keeps and writes, and its validation beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.checkpointing import checkpoints_in, find_checkpoints, step_from_checkpoint
from allenact.errors import RunError
from allenact.runs.log_sink import LogSink, write_json
from allenact.runs.log_truncation import truncate_logs
from allenact.runs.resume_point import ResumePoint
from allenact.runs.retention import remove_old_checkpoints
from allenact.runs.run import Run
from allenact.runs.run_description import write_description
from allenact.runs.run_directory import START_TIME_FORMAT, RunLock, save_used_configs
from allenact.runs.supervision import Validation, supervise_training
from allenact.utils.metrics_files import FILE_NAME, readable_rows
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.tracking import LogPackage
    from allenact.runs.progress import TrainingProgress
    from allenact.runs.stop_signals import StopSignals
    from allenact.runs.worker_processes import WorkerProcess


@dataclass(kw_only=True)
class TrainingRun(Run):
    """A training run, with the validation beside it.

    Attributes:
        checkpoint: file that training starts from, None for none.
        restart_pipeline: whether only its weights are taken.
        resumed_from: the interrupted run that this one continues, None for a new run.
        lock: keeps other processes out of the run's folders; taken already where a run is resumed.
        saves_config: whether the experiment's sources are copied.
        collects_results: whether a file is written for each validated checkpoint.
        keep_checkpoints: how many of the newest checkpoints stay, beside the best one; None: all.
        progress: shows the run on a terminal, None for a line for each log.
        validation: evaluates the checkpoints, None for no validation.
        rewards: environment steps -> mean reward of the checkpoints that have been validated.
    """

    checkpoint: str | None
    restart_pipeline: bool
    resumed_from: ResumePoint | None
    lock: RunLock
    saves_config: bool
    collects_results: bool
    keep_checkpoints: int | None
    progress: TrainingProgress | None
    validation: Validation | None = None
    rewards: dict[int, float] = field(default_factory=dict)

    @property
    def checkpoint_dir(self) -> Path:
        """The folder of the run's checkpoints, which may not exist yet."""
        return self.paths.checkpoints(self.start_time)

    @property
    def newest_checkpoint(self) -> str | None:
        """The checkpoint with the most environment steps that the run has written, None if there is none."""
        return find_checkpoints(str(self.checkpoint_dir))[-1] if any(self.checkpoint_dir.glob("*.pt")) else None

    def follow(self, trainers: Sequence[WorkerProcess], stop: StopSignals) -> None:
        """Writes what the workers report, until training is complete or has been stopped.

        Raises:
            AllenActError: what a worker failed with.
        """
        try:
            for packages in supervise_training(trainers, self.validation, stop, self._begin_logging, self.progress):
                self._write(packages)
        except RunError as error:
            if not stop.requested:
                raise
            get_logger().warning(f"While stopping: {error}")
        finally:
            if self.progress is not None:
                self.progress.close()

    def _begin_logging(self) -> None:
        """Makes the run's folders, with a record of what is run, and opens its logs."""
        if self.resumed_from is None:
            self.lock.take(self.paths.train_metrics(self.start_time))
        else:
            self._restore_logs(self.resumed_from)
        get_logger().info(self._output_location())
        if self.saves_config:
            self._save_config()
        if self.collects_results and self.validation is not None and self.resumed_from is None:
            write_json(self.paths.valid_metrics(self.start_time, 0), [])
        self.start_callbacks()
        writer = self.summary_writer(self.paths.train_tensorboard(self.start_time))
        if writer is not None and self.resumed_from is None:
            write_description(writer, self.description)
        self.sink = LogSink(
            callbacks=self.callbacks,
            writer=writer,
            metrics_file=self.paths.train_metrics(self.start_time) / FILE_NAME,
            visualizer=self.visualizer("valid"),
            progress=self.progress,
        )
        if self.progress is not None:
            self.progress.begin()

    def _restore_logs(self, resumed_from: ResumePoint) -> None:
        """Takes the logs of the interrupted run, and its validation, back to where they were at the checkpoint."""
        metrics = self.paths.train_metrics(self.start_time)
        truncate_logs(
            resumed_from, metrics, self.paths.train_tensorboard(self.start_time), self.config.training_pipeline()
        )
        self.rewards.update(_validation_rewards(metrics))
        if self.validation is not None:
            self.validation.announced.update(checkpoints_in(self.checkpoint_dir))
            if resumed_from.steps not in self.rewards:
                self.validation.enqueue(resumed_from.checkpoint)

    def _save_config(self) -> None:
        folder = self.paths.used_configs(self.start_time)
        if self.resumed_from is not None:
            folder /= f"resumed_{time.strftime(START_TIME_FORMAT)}"
        save_used_configs(folder, self.source_files)
        for callback in self.callbacks:
            callback.after_save_project_state(base_dir=str(folder))

    def _write(self, packages: Sequence[LogPackage]) -> None:
        entry = self.sink.write(packages)
        if packages[0].mode == "valid":
            steps = entry["training_steps"]
            self.rewards[steps] = entry.get("valid-metrics/reward", math.nan)
            if self.collects_results:
                self.results.append(entry)
                file = self.paths.valid_metrics(self.start_time, steps)
                self.sink.attempt("the results of validation", partial(write_json, file, entry))
        if self.keep_checkpoints is not None:
            remove_old_checkpoints(self.checkpoint_dir, self.keep_checkpoints, self.rewards, self.validation)

    def _output_location(self) -> str:
        metrics = self.paths.metrics(self.mode, self.start_time)
        tensorboard = f"; watch with: tensorboard --logdir {self.paths.output_dir}" if self.draws else ""
        return f"checkpoints in {self.checkpoint_dir}, metrics in {metrics}{tensorboard}"

    def log_how_to_resume(self) -> None:
        """Logs, of a run that was stopped, how to resume it."""
        if (newest := self.newest_checkpoint) is not None:
            steps = step_from_checkpoint(newest)
            get_logger().info(f"Stopped at {steps:,} steps. To go on: --resume, or --checkpoint {newest}")

    def log_output_location(self) -> None:
        """Logs, of a complete run, where its output is."""
        if self.newest_checkpoint is not None:
            get_logger().info(f"Training is complete: {self._output_location()}")


def _validation_rewards(metrics_folder: Path) -> dict[int, float]:
    """Returns environment steps -> mean reward of every validation that a run has logged."""
    tag = "valid-metrics/reward"
    return {
        row["training_steps"]: row[tag]
        for row in readable_rows(metrics_folder / FILE_NAME)
        if row["mode"] == "valid" and tag in row
    }
