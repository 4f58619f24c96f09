"""ActorCriticModel: what the training loop asks of a model; and simple output layers."""

from __future__ import annotations

import abc
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, DistributionType, Memory, ObservationType
from allenact.errors import ExperimentConfigError

__all__ = [
    "ActFunction",
    "ActionType",
    "ActorCriticModel",
    "ActorCriticOutput",
    "CategoricalDistr",
    "DistributionType",
    "FullMemorySpecType",
    "LinearActorCriticHead",
    "LinearActorHead",
    "LinearCriticHead",
    "Memory",
    "MemoryDimType",
    "MemoryShapeType",
    "MemorySpecType",
    "ObservationType",
    "ReparameterizedPolicy",
    "RolloutPolicy",
]

MemoryDimType = tuple[str, int | None]  # name and extent; None for the dimension of the samplers
MemoryShapeType = tuple[MemoryDimType, ...]
MemorySpecType = tuple[MemoryShapeType, torch.dtype]
FullMemorySpecType = Mapping[str, MemorySpecType]
ActionType = torch.Tensor | OrderedDict[str, Any] | tuple[Any, ...] | int


# Observations, nested dicts with leaves [N, O...], -> flattened actions [N, A].
RolloutPolicy = Callable[[dict[str, Any]], np.ndarray]

# The same as a pure function that can be pickled: the noise of the step, [N, ...], is its second argument.
ActFunction = Callable[[dict[str, Any], np.ndarray], np.ndarray]


class ReparameterizedPolicy:
    """A `RolloutPolicy` as a pure function of observations and noise, so that sampler processes can act by themselves.

    Args:
        act: chooses the actions. Those of one sampler depend on nothing but its observations and its noise. It is
            pickled once per rollout if there are sampler processes.
        draw: returns the noise of the next step for N samplers, [N, ...].
    """

    def __init__(self, act: ActFunction, draw: Callable[[int], np.ndarray]) -> None:
        self.act = act
        self.draw = draw

    def __call__(self, observations: dict[str, Any]) -> np.ndarray:
        """Returns actions [N, A]."""
        leaf: Any = observations
        while isinstance(leaf, dict):
            leaf = next(iter(leaf.values()))
        return self.act(observations, self.draw(len(leaf)))


