"""EvaluationRun: what a test of checkpoints writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.evaluation_report import EvaluationReport
from allenact.algorithms.onpolicy_sync.log_sink import LogSink, write_json
from allenact.algorithms.onpolicy_sync.progress import EvaluationProgress, shows_progress
from allenact.algorithms.onpolicy_sync.run import Run
from allenact.algorithms.onpolicy_sync.run_directory import checkpoint_start_time_str
from allenact.algorithms.onpolicy_sync.supervision import await_ready, evaluate_on
from allenact.utils.seeding import EVALUATION_SEED
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.tracking import LogPackage
    from allenact.algorithms.onpolicy_sync.worker_processes import WorkerProcess


@dataclass(kw_only=True)
class EvaluationRun(Run):
    """A test of checkpoints.

    Attributes:
        checkpoints: files to evaluate, in order.
        actions: "deterministic" (the mode of the policy), "sampled" from it, or the "expert"'s.
        live_progress: whether a terminal gets a short line for each checkpoint.
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
        self._begin_logging()
        for checkpoint in self.checkpoints:
            self._write(checkpoint, evaluate_on(testers, checkpoint, stop))

    def _begin_logging(self) -> None:
        write_json(self.metrics_file, self.results)
        self.start_callbacks()
        self.sink = LogSink(
            callbacks=self.callbacks,
            writer=self.summary_writer(self._tensorboard_dir),
            visualizer=self.visualizer("test"),
            progress=EvaluationProgress(len(self.checkpoints)) if self.live_progress and shows_progress() else None,
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
