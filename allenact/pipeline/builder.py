"""Objects that are described now and built later, usually in another process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Generic, NamedTuple, TypeVar

from allenact.errors import ExperimentConfigError
from allenact.utils.experiment_loading import user_line

T = TypeVar("T")


class Builder(NamedTuple, Generic[T]):
    """A class, or any callable, with the keyword arguments to call it with.

    Calling the builder merges, later ones winning, `default`, `kwargs` and the call's own keywords; nested
    mappings are merged key by key. Neither `default` nor `kwargs` is changed by it.

    Example::

        Builder(PPO, kwargs={"clip_decay": LinearDecay(steps)}, default=PPOConfig)()

    Attributes:
        class_type: what to call; must be picklable, since builders travel to worker processes.
        kwargs: keyword arguments.
        default: keyword arguments that `kwargs` overrides.
    """

    class_type: Callable[..., T]
    kwargs: dict[str, Any] | None = None
    default: dict[str, Any] | None = None

    def __call__(self, **kwargs: Any) -> T:
        """Builds the object."""
        arguments = copy.deepcopy(self.default or {})
        recursive_update(arguments, self.kwargs or {})
        recursive_update(arguments, kwargs)
        return self.class_type(**arguments)

    def __repr__(self) -> str:
        name = getattr(self.class_type, "__qualname__", repr(self.class_type))
        return f"Builder({name}, kwargs={self.kwargs}, default={self.default})"


def recursive_update(original: MutableMapping[str, Any], update: Mapping[str, Any]) -> MutableMapping[str, Any]:
    """Updates `original` in place, merging nested mappings key by key; everything else is replaced.

    Nested mappings of `original` are copied before they are merged, since they may belong to someone else.

    Returns:
        `original`.
    """
    for key, value in update.items():
        current = original.get(key)
        if isinstance(value, Mapping) and isinstance(current, MutableMapping):
            original[key] = recursive_update(copy.copy(current), value)
        else:
            original[key] = value
    return original


def built(name: str, builder: Any, **kwargs: Any) -> Any:
    """Calls a builder of the training pipeline.

    Args:
        name: of what is built.
        builder: the pipeline's `<name>_builder`.
        kwargs: for the call.

    Raises:
        ExperimentConfigError: torch refuses the arguments.
    """
    try:
        return builder(**kwargs)
    except (TypeError, ValueError) as error:
        if user_line(error):  # it is the experiment's own code that has a mistake in it
            raise
        raise ExperimentConfigError(
            f"the {name} cannot be made: {error}",
            f"{name}_builder={builder!r} (TrainingPipeline)",
            "correct its arguments, or the keyword arguments of the experiment that they come from.",
        ) from error
