"""Models that embed the cells of the agent's view and act on the embeddings, with or without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, FullMemorySpecType, ObservationType
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.embodiedai.models.basic_models import LinearActorCritic, RNNActorCritic
from allenact.errors import SpaceMismatchError

_VIEW = "minigrid_ego_image"


class MiniGridSimpleConvBase(ActorCriticModel[CategoricalDistr]):
    """Embeds every channel of every cell of `minigrid_ego_image` and hands the result to `self.actor_critic`.

    There is no convolution, whatever the name says. Subclasses set `self.actor_critic`, a model whose only
    observation is `self.ac_key`, [T, N, v * v * channels * object_embedding_dim] for a view of v x v cells.

    Args:
        action_space: the actions.
        observation_space: holds `minigrid_ego_image`, [v, v, channels] with v at least 3.
        num_objects: kinds of object, the size of the first embedding; 0 if the view has no such channel.
        num_colors: the same for colours.
        num_states: the same for states.
        object_embedding_dim: length of each embedding.
        **kwargs: ignored, so that subclasses can pass on all their arguments.

    Raises:
        SpaceMismatchError: the view is not square, too small, or has another number of channels.
    """

    actor_critic: ActorCriticModel

    def __init__(
        self,
        action_space: gym.Space,
        observation_space: gym.spaces.Dict,
        num_objects: int,
        num_colors: int,
        num_states: int,
        object_embedding_dim: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        self.num_objects = num_objects
        self.object_embedding_dim = object_embedding_dim
        self.ac_key = "enc"

        counts = {"num_objects": num_objects, "num_colors": num_colors, "num_states": num_states}
        view = cast(tuple[int, ...], observation_space[_VIEW].shape)
        channels = sum(count > 0 for count in counts.values())
        if len(view) != 3 or view[0] != view[1] or view[0] < 3 or view[2] != channels:
            raise SpaceMismatchError(
                f"{type(self).__name__} needs a square view of 3 x 3 cells or more, a channel per embedding.",
                given=f"{_VIEW} of shape {view}; {', '.join(f'{k}={v}' for k, v in counts.items())}",
                do="set the counts to 0 for channels that the sensor leaves out (its view_channels).",
            )
        # In the order of the view's channels; the names are those of AllenAct's checkpoints.
        if num_objects > 0:
            self.object_embedding = nn.Embedding(num_objects, object_embedding_dim)
        if num_colors > 0:
            self.color_embedding = nn.Embedding(num_colors, object_embedding_dim)
        if num_states > 0:
            self.state_embedding = nn.Embedding(num_states, object_embedding_dim)

        size = view[0] * view[1] * channels * object_embedding_dim
        self.ac_observation_space = gym.spaces.Dict(
            {self.ac_key: gym.spaces.Box(low=np.float32(-1e6), high=np.float32(1e6), shape=(size,))}
        )

    def embed(self, view: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings of all cells and channels, [T, N, v * v * channels * object_embedding_dim].

        Args:
            view: [T, N, v, v, channels] numbers of objects, colours and states.
        """
        tables = [
            getattr(self, f"{name}_embedding")
            for name in ("object", "color", "state")
            if hasattr(self, f"{name}_embedding")
        ]
        indices = view.long()
        embedded = [table(indices[..., c]) for c, table in enumerate(tables)]  # each [T, N, v, v, dim]
        return torch.cat(embedded, dim=-1).flatten(start_dim=-3)  # [T, N, v * v * channels * dim]

    def forward(
        self,
        observations: ObservationType,
        memory: Memory,
        prev_actions: Any,
        masks: torch.Tensor,
    ) -> tuple[ActorCriticOutput[CategoricalDistr], Memory | None]:
        """Embeds the view and runs `self.actor_critic`; shapes as in `ActorCriticModel.forward`."""
        view = cast(torch.Tensor, observations[_VIEW])
        output: tuple[ActorCriticOutput[CategoricalDistr], Memory | None] = self.actor_critic(
            observations={self.ac_key: self.embed(view)}, memory=memory, prev_actions=prev_actions, masks=masks
        )
        return output


class MiniGridSimpleConvRNN(MiniGridSimpleConvBase):
    """Embedded view, recurrent state (memory `rnn`), linear actor and critic.

    Args:
        action_space: see `MiniGridSimpleConvBase`.
        observation_space: see `MiniGridSimpleConvBase`.
        num_objects: see `MiniGridSimpleConvBase`.
        num_colors: see `MiniGridSimpleConvBase`.
        num_states: see `MiniGridSimpleConvBase`.
        object_embedding_dim: see `MiniGridSimpleConvBase`.
        hidden_size: size of the recurrent state.
        num_layers: recurrent layers.
        rnn_type: "GRU" or "LSTM".
        head_type: model behind the recurrent state, see `RNNActorCritic`.
        **kwargs: ignored.
    """

    actor_critic: RNNActorCritic

    def __init__(
        self,
        action_space: gym.Space,
        observation_space: gym.spaces.Dict,
        num_objects: int,
        num_colors: int,
        num_states: int,
        object_embedding_dim: int = 8,
        hidden_size: int = 512,
        num_layers: int = 1,
        rnn_type: str = "GRU",
        head_type: Callable[..., ActorCriticModel[CategoricalDistr]] = LinearActorCritic,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            action_space, observation_space, num_objects, num_colors, num_states, object_embedding_dim, **kwargs
        )
        self.actor_critic = RNNActorCritic(
            input_uuid=self.ac_key,
            action_space=action_space,
            observation_space=self.ac_observation_space,
            hidden_size=hidden_size,
            num_layers=num_layers,
            rnn_type=rnn_type,
            head_type=head_type,
        )
        self.memory_key = "rnn"

    @property
    def num_recurrent_layers(self) -> int:
        """Layers of the recurrent state, twice as many for an LSTM."""
        return self.actor_critic.num_recurrent_layers

    @property
    def recurrent_hidden_state_size(self) -> int:
        """Size of the recurrent state."""
        return self.actor_critic.recurrent_hidden_state_size

    def _recurrent_memory_specification(self) -> FullMemorySpecType:
        layers, hidden = self.num_recurrent_layers, self.recurrent_hidden_state_size
        return {self.memory_key: ((("layer", layers), ("sampler", None), ("hidden", hidden)), torch.float32)}


class MiniGridSimpleConv(MiniGridSimpleConvBase):
    """Embedded view, linear actor and critic, no memory.

    Args:
        action_space: see `MiniGridSimpleConvBase`.
        observation_space: see `MiniGridSimpleConvBase`.
        num_objects: see `MiniGridSimpleConvBase`.
        num_colors: see `MiniGridSimpleConvBase`.
        num_states: see `MiniGridSimpleConvBase`.
        object_embedding_dim: see `MiniGridSimpleConvBase`.
        **kwargs: ignored.
    """

    def __init__(
        self,
        action_space: gym.Space,
        observation_space: gym.spaces.Dict,
        num_objects: int,
        num_colors: int,
        num_states: int,
        object_embedding_dim: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            action_space, observation_space, num_objects, num_colors, num_states, object_embedding_dim, **kwargs
        )
        self.actor_critic = LinearActorCritic(
            input_uuid=self.ac_key, action_space=action_space, observation_space=self.ac_observation_space
        )

    def _recurrent_memory_specification(self) -> None:
        return None
