"""EvaluationRun: what a test of checkpoints writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.runs.evaluation_progress import (
    EvaluationLines,
    EvaluationProgress,
    evaluation_progress,
)
from allenact.runs.evaluation_report import EvaluationReport
from allenact.runs.log_sink import LogSink, write_json
from allenact.runs.run import Run
from allenact.runs.run_directory import checkpoint_start_time_str
from allenact.runs.supervision import await_ready, evaluate_on
from allenact.utils.seeding import EVALUATION_SEED
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.tracking import LogPackage
    from allenact.runs.worker_processes import WorkerProcess


@dataclass(kw_only=True)
class EvaluationRun(Run):
    """A test of checkpoints.

    Attributes:
        checkpoints: files to evaluate, in order.
        actions: "deterministic" (the mode of the policy), "sampled" from it, or the "expert"'s.
        live_progress: whether a terminal shows the test as a block.
        report: statistics of the results.
    """

    checkpoints: Sequence[str]
    actions: str
    live_progress: bool
    report: EvaluationReport = field(init=False)

    def __post_init__(self) -> None:
        self.report = EvaluationReport(self.config.tag(), self.actions, EVALUATION_SEED)

    @property
    def metrics_file(self) -> Path:
        """Where the results are written."""
        return self.paths.test_metrics(self.start_time)

    @property
    def _tensorboard_dir(self) -> Path:
        return self.paths.test_tensorboard(self.start_time, checkpoint_start_time_str(self.checkpoints[0]))

    def follow(self, testers: Sequence[WorkerProcess], stop: Callable[[], bool]) -> None:
        """Has the workers evaluate every checkpoint, and writes what they report.

        Raises:
            AllenActError: what a worker failed with.
            KeyboardInterrupt: `stop` answered True.
        """
        await_ready(testers, stop)
        self._log_plan()
        progress = evaluation_progress(self.name, len(self.checkpoints), self.actions, live=self.live_progress)
        self._begin_logging(progress)
        try:
            for checkpoint in self.checkpoints:
                self._write(checkpoint, evaluate_on(testers, checkpoint, stop, progress))
        finally:
            progress.close()

    def _log_plan(self) -> None:
        first, *others = self.checkpoints
        which = f"{1 + len(others)} checkpoints from {os.path.dirname(first)}" if others else first
        watch = f"; watch with: tensorboard --logdir {self.paths.output_dir}" if self.draws else ""
        get_logger().info(
            f"Testing {which} with {self.actions} actions, seed {EVALUATION_SEED};"
            f" results in {self.metrics_file.parent}{watch}"
        )

    def _begin_logging(self, progress: EvaluationProgress | EvaluationLines) -> None:
        write_json(self.metrics_file, self.results)
        self.start_callbacks()
        self.sink = LogSink(
            callbacks=self.callbacks,
            writer=self.summary_writer(self._tensorboard_dir),
            visualizer=self.visualizer("test"),
            progress=progress if isinstance(progress, EvaluationProgress) else None,
        )

    def _write(self, checkpoint: str, packages: Sequence[LogPackage]) -> None:
        self.results.append(self.sink.write(packages))
        write_json(self.metrics_file, self.results)
        self.report.add(checkpoint, self.results[-1], [seed for each in packages for seed in each.task_seeds])
        self.report.write(self.metrics_file.parent)

    def print_report(self) -> None:
        """Prints the statistics, and logs where the output is."""
        self.report.print()
        others = f", TensorBoard's files in {self._tensorboard_dir}" if self.draws else ""
        videos = self.paths.videos(self.start_time)
        if videos.is_dir():
            others += f", videos in {videos}"
        get_logger().info(
            f"Results are in {self.metrics_file}, statistics in evaluation.json and .csv beside it{others}"
        )
