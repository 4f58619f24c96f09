"""One run of an experiment as the runner sees it: its folders, its callbacks, its logs and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.machine_params import machine_params_of
from allenact.runs.log_sink import LogSink
from allenact.runs.run_description import Description, describe_run

if TYPE_CHECKING:
    from allenact.base_abstractions.callbacks import Callback
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.runs.run_directory import RunDirectory
    from allenact.utils.summary_writer import SummaryWriter
    from allenact.viz import VizSuite


@dataclass(kw_only=True)
class Run:
    """What runs of both kinds have: folders, callbacks, and something that writes their logs.

    Attributes:
        config: the experiment.
        name: of the experiment, with the extra tag if there is one.
        mode: "train" or "test".
        seed: of the run.
        machine_id: index of this machine.
        paths: of the experiment.
        start_time: when the run began, which names its folders.
        source_files: what is run, as given to the runner.
        callbacks: told about the run.
        draws: whether TensorBoard's files are written, with pictures.
        sink: writes the logs; nothing before the workers are ready.
        results: of every checkpoint evaluated so far.
    """

    config: ExperimentConfig
    name: str
    mode: str
    seed: int
    machine_id: int
    paths: RunDirectory
    start_time: str
    source_files: Mapping[str, str]
    callbacks: Sequence[Callback]
    draws: bool
    sink: LogSink = field(default_factory=LogSink)
    results: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def description(self) -> Description:
        """Everything that decides what the run does."""
        return describe_run(self.config, self.seed, self.source_files)

    def set_up_callbacks(self) -> None:
        """Tells the callbacks which run they belong to."""
        for callback in self.callbacks:
            callback.setup(name=f"{self.name}/{self.start_time}", config=self.config, mode=self.mode)

    def start_callbacks(self) -> None:
        """Tells the callbacks that everything has been checked and started."""
        metrics_dir = self.paths.metrics(self.mode, self.start_time)
        for callback in self.callbacks:
            callback.on_start(output_dir=self.paths.output_dir, metrics_dir=metrics_dir, description=self.description)

    def summary_writer(self, folder: Path) -> SummaryWriter | None:
        """Returns what writes TensorBoard's files, which begin now; None if there are to be none."""
        if not self.draws:
            return None
        from allenact.utils.tensor_utils import SummaryWriter

        return SummaryWriter(
            log_dir=str(folder),
            filename_suffix=f"__{self.mode}_{self.start_time}",
            videos_dir=self.paths.videos(self.start_time),
        )

    def visualizer(self, mode: str) -> VizSuite | None:
        """Returns what draws the episodes of `mode`, None if nothing is to be drawn."""
        return machine_params_of(self.config, mode, self.machine_id).visualizer if self.draws else None

    def close(self, failed: bool) -> None:
        """Closes the logs and tells the callbacks that this is the end.

        Args:
            failed: whether the run ends with an error.
        """
        self.sink.close(failed=failed)
