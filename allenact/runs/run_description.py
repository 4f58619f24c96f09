"""The description of a run: every setting with its resolved value, for TensorBoard's Text and HParams tabs."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.machine_params import machine_params_of
from allenact.pipeline.builder import Builder
from allenact.pipeline.settings import SETTING_NAMES
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.pipeline.pipeline import TrainingPipeline
    from allenact.pipeline.stage import PipelineStage
    from allenact.utils.summary_writer import SummaryWriter

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "tensorboard")

Description = dict[str, Any]
"""Nested dicts and lists of strings, numbers, booleans and None."""


def describe_run(config: ExperimentConfig, seed: int, source_files: Mapping[str, str]) -> Description:
    """Returns everything that decides what a training run does.

    Args:
        config: the experiment.
        seed: the run's.
        source_files: as given to the runner; its keyword arguments are among them.
    """
    pipeline = config.training_pipeline()
    params = machine_params_of(config, "train")
    return {
        "experiment": f"{type(config).__module__}.{type(config).__qualname__}",
        "tag": config.tag(),
        "seed": seed,
        "config_kwargs": json.loads(source_files.get(CONFIG_KWARGS_STR) or "{}"),
        "attributes": {name: _plain(value) for name, value in vars(config).items()},
        "pipeline": _describe_pipeline(pipeline),
        "train_samplers": [int(count) for count in params.nprocesses],
        "devices": [str(device) for device in params.devices],
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the version of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hyper_parameters(description: Description) -> dict[str, bool | int | float | str]:
    """Returns the flat part of a description: what a table that compares runs should have a column for."""
    stages = description["pipeline"]["stages"]
    flat = {"seed": description["seed"], **description["attributes"], **(stages[0]["settings"] if stages else {})}
    return {name: value for name, value in flat.items() if isinstance(value, (bool, int, float, str))}


def write_description(writer: SummaryWriter, description: Description) -> None:
    """Writes a description as the text "config", and its hyper-parameters."""
    from torch.utils.tensorboard.summary import hparams

    text = json.dumps(description, indent=2)
    writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))  # indented: Markdown keeps it
    compared = {"valid-metrics/reward": 0, "train-metrics/reward": 0}
    for summary in hparams(hyper_parameters(description), compared):
        writer.add_summary(summary)


def _describe_pipeline(pipeline: TrainingPipeline) -> Description:
    return {
        "losses": {name: _plain(loss) for name, loss in pipeline.named_losses.items()},
        "optimizer": _plain(pipeline.optimizer_builder),
        "lr_scheduler": _plain(pipeline.lr_scheduler_builder),
        "stages": [_describe_stage(stage) for stage in pipeline.pipeline_stages],
    }


def _describe_stage(stage: PipelineStage) -> Description:
    steps = stage.max_stage_steps
    return {
        "max_stage_steps": _plain(steps() if callable(steps) else steps),
        "losses": dict(zip(stage.loss_names, stage.loss_weights, strict=True)),
        "teacher_forcing": _plain(stage.teacher_forcing),
        "settings": {name: _plain(getattr(stage.training_settings, name)) for name in SETTING_NAMES},
    }


def _plain(value: Any, depth: int = 4) -> Any:
    """Returns a value that JSON can hold: objects as text, or by their attributes if they have no text."""
    if isinstance(value, Builder):
        arguments = {**(value.default or {}), **(value.kwargs or {})}
        return {"class": getattr(value.class_type, "__qualname__", str(value.class_type)), **_plain(arguments)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()} if depth else "..."
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in value] if depth else "..."
    if not _has_text(value):
        public = {name: item for name, item in getattr(value, "__dict__", {}).items() if name[0] != "_"}
        return {"class": type(value).__qualname__, **_plain(public, depth - 1)} if depth else type(value).__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _has_text(value: object) -> bool:
    """Whether somebody wrote a `__repr__` for this kind of object."""
    return any("__repr__" in base.__dict__ for base in type(value).__mro__[:-1])  # the last one is object
