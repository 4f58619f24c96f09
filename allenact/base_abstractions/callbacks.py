"""Hooks a user may attach to a run (`--callbacks`); all of them run in the runner's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.base_abstractions.sensor import Sensor


class Callback:
    """Base of callbacks: override what is needed; everything does nothing by default.

    The three `on_*_log` hooks get the same keywords:

    - metrics: in training, a list with one metrics dict for each finished task; in validation and testing, the
      dict that is written to the metrics file (means, "training_steps", "tasks").
    - metric_means: TensorBoard tag -> mean, for everything in this log.
    - tasks_data: one dict for each finished task with the observations of `callback_sensors()` at its end.
    - step: environment steps taken in training, over all stages and workers.
    - scalar_name_to_total_experiences_key: tag -> the tag of the experience counter that is its x-axis, for losses
      and update scalars.
    - checkpoint_file_name: the checkpoint evaluated or just saved, or None.
    """

    def setup(self, name: str, config: ExperimentConfig, mode: str, **kwargs: Any) -> None:
        """Called once, right after construction.

        Args:
            name: "<experiment name>/<start time>".
            config: the experiment.
            mode: "train" or "test".
            kwargs: reserved for later additions.
        """

    def on_start(self, *, output_dir: Path, metrics_dir: Path, description: Mapping[str, Any], **kwargs: Any) -> None:
        """Called once, when everything has been checked and started, before the first log.

        Args:
            output_dir: root of all output.
            metrics_dir: where the run puts its metrics files; it may not exist yet.
            description: every setting of the run, as nested dicts and lists of plain values.
            kwargs: reserved for later additions.
        """

    def on_end(self, *, failed: bool, **kwargs: Any) -> None:
        """Called once, after the last log, if `on_start` was called.

        Args:
            failed: whether the run ends with an error. One that was stopped has not failed.
            kwargs: reserved for later additions.
        """

    def on_train_log(
        self,
        *,
        metrics: list[dict[str, Any]],
        metric_means: dict[str, float],
        tasks_data: list[Any],
        step: int,
        scalar_name_to_total_experiences_key: dict[str, str],
        checkpoint_file_name: str | None,
        **kwargs: Any,
    ) -> None:
        """Called when a training log has been written."""

    def on_valid_log(
        self,
        *,
        metrics: dict[str, Any],
        metric_means: dict[str, float],
        tasks_data: list[Any],
        step: int,
        scalar_name_to_total_experiences_key: dict[str, str],
        checkpoint_file_name: str | None,
        **kwargs: Any,
    ) -> None:
        """Called when a checkpoint has been validated."""

    def on_test_log(
        self,
        *,
        metrics: dict[str, Any],
        metric_means: dict[str, float],
        tasks_data: list[Any],
        step: int,
        scalar_name_to_total_experiences_key: dict[str, str],
        checkpoint_file_name: str | None,
        **kwargs: Any,
    ) -> None:
        """Called when a checkpoint has been tested."""

    def after_save_project_state(self, base_dir: str) -> None:
        """Called in training when the experiment's sources have been saved below `base_dir`."""

    def callback_sensors(self) -> Sequence[Sensor] | None:
        """Returns sensors to read at the end of every task, for `tasks_data`."""
        return None
