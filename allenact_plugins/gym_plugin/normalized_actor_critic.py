"""An actor-critic for vectors that normalises what it sees and what it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.utils.running_moments import RunningMoments
from allenact_plugins.gym_plugin.gym_distributions import ActionNoise, GaussianDistr, JointGaussianDistr
from allenact_plugins.gym_plugin.gym_models import vector_sizes

Array = np.ndarray


def _elu(x: Array) -> None:
    negative = np.minimum(x, 0)
    np.exp(negative, out=negative)  # several times as fast as expm1, and as good within the rounding of what follows
    negative -= 1
    np.maximum(x, 0, out=x)
    x += negative


def _tanh(x: Array) -> None:
    np.tanh(x, out=x)


def _relu(x: Array) -> None:
    np.maximum(x, 0, out=x)


# Name -> the layer, and what it does to an array in place.
ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[[Array], None]]] = {
    "elu": (nn.ELU, _elu),
    "tanh": (nn.Tanh, _tanh),
    "relu": (nn.ReLU, _relu),
}
INITIALISATIONS = ("default", "zero_bias", "orthogonal")


class NormalizedActorCritic(ActorCriticModel[GaussianDistr]):
    """Networks without memory between two normalisations, with a standard deviation that no observation changes.

    Means and variances of observations and returns are gathered in training, once per rollout, over everything seen so
    far and over all workers; they are saved with the weights and stand still in evaluation. The value network predicts
    normalised returns; `values` are in units of the reward, and `extras["value_scale"]` tells the loss the unit.

    The action is a Gaussian whose logarithmic standard deviation is a parameter of its own, the same for every
    observation. It is meant for tasks with `unit_actions`, for which 1 is the end of the range.

    Args:
        input_uuid: sensor that gives the observation, a vector.
        action_space: a Box with one axis.
        observation_space: dict space with `input_uuid`.
        hidden_sizes: of the layers.
        activation: "elu", "tanh" or "relu".
        shared_torso: one network with two heads, or one network each for action and value.
        initialisation: "default" (torch's), "zero_bias" (torch's weights, biases of 0) or "orthogonal" (gain sqrt 2,
            0.01 for the means and 1 for the value, biases of 0).
        joint: one probability for each action; False: one for each of its entries, so that PPO has a ratio for each.
        initial_log_std: of every entry of the action.
        learn_std: whether it changes in training.
        log_std_range: bounds of that logarithm, whatever the parameter is.
        normalize_observations: whether the networks see observations of mean 0 and variance 1.
        observation_clip: how many standard deviations from the mean they see at most.
        normalize_returns: whether values are predicted as described above.
        keep_values: when the moments of the returns change, also change the value head so that no value does
            (van Hasselt et al., 2016).

    Raises:
        SpaceMismatchError: observation or action is not a vector.
        ExperimentConfigError: there is no such activation or initialisation, or the standard deviation would begin
            out of its range.
    """

    def __init__(
        self,
        input_uuid: str,
        action_space: gym.spaces.Box,
        observation_space: gym.spaces.Dict,
        *,
        hidden_sizes: Sequence[int] = (256, 128, 64),
        activation: str = "elu",
        shared_torso: bool = True,
        initialisation: str = "zero_bias",
        joint: bool = True,
        initial_log_std: float = 0.0,
        learn_std: bool = True,
        log_std_range: tuple[float, float] = (-5.0, 2.0),
        normalize_observations: bool = True,
        observation_clip: float = 5.0,
        normalize_returns: bool = True,
        keep_values: bool = False,
    ) -> None:
        super().__init__(action_space, observation_space)
        _check_choice("activation", activation, tuple(ACTIVATIONS))
        _check_choice("initialisation", initialisation, INITIALISATIONS)
        _check_log_std(initial_log_std, log_std_range)
        self.input_uuid = input_uuid
        model = type(self).__name__
        observation_size, action_size = vector_sizes(input_uuid, action_space, observation_space, model)
        self.observation_clip = observation_clip
        self.keep_values = keep_values
        self.distribution = JointGaussianDistr if joint else GaussianDistr
        self.log_std_range = log_std_range
        layer, self._numpy_activation = ACTIVATIONS[activation]

        def torso() -> nn.Sequential:
            sizes = (observation_size, *hidden_sizes)
            pairs = [(nn.Linear(a, b), layer()) for a, b in zip(sizes, hidden_sizes, strict=False)]
            return nn.Sequential(*(module for pair in pairs for module in pair))

        features = (observation_size, *hidden_sizes)[-1]
        self.torso = torso()
        self.value_torso = None if shared_torso else torso()
        self.mean_head = nn.Linear(features, action_size)
        self.value_head = nn.Linear(features, 1)
        log_std = torch.full((action_size,), float(initial_log_std))  # [A]
        self.log_std = nn.Parameter(log_std, requires_grad=learn_std)
        self.observation_moments: RunningMoments | None = None
        if normalize_observations:
            self.observation_moments = RunningMoments(observation_size, f'observations of sensor "{input_uuid}"')
        self.return_moments = RunningMoments(1, "returns") if normalize_returns else None
        self._initialise(initialisation)

    def _initialise(self, initialisation: str) -> None:
        if initialisation == "default":
            return
        gains: dict[nn.Module, float] = {self.mean_head: 0.01, self.value_head: 1.0}
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if initialisation == "orthogonal":
                    nn.init.orthogonal_(module.weight, gain=gains.get(module, math.sqrt(2)))

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
        x = observations[self.input_uuid]  # [T, N, O]
        if self.observation_moments is not None:
            x = self.observation_moments(x).clamp(-self.observation_clip, self.observation_clip)  # [T, N, O]
        features = self.torso(x)  # [T, N, last hidden size]
        values = self.value_head(features if self.value_torso is None else self.value_torso(x))  # [T, N, 1]
        extras: dict[str, Any] = {}
        if self.return_moments is not None:
            scale = self.return_moments.scale()  # [1]
            values = values * scale + self.return_moments.mean.float()  # [T, N, 1]
            extras["value_scale"] = scale
        # The trainer looks for NaN once per rollout and update; torch would at every construction.
        policy = self.distribution(self.mean_head(features), self.std(), validate_args=False)
        return ActorCriticOutput(policy, values, extras), None

    def std(self) -> torch.Tensor:
        """Returns the standard deviation of the action, [A].

        Its logarithm is clamped, and the gradient goes past the clamp (a straight-through estimator; Bengio et al.,
        2013): otherwise nothing would bring back a parameter that a step has taken over a bound.
        """
        within = self.log_std.detach().clamp(*self.log_std_range)  # [A]
        return (within + (self.log_std - self.log_std.detach())).exp()

    @torch.no_grad()
    def update_statistics(
        self,
        observations: ObservationType,
        returns: torch.Tensor,
        sum_over_workers: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Takes the observations and returns of a rollout into the running moments.

        Raises:
            NonFiniteError: one of them is NaN or infinite.
        """
        if self.observation_moments is not None:
            rows: Any = observations[self.input_uuid]  # [T, N, O]
            self.observation_moments.update(rows, sum_over_workers)
        moments = self.return_moments
        if moments is None:
            return
        scale, mean = moments.scale(), moments.mean.float()  # [1], [1]
        moments.update(returns, sum_over_workers)
        if self.keep_values:
            new_scale = moments.scale()  # [1]
            self.value_head.weight *= scale / new_scale
            self.value_head.bias.copy_((self.value_head.bias * scale + mean - moments.mean.float()) / new_scale)

    def make_rollout_policy(self, num_steps: int) -> RolloutPolicy:
        """Returns the policy as NumPy code, for the reasons given in `ActorCriticModel`."""
        std = self.std().detach().numpy()  # [A]
        moments = self.observation_moments
        act = _NormalizingActor(
            input_uuid=self.input_uuid,
            moments=None if moments is None else (moments.mean.float().numpy(), moments.scale().numpy()),
            clip=self.observation_clip,
            hidden=[_weights(layer) for layer in self.torso if isinstance(layer, nn.Linear)],
            activation=self._numpy_activation,
            head=_weights(self.mean_head),
            std=std,
        )
        return ReparameterizedPolicy(act, ActionNoise(num_steps, len(std)).draw)