class ActorCriticModel(Generic[DistributionType], nn.Module, abc.ABC):
    """A policy and a value function.

    Two hooks are looked up by name: `sampler_select(keep)`, called after each environment step with the
    indices of the samplers that go on, and `compute_total_grad_norm()`, called after `backward`.

    Args:
        action_space: space of the actions; it decides how actions are flattened.
        observation_space: space of the observations.

    Attributes:
        action_space: as given.
        observation_space: as given.
        memory_spec: the memory specification in a list, once it has been asked for.
    """

    def __init__(self, action_space: gym.Space, observation_space: gym.spaces.Dict) -> None:
        super().__init__()
        self.action_space = action_space
        self.observation_space = observation_space
        self.memory_spec: list[FullMemorySpecType | None] | None = None

    @property
    def recurrent_memory_specification(self) -> FullMemorySpecType | None:
        """What `_recurrent_memory_specification` returns, checked.

        Raises:
            ExperimentConfigError: a tensor has a "step" dimension, or not exactly one called "sampler".
        """
        if self.memory_spec is None:
            specification = self._recurrent_memory_specification()
            for key, (dims, _) in (specification or {}).items():
                names = [name for name, _ in dims]
                if "step" in names or names.count("sampler") != 1:
                    raise ExperimentConfigError(
                        f'the memory "{key}" of {type(self).__name__} has impossible dimensions.',
                        given=f"{names}",
                        do='name one dimension "sampler" and none "step".',
                    )
            self.memory_spec = [specification]
        return self.memory_spec[0]

    @abc.abstractmethod
    def _recurrent_memory_specification(self) -> FullMemorySpecType | None:
        """Returns the layout of the recurrent state, None if there is none.

        Example::

            {"rnn": ((("layer", 1), ("sampler", None), ("hidden", 512)), torch.float32)}
        """

    @abc.abstractmethod
    def forward(
        self,
        observations: ObservationType,
        memory: Memory,
        prev_actions: ActionType,
        masks: torch.Tensor,
    ) -> tuple[ActorCriticOutput[DistributionType], Memory | None]:
        """Runs the model over T steps of N samplers; called with keywords.

        Args:
            observations: nested dict, leaves [T, N, O...].
            memory: recurrent state before the first step, without a step dimension.
            prev_actions: the actions before these observations, as the action space has them, leaves
                [T, N, ...]. They are not zeroed where an episode starts: use `masks`.
            masks: [T, N, 1] 0 where an observation is the first of an episode, else 1.

        Returns:
            Distributions, values [T, N, 1] and extras; and the recurrent state after the last step, in the
            layout of `memory`.
        """

    def make_rollout_policy(self, num_steps: int) -> RolloutPolicy:
        """Returns a function that samples actions from observations alone, in NumPy: acting, and nothing else.

        To be implemented by models on the CPU without memory whose policy looks at nothing but the observations. It is
        called before each rollout, whose weights the function may take over; it draws its noise from torch's generator.
        `forward` must give the same distribution within rounding: values and log-probabilities of the rollout are
        computed by it, in one pass when the rollout ends. If it is a `ReparameterizedPolicy`, sampler processes
        collect whole rollouts without a message between two steps.

        Args:
            num_steps: T, how often the function will be called.

        Raises:
            NotImplementedError: this model has to be run in full at every step.
        """
        raise NotImplementedError(f"{type(self).__name__} acts with forward()")

    def update_statistics(
        self,
        observations: ObservationType,
        returns: torch.Tensor,
        sum_over_workers: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Takes a rollout into the running statistics that a model normalises with; does nothing by default.

        Called once per rollout in training, after the updates with it, so that the policy that acted is also the
        one that the updates start from. Statistics belong into buffers, to be saved with the weights.

        Args:
            observations: leaves [T, N, O...] of this worker's rollout.
            returns: [T, N, 1] the values' targets, in units of the reward.
            sum_over_workers: returns the sum of a tensor over the training workers, each of which must call it
                as often as the others.
        """


def keeps_statistics(model: nn.Module) -> bool:
    """Whether the model overrides `update_statistics`; a method that only has the same name does not count."""
    nothing = ActorCriticModel.update_statistics
    own = getattr(type(model), "update_statistics", nothing)
    return own is not nothing and "sum_over_workers" in inspect.signature(own).parameters


class LinearActorCriticHead(nn.Module):
    """One linear layer for policy and value.

    Args:
        input_size: size of the features, D.
        num_actions: number of actions, K.
    """

    def __init__(self, input_size: int, num_actions: int) -> None:
        super().__init__()
        self.actor_and_critic = nn.Linear(input_size, num_actions + 1)
        nn.init.orthogonal_(self.actor_and_critic.weight)
        nn.init.zeros_(self.actor_and_critic.bias)

    def forward(self, x: torch.Tensor) -> tuple[CategoricalDistr, torch.Tensor]:
        """Returns the policy and the values [T, N, 1] for features [T, N, D]."""
        out = self.actor_and_critic(x)  # [T, N, K + 1]
        values = out[..., -1:]
        return CategoricalDistr(logits=out[..., :-1]), values.reshape(*values.shape[:2], -1)  # [T, N, 1]


class LinearCriticHead(nn.Module):
    """A linear value function.

    Args:
        input_size: size of the features, D.
    """

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(input_size, 1)
        nn.init.orthogonal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the values [T, N, 1] for features [T, N, D]."""
        return self.fc(x).reshape(*x.shape[:2], -1)  # [T, N, 1]


class LinearActorHead(nn.Module):
    """A linear policy over discrete actions, nearly uniform at first.

    Args:
        num_inputs: size of the features, D.
        num_outputs: number of actions.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)
        nn.init.orthogonal_(self.linear.weight, gain=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> CategoricalDistr:
        """Returns the policy for features [T, N, D]."""
        return CategoricalDistr(logits=self.linear(x))
