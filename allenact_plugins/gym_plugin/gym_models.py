"""Actor-critics for observations that are vectors and actions that are vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync.policy import (
    ActorCriticModel,
    ObservationType,
    ReparameterizedPolicy,
    RolloutPolicy,
)
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.errors import SpaceMismatchError, did_you_mean
from allenact.utils.spaces_utils import space_kind
from allenact_plugins.gym_plugin.gym_distributions import ActionNoise, GaussianDistr


class MemorylessActorCritic(ActorCriticModel[GaussianDistr]):
    """Two separate networks, one for the action and one for the value, with no memory.

    Each has a Linear and a Tanh for every hidden size. The actor ends in a Linear and a Tanh, so the mean of
    the Gaussian is in [-1, 1]; its standard deviation is fixed. State-dict keys: `actor.0.weight`,
    `actor.2.weight`, ... and the same for `critic`; the standard deviation is not saved.

    Args:
        input_uuid: sensor that gives the observation, a vector.
        action_space: a Box with one axis.
        observation_space: dict space with `input_uuid`.
        action_std: standard deviation of every entry of the action.
        mlp_hidden_dims: sizes of the hidden layers.

    Raises:
        SpaceMismatchError: observation or action is not a vector.
    """

    action_std: torch.Tensor

    def __init__(
        self,
        input_uuid: str,
        action_space: gym.spaces.Box,
        observation_space: gym.spaces.Dict,
        action_std: float = 0.5,
        mlp_hidden_dims: Sequence[int] = (64, 32),
    ) -> None:
        super().__init__(action_space, observation_space)
        self.input_uuid = input_uuid
        state_dim, action_dim = vector_sizes(input_uuid, action_space, observation_space, "MemorylessActorCritic")
        last_dim = (state_dim, *mlp_hidden_dims)[-1]
        self.actor = nn.Sequential(
            *self.make_mlp_hidden(nn.Tanh, state_dim, *mlp_hidden_dims),
            nn.Linear(last_dim, action_dim),
            nn.Tanh(),
        )
        self.critic = nn.Sequential(*self.make_mlp_hidden(nn.Tanh, state_dim, *mlp_hidden_dims), nn.Linear(last_dim, 1))
        std = torch.full((1, 1, action_dim), float(action_std))  # [1, 1, A]
        self.register_buffer("action_std", std, persistent=False)

    @staticmethod
    def make_mlp_hidden(nl: type[nn.Module], *dims: int) -> list[nn.Module]:
        """Returns Linear(dims[0], dims[1]), nl(), Linear(dims[1], dims[2]), nl(), ..."""
        layers: list[nn.Module] = []
        for size_in, size_out in itertools.pairwise(dims):
            layers += [nn.Linear(size_in, size_out), nl()]
        return layers

    def _recurrent_memory_specification(self) -> None:
        return None

    def forward(
        self,
        observations: ObservationType,
        memory: Memory,
        prev_actions: Any,
        masks: torch.Tensor,
    ) -> tuple[ActorCriticOutput[GaussianDistr], Memory | None]:
        """Returns Gaussians over actions [T, N, A] and values [T, N, 1] for observations [T, N, O]."""
        observation = observations[self.input_uuid]  # [T, N, O]
        means = self.actor(observation)  # [T, N, A]
        values = self.critic(observation)  # [T, N, 1]
        # The trainer looks for NaN once per rollout and update; torch would at every construction.
        return ActorCriticOutput(GaussianDistr(means, self.action_std, validate_args=False), values, {}), None

    def make_rollout_policy(self, num_steps: int) -> RolloutPolicy:
        """Returns the actor as NumPy code, for the reasons given in `ActorCriticModel`.

        Raises:
            NotImplementedError: a subclass has given itself an actor of another kind.
        """
        layers: list[Any] = list(self.actor)
        if [type(layer) for layer in layers] != [nn.Linear, nn.Tanh] * (len(layers) // 2):
            raise NotImplementedError("only an actor of Linear and Tanh layers is known in NumPy")
        weights = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in layers[::2]]
        std = self.action_std.detach().numpy()[0]  # [1, A]
        return ReparameterizedPolicy(
            _TanhActor(self.input_uuid, weights, std), ActionNoise(num_steps, std.shape[-1]).draw
        )


@dataclass(frozen=True)
class _TanhActor:
    """The actor of a `MemorylessActorCritic` in NumPy."""

    input_uuid: str
    weights: list[tuple[np.ndarray, np.ndarray]]  # and biases
    std: np.ndarray  # [1, A]

    def __call__(self, observations: dict[str, Any], noise: np.ndarray) -> np.ndarray:
        x = observations[self.input_uuid]  # [N, O]
        for weight, bias in self.weights:
            x = x @ weight  # [N, size of the layer]
            x += bias
            np.tanh(x, out=x)
        actions = noise * self.std  # [N, A]
        actions += x
        return actions


def vector_sizes(
    uuid: str, action_space: gym.spaces.Box, observation_space: gym.spaces.Dict, model: str
) -> tuple[int, int]:
    """Returns the lengths of an observation and of the action, O and A.

    Args:
        uuid: which observation.
        action_space: of the action.
        observation_space: all that is observed.
        model: name of the model that is to look at it.

    Raises:
        SpaceMismatchError: there is no such observation, or one of the two is not a vector.
    """
    if uuid not in observation_space.spaces:
        raise SpaceMismatchError(
            f'the model is to look at "{uuid}", which nobody observes.',
            given=f"observations: {', '.join(observation_space.spaces)}",
            do=did_you_mean(uuid, observation_space.spaces) or "use the uuid of a sensor.",
        )
    space = observation_space[uuid]
    _check_vector(f'observation "{uuid}"', space, model)
    _check_vector("the action", action_space, model)
    return int(space.shape[0]), int(action_space.shape[0])  # type: ignore[index]  # checked above


def _check_vector(what: str, space: gym.Space[Any], model: str) -> None:
    """Raises SpaceMismatchError unless `space` is a Box with one axis."""
    if space_kind(space) == "Discrete" and what == "the action":
        raise SpaceMismatchError(
            f"{model} chooses vectors, and the action is one of {space.n} choices.",  # type: ignore[attr-defined]
            given=str(space),
            do="use a model with a CategoricalDistr; projects/tutorials/own_environment_tutorial.py has one to copy.",
        )
    if space_kind(space) != "Box" or space.shape is None or len(space.shape) != 1:
        raise SpaceMismatchError(
            f"{model} works with vectors, and {what} is none.",
            given=str(space),
            do="use a model for such spaces, e.g. one with a CNN for images.",
        )
