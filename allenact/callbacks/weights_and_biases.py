"""`--callbacks wandb`: every log to Weights & Biases. wandb's own variables, WANDB_MODE for instance, are respected."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allenact.base_abstractions.callbacks import Callback
from allenact.errors import MissingExtraError, RunError


class WeightsAndBiases(Callback):
    """Keeps the numbers of a run, and its settings, at Weights & Biases.

    The project is the experiment's tag and the name of the run its start time, unless WANDB_PROJECT and WANDB_NAME say
    something else. The x-axis of every chart is `training_steps`; wandb's own step counts logs, because a validation
    arrives after later logs of training. Files that wait to be uploaded are in `OUT/wandb`.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError(
                "logging to Weights & Biases needs wandb.",
                given="--callbacks wandb",
                do='install it: pip install "allenact-gym[wandb]".',
            ) from error
        self._wandb = wandb
        self._run: Any = None
        self._mode = "train"
        self._name = ""

    def setup(self, name: str, config: Any, mode: str, **kwargs: Any) -> None:
        """Takes note of the name, "<experiment name>/<start time>", and of what the run does."""
        self._name, self._mode = name, mode

    def on_start(self, *, output_dir: Path, description: Mapping[str, Any], **kwargs: Any) -> None:
        """Begins a run at Weights & Biases.

        Raises:
            RunError: wandb refuses, because nobody is logged in for instance.
        """
        experiment, _, start = self._name.rpartition("/")
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT") or str(description["tag"]),
                name=os.environ.get("WANDB_NAME") or start,
                group=experiment,
                job_type=self._mode,
                dir=str(output_dir),
                config=dict(description),
                settings=self._wandb.Settings(console="off"),  # a progress block that is drawn again is no log
            )
        except Exception as error:  # wandb's own errors and those of the network beneath
            raise RunError(
                f"Weights & Biases cannot be used: {error}",
                "--callbacks wandb",
                'log in with "wandb login", or set WANDB_MODE=offline and upload later with "wandb sync".',
            ) from error
        self._run.define_metric("training_steps", hidden=True)
        self._run.define_metric("*", step_metric="training_steps")

    def on_train_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Sends a log of training."""
        self._send(metric_means, step)

    def on_valid_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Sends what came of a validated checkpoint."""
        self._send(metric_means, step)

    def on_test_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Sends what came of a tested checkpoint."""
        self._send(metric_means, step)

    def on_end(self, *, failed: bool, **kwargs: Any) -> None:
        """Ends the run there, as failed or not."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None

    def _send(self, means: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            self._run.log({**means, "training_steps": step})
