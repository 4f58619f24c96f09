"""BabyAI's baseline model: a small CNN for the view, a GRU for the instruction, an LSTM for memory.

The architecture is "cnn1" of BabyAI (Chevalier-Boisvert et al., "BabyAI: A Platform to Study the Sample Efficiency of
Grounded Language Learning", 2019); the parameters have the names of its code, so that old checkpoints load.
"""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, FullMemorySpecType, ObservationType
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.errors import ExperimentConfigError, SpaceMismatchError

_VIEW, _MISSION = "minigrid_ego_image", "minigrid_mission"
_VOCABULARY_SIZE = 100  # BabyAI's; fewer words exist, but checkpoints have rows for as many


class BabyAIRecurrentACModel(ActorCriticModel[CategoricalDistr]):
    """Actor-critic on `minigrid_ego_image` [7, 7, 3] and, with `use_instr`, `minigrid_mission` [instr_len].

    Args:
        action_space: discrete.
        observation_space: holds the two observations.
        image_dim: features of the view.
        memory_dim: hidden size of the LSTM.
        instr_dim: size of word embeddings and of the instruction's features.
        use_instr: whether the instruction is read.
        lang_model: how: "gru" or "bigru".
        use_memory: whether there is an LSTM; its state is memory `rnn` [1, N, 2 * memory_dim], hidden and cell.
        arch: only "cnn1".
        aux_info: not supported: None.
        include_auxiliary_head: whether a second policy, `extras["auxiliary_distributions"]`, is computed.

    Raises:
        ExperimentConfigError: an option that is not supported.
        SpaceMismatchError: the view is not [7, 7, 3].
    """

    def __init__(
        self,
        action_space: gym.spaces.Discrete,
        observation_space: gym.spaces.Dict,
        image_dim: int = 128,
        memory_dim: int = 128,
        instr_dim: int = 128,
        use_instr: bool = False,
        lang_model: str = "gru",
        use_memory: bool = False,
        arch: str = "cnn1",
        aux_info: list[str] | None = None,
        include_auxiliary_head: bool = False,
    ) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        self._check_options(arch, lang_model, aux_info)
        self.memory_dim = memory_dim
        self.use_instr = use_instr
        self.use_memory = use_memory
        self.include_auxiliary_head = include_auxiliary_head

        self.image_conv = nn.Sequential(
            nn.Conv2d(3, 16, (2, 2)),
            nn.ReLU(),
            nn.MaxPool2d((2, 2)),
            nn.Conv2d(16, 32, (2, 2)),
            nn.ReLU(),
            nn.Conv2d(32, image_dim, (2, 2)),
            nn.ReLU(),
        )
        embedding_size = image_dim
        if use_memory:
            self.memory_rnn = nn.LSTMCell(image_dim, memory_dim)
            embedding_size = memory_dim
        if use_instr:
            directions = 2 if lang_model == "bigru" else 1
            self.word_embedding = nn.Embedding(_VOCABULARY_SIZE, instr_dim)
            self.instr_rnn = nn.GRU(instr_dim, instr_dim // directions, batch_first=True, bidirectional=directions == 2)
            embedding_size += instr_dim
        self.actor = _head(embedding_size, int(action_space.n))
        self.critic = _head(embedding_size, 1)
        if include_auxiliary_head:
            self.aux = _head(embedding_size, int(action_space.n))
        self.apply(_initialize)

    def _check_options(self, arch: str, lang_model: str, aux_info: Any) -> None:
        """Raises if there is something that this model cannot do."""
        shape = self.observation_space[_VIEW].shape
        if shape != (7, 7, 3):
            raise SpaceMismatchError(
                'the architecture "cnn1" needs a view of 7 x 7 cells with all three channels.',
                given=f"{_VIEW} of shape {shape}",
                do="use EgocentricMiniGridSensor(agent_view_size=7, view_channels=3).",
            )
        if arch != "cnn1" or lang_model not in ("gru", "bigru") or aux_info is not None:
            raise ExperimentConfigError(
                "BabyAIRecurrentACModel does not have this variant of BabyAI's model.",
                given=f"arch={arch!r}, lang_model={lang_model!r}, aux_info={aux_info!r}",
                do='use arch="cnn1", lang_model="gru" or "bigru", and aux_info=None.',
            )

    def _recurrent_memory_specification(self) -> FullMemorySpecType | None:
        if not self.use_memory:
            return None
        return {"rnn": ((("layer", 1), ("sampler", None), ("hidden", 2 * self.memory_dim)), torch.float32)}

    def forward(
        self,
        observations: ObservationType,
        memory: Memory,
        prev_actions: Any,
        masks: torch.Tensor,
    ) -> tuple[ActorCriticOutput[CategoricalDistr], Memory | None]:
        """Returns policy and value for T steps of N samplers; shapes as in `ActorCriticModel.forward`."""
        view = cast(torch.Tensor, observations[_VIEW])  # [T, N, 7, 7, 3]
        num_steps, num_samplers = view.shape[:2]
        images = view.flatten(0, 1).permute(0, 3, 1, 2).float()  # [T * N, 3, 7, 7]
        embedding = self.image_conv(images).view(num_steps, num_samplers, -1)  # [T, N, image_dim]

        if self.use_memory:
            embedding, state = self._remember(embedding, memory.tensor("rnn"), masks)
            memory = Memory(rnn=(state, memory.sampler_dim("rnn")))
        if self.use_instr:
            instruction = self._read(cast(torch.Tensor, observations[_MISSION]))
            embedding = torch.cat([embedding, instruction], dim=-1)  # [T, N, features]

        extras = {}
        if self.include_auxiliary_head:
            extras["auxiliary_distributions"] = CategoricalDistr(logits=self.aux(embedding))
        output = ActorCriticOutput(
            distributions=CategoricalDistr(logits=self.actor(embedding)),
            values=self.critic(embedding),  # [T, N, 1]
            extras=extras,
        )
        return output, memory

    def _remember(
        self, features: torch.Tensor, state: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the LSTM over T steps.

        Args:
            features: [T, N, image_dim].
            state: [1, N, 2 * memory_dim] hidden and cell before the first step.
            masks: [T, N, 1], 0 where the state is forgotten before the step.

        Returns:
            Hidden states [T, N, memory_dim], and the state after the last step.
        """
        hidden, cell = state[0].chunk(2, dim=-1)  # [N, memory_dim] each
        outputs = []
        for step_features, mask in zip(features, masks, strict=True):
            hidden, cell = self.memory_rnn(step_features, (hidden * mask, cell * mask))  # [N, memory_dim] each
            outputs.append(hidden)
        return torch.stack(outputs), torch.cat([hidden, cell], dim=-1).unsqueeze(0)  # [1, N, 2 * memory_dim]

    def _read(self, missions: torch.Tensor) -> torch.Tensor:
        """Returns the features [T, N, instr_dim] of missions [T, N, instr_len], 0 behind their last word."""
        # Missions are the same throughout an episode: read each once.
        different, which = missions.flatten(0, 1).unique(dim=0, return_inverse=True)  # [M, instr_len], [T * N]
        states, _ = self.instr_rnn(self.word_embedding(different))  # [M, instr_len, instr_dim]
        last = (different != 0).sum(dim=1).clamp(min=1) - 1  # [M] position of the last word
        features = states[torch.arange(len(last), device=last.device), last]  # [M, instr_dim]
        return features[which].view(*missions.shape[:2], -1)  # [T, N, instr_dim]


def _head(input_size: int, output_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_size, 64), nn.Tanh(), nn.Linear(64, output_size))


def _initialize(module: nn.Module) -> None:
    """BabyAI's initialisation: rows of linear layers are random directions of length 1, biases 0."""
    if isinstance(module, nn.Linear):
        with torch.no_grad():
            module.weight.normal_()
            module.weight /= module.weight.norm(dim=1, keepdim=True)
            module.bias.zero_()