@dataclass(frozen=True)
class _NormalizingActor:
    """The policy of a `NormalizedActorCritic` in NumPy."""

    input_uuid: str
    moments: tuple[Array, Array] | None  # mean and scale of the observations, [O] each
    clip: float
    hidden: list[tuple[Array, Array]]  # weights and biases
    activation: Callable[[Array], Any]  # in place
    head: tuple[Array, Array]
    std: Array  # [A]

    def __call__(self, observations: dict[str, Any], noise: Array) -> Array:
        x = observations[self.input_uuid]  # [N, O]
        if self.moments is not None:
            mean, scale = self.moments
            x = x - mean  # [N, O]
            x /= scale
            np.minimum(x, self.clip, out=x)
            np.maximum(x, -self.clip, out=x)
        for weight, bias in self.hidden:
            x = x @ weight  # [N, size of the layer]
            x += bias
            self.activation(x)
        head_weight, head_bias = self.head
        actions: Array = noise * self.std  # [N, A]
        actions += x @ head_weight
        actions += head_bias
        return actions


def _weights(layer: nn.Linear) -> tuple[Array, Array]:
    return layer.weight.detach().numpy().T, layer.bias.detach().numpy()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ExperimentConfigError(
            f'there is no {name} called "{value}".',
            given=f'{name}="{value}"',
            do=did_you_mean(value, choices) or f"use one of {', '.join(choices)}.",
        )


def _check_log_std(initial: float, bounds: Sequence[float]) -> None:
    low, high = bounds
    if not low <= initial <= high:
        raise ExperimentConfigError(
            "the standard deviation of the actions would begin out of its range.",
            given=f"initial_log_std={initial}, log_std_range=({low}, {high})",
            do="choose a logarithm within the range, or a wider range.",
        )
