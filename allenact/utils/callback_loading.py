"""From the `--callbacks` argument to Callback objects."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from allenact.base_abstractions.callbacks import Callback
from allenact.errors import ExperimentConfigError, did_you_mean

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig

BUILT_IN = {"csv": "allenact.callbacks.csv_files", "wandb": "allenact.callbacks.weights_and_biases"}
"""Callbacks that come with the package: name -> module."""


def load_callbacks(specs: str | None, config: ExperimentConfig) -> list[Callback]:
    """Builds the callbacks of a run.

    Args:
        specs: comma-separated; each names a method of the config without arguments that returns a Callback, a
            callback that comes with the package (`csv`, `wandb`), or a module (`a.b` or `a/b.py`) that defines one
            Callback class.
        config: the experiment.

    Raises:
        ExperimentConfigError: one names no callback.
        MissingExtraError: one needs a package that is not installed.
    """
    return [_load_callback(spec.strip(), config) for spec in (specs or "").split(",") if spec.strip()]


def _load_callback(spec: str, config: ExperimentConfig) -> Callback:
    if spec in BUILT_IN and not hasattr(config, spec):
        spec = BUILT_IN[spec]
    if "." not in spec and "/" not in spec:
        make = getattr(config, spec, None)
        callback = make() if callable(make) else None
        if not isinstance(callback, Callback):
            raise ExperimentConfigError(
                f'"{spec}" is no callback of the experiment.',
                f"--callbacks {spec}",
                did_you_mean(spec, BUILT_IN)
                or "name a method of the experiment class that returns a Callback, a module that defines one, or one of"
                f" {', '.join(BUILT_IN)}.",
            )
        return callback
    name = spec.removesuffix(".py").replace("/", ".")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # something that the module itself imports is missing
        raise ExperimentConfigError(
            f'there is no module "{name}".', f"--callbacks {spec}", "pass a module that can be imported from here."
        ) from error
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Callback) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ExperimentConfigError(
            f"{spec} must define exactly one Callback class, it defines {len(classes)}.",
            f"--callbacks {spec}",
            "put one class that derives from Callback into the module.",
        )
    callback_class: type[Callback] = classes[0]
    return callback_class()
