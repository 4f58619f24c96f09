"""From the `--callbacks` argument to Callback objects."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from allenact.base_abstractions.callbacks import Callback
from allenact.errors import ExperimentConfigError

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig


def load_callbacks(specs: str | None, config: ExperimentConfig) -> list[Callback]:
    """Builds the callbacks of a run.

    Args:
        specs: comma-separated; each names a method of the config without arguments that returns a Callback, or a
            module (`a.b` or `a/b.py`) that defines one Callback class.
        config: the experiment.

    Raises:
        ExperimentConfigError: one names no callback.
    """
    return [_load_callback(spec.strip(), config) for spec in (specs or "").split(",") if spec.strip()]


def _load_callback(spec: str, config: ExperimentConfig) -> Callback:
    if "." not in spec and "/" not in spec:
        make = getattr(config, spec, None)
        callback = make() if callable(make) else None
        if not isinstance(callback, Callback):
            raise ExperimentConfigError(
                f'"{spec}" is no callback of the experiment.',
                f"--callbacks {spec}",
                "name a method of the experiment class that returns a Callback, or a module that defines one.",
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
