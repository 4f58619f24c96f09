"""Small actor-critics for one vector of features: linear, and recurrent with any head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync.policy import ActionType, ActorCriticModel, FullMemorySpecType
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, DistributionType, Memory, ObservationType
from allenact.embodiedai.models.rnn_state_encoder import RNNStateEncoder
from allenact.errors import SpaceMismatchError
from allenact.utils.spaces_utils import space_kind
from allenact.utils.system import get_logger


class LinearActorCritic(ActorCriticModel[CategoricalDistr]):
    """One linear layer for the policy over discrete actions and for the value; no memory.

    Args:
        input_uuid: name of the observation, a vector.
        action_space: discrete.
        observation_space: contains the observation.
    """

    def __init__(self, input_uuid: str, action_space: gym.Space, observation_space: gym.spaces.Dict) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        if space_kind(action_space) != "Discrete":
            raise SpaceMismatchError(
                "LinearActorCritic needs discrete actions.",
                given=f"action_space={action_space}",
                do="use a model for this kind of actions.",
            )
        self.input_uuid = input_uuid
        num_actions = int(action_space.n)  # type: ignore[attr-defined]  # spaces are recognised by their name
        self.linear = nn.Linear(vector_size(observation_space, input_uuid), num_actions + 1)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def _recurrent_memory_specification(self) -> None:
        return None

    def forward(
        self, observations: ObservationType, memory: Memory, prev_actions: ActionType, masks: torch.Tensor
    ) -> tuple[ActorCriticOutput[CategoricalDistr], None]:
        """Returns policy and values; see `ActorCriticModel.forward`."""
        out = self.linear(observations[self.input_uuid])  # [T, N, actions + 1]
        values = out[..., -1:]
        values = values.reshape(*values.shape[:2], -1)  # [T, N, 1]
        return ActorCriticOutput(CategoricalDistr(logits=out[..., :-1]), values, {}), None


class RNNActorCritic(ActorCriticModel[DistributionType]):
    """A recurrent network in front of another actor-critic.

    Args:
        input_uuid: name of the observation, a vector.
        action_space: space of the actions.
        observation_space: contains the observation.
        hidden_size: size of the recurrent state.
        num_layers: recurrent layers.
        rnn_type: "GRU", "LSTM" or "RNN".
        head_type: called with `input_uuid`, `action_space` and `observation_space`; returns the actor-critic
            that sees the recurrent features under the name `rnn_<input_uuid>`.
    """

    memory_key = "rnn"

    def __init__(
        self,
        input_uuid: str,
        action_space: gym.Space,
        observation_space: gym.spaces.Dict,
        hidden_size: int = 128,
        num_layers: int = 1,
        rnn_type: str = "GRU",
        head_type: Callable[..., ActorCriticModel[DistributionType]] = LinearActorCritic,  # type: ignore[assignment]  # the type of its distribution is that of the default only
    ) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        self.hidden_size = hidden_size
        self.rnn_type = rnn_type
        self.input_uuid = input_uuid
        self.head_uuid = f"rnn_{input_uuid}"
        self.state_encoder = RNNStateEncoder(
            input_size=vector_size(observation_space, input_uuid),
            hidden_size=hidden_size,
            num_layers=num_layers,
            rnn_type=rnn_type,
            trainable_masked_hidden_state=True,
        )
        features = gym.spaces.Box(-np.inf, np.inf, shape=(hidden_size,), dtype=np.float32)
        self.ac_nonrecurrent_head = head_type(
            input_uuid=self.head_uuid,
            action_space=action_space,
            observation_space=gym.spaces.Dict({self.head_uuid: features}),
        )

    @property
    def recurrent_hidden_state_size(self) -> int:
        """Size of the state of one layer."""
        return self.hidden_size

    @property
    def num_recurrent_layers(self) -> int:
        """Layers of the recurrent state; an LSTM has two for each of its layers."""
        return self.state_encoder.num_recurrent_layers

    def _recurrent_memory_specification(self) -> FullMemorySpecType:
        dims = (("layer", self.num_recurrent_layers), ("sampler", None), ("hidden", self.hidden_size))
        return {self.memory_key: (dims, torch.float32)}

    def forward(
        self,
        observations: ObservationType,
        memory: Memory | None,
        prev_actions: ActionType,
        masks: torch.Tensor,
    ) -> tuple[ActorCriticOutput[DistributionType], Memory]:
        """Returns policy and values; see `ActorCriticModel.forward`."""
        inputs: Any = observations[self.input_uuid]  # [T, N, D]
        memory = Memory() if memory is None else memory
        if self.memory_key not in memory:
            get_logger().warning(f'The memory has no entry "{self.memory_key}"; starting from zeros.')
            zeros = inputs.new_zeros(self.num_recurrent_layers, inputs.shape[1], self.hidden_size)  # [L, N, H]
            memory.check_append(self.memory_key, zeros, 1)
        features, state = self.state_encoder(
            x=inputs, hidden_states=memory.tensor(self.memory_key), masks=masks
        )  # [T, N, H], [L, N, H]
        output, _ = self.ac_nonrecurrent_head(
            observations={self.head_uuid: features}, memory=None, prev_actions=prev_actions, masks=masks
        )
        return output, memory.set_tensor(self.memory_key, state)


def vector_size(observation_space: gym.spaces.Dict, uuid: str) -> int:
    """Returns the size of an observation that is a vector.

    Raises:
        SpaceMismatchError: there is no such observation, or it is no vector.
    """
    space = observation_space.spaces.get(uuid)
    if space is None or space_kind(space) != "Box" or space.shape is None or len(space.shape) != 1:
        raise SpaceMismatchError(
            f'the model needs a vector as observation "{uuid}".',
            given=f"{space}; observations: {list(observation_space.spaces)}",
            do="name a sensor whose space is a Box with one dimension.",
        )
    return space.shape[0]
