"""Do model and tasks fit: checks before training, or a test, begins, and what is said when they turn out not to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from allenact.errors import SpaceMismatchError, did_you_mean
from allenact.utils.spaces_utils import space_kind
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    import torch

    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph


def check_spaces(
    actor_critic: torch.nn.Module, vector_tasks: VectorTasks, preprocessors: SensorPreprocessorGraph | None
) -> None:
    """Checks that the model was made for what the tasks observe and do.

    Observations may be missing, as those of experts are where nothing is learned: only the model knows what it looks
    at. A model that makes do with the first few of the tasks' choices is warned of.

    Raises:
        SpaceMismatchError: an observation has another shape, the one in `input_uuid` is missing, or the actions differ.
    """
    given = dict(vector_tasks.observation_space.spaces)
    if preprocessors is not None:
        given = dict(preprocessors.observation_spaces.spaces)
    expected = getattr(getattr(actor_critic, "observation_space", None), "spaces", None)
    for uuid, space in (expected or {}).items():
        if uuid not in given:
            if uuid == getattr(actor_critic, "input_uuid", None):
                raise missing_observation(uuid, given)
            continue
        if _layout(space) != _layout(given[uuid]):
            raise SpaceMismatchError(
                f'model and tasks disagree about the observation "{uuid}".',
                f"the model expects {space}, the tasks give {given[uuid]}",
                "build the model from the sensors that the task sampler uses.",
            )
    expected_action, given_action = actor_critic.action_space, vector_tasks.action_spaces[0]
    (kind, size), (given_kind, given_size) = _layout(expected_action), _layout(given_action)
    if kind == given_kind == "Discrete" and size < given_size:
        get_logger().warning(f"The model chooses among the first {size} of the tasks' {given_size} actions.")
    elif (kind, size) != (given_kind, given_size):
        raise SpaceMismatchError(
            "model and tasks disagree about the actions.",
            f"the model acts in {expected_action}, the tasks take {given_action}",
            "build the model with the action space of the tasks.",
        )


def missing_observation(uuid: str, given: Iterable[str]) -> SpaceMismatchError:
    """Returns the error for an observation that the model looks at and the tasks do not give."""
    given = list(given)
    return SpaceMismatchError(
        f'the model expects an observation "{uuid}" that the tasks do not give.',
        f"observations of the tasks: {', '.join(given)}",
        did_you_mean(uuid, given) or "give the task sampler the sensors that create_model is built for.",
    )


def explain_misfit(observations: Mapping[str, Any], spaces: gym.spaces.Dict, message: str) -> SpaceMismatchError | None:
    """Returns the error for a model that failed because an observation is not of the size of its space, if one is not.

    Args:
        observations: leaves [T, N, O...], with which the model failed.
        spaces: what is promised of them.
        message: what it failed with.
    """
    for uuid, space in spaces.spaces.items():
        value: Any = observations.get(uuid)
        if isinstance(space, gym.spaces.Box) and hasattr(value, "shape") and prod(value.shape[2:]) != prod(space.shape):
            return SpaceMismatchError(
                f'the observation "{uuid}" is not of the size that its space says, and the model failed: {message}',
                f"observations of shape {tuple(value.shape[2:])}, {space}",
                "correct the observation space of the environment or the sensor, or what is observed.",
            )
    return None


def _layout(space: Any) -> tuple[str, Any]:
    """Returns what must agree between two spaces: kind and size, not bounds or dtype."""
    members = getattr(space, "spaces", None)
    if isinstance(members, Mapping):
        return "Dict", {key: _layout(member) for key, member in members.items()}
    if members is not None:
        return "Tuple", tuple(_layout(member) for member in members)
    size = getattr(space, "n", None)
    if size is None:
        nvec = getattr(space, "nvec", None)
        size = tuple(space.shape or ()) if nvec is None else tuple(int(n) for n in nvec.flat)
    try:
        return space_kind(space), size  # the same for classes derived from Discrete, Box and the like
    except NotImplementedError:
        return type(space).__name__, size
