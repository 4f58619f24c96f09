"""What a MiniGrid agent perceives: the cells in front of it, and the words of its mission."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv

from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task import Task
from allenact.errors import TaskError
from allenact_plugins.minigrid_plugin.minigrid_environments import grid_world

# The words of BabyAI missions, in the order that numbers them from 1; 0 fills up short missions.
_WORDS = (
    "a after and ball behind blue box door front go green grey in key left next of on open pick purple put "
    "red right the then to up yellow you your"
)
ALL_VOCAB_TOKENS = _WORDS.split()
_WORD_TO_TOKEN = {word: token for token, word in enumerate(ALL_VOCAB_TOKENS, start=1)}


def mission_tokens(mission: str, instr_len: int) -> np.ndarray:
    """Returns the numbers of the words of `mission`, cut or filled with zeros to [instr_len] int64.

    Raises:
        TaskError: a word is not in BabyAI's vocabulary.
    """
    words = re.findall("[a-z]+", mission.lower())
    unknown = sorted(set(words) - set(_WORD_TO_TOKEN))
    if unknown:
        raise TaskError(
            f"the mission holds words that BabyAI does not use: {', '.join(unknown)}.",
            given=f'mission "{mission}"',
            do="use MiniGridMissionSensor with BabyAI levels only.",
        )
    tokens = np.zeros(instr_len, dtype=np.int64)  # [instr_len]
    known = [_WORD_TO_TOKEN[word] for word in words[:instr_len]]
    tokens[: len(known)] = known
    return tokens


class EgocentricMiniGridSensor(Sensor[MiniGridEnv, Task[MiniGridEnv]]):
    """The square of cells that the agent sees, itself at the middle of the last row, looking towards row 0.

    The observation is [v, v, channels] uint8 with `v = agent_view_size`. Channel 0 is the kind of object,
    1 its colour, 2 its state (of doors), as numbered by `minigrid.core.constants`.

    Args:
        agent_view_size: cells along one side of the square; odd and at least 3.
        view_channels: how many of the three channels are kept.
        uuid: name of the observation.
        **kwargs: ignored.

    Attributes:
        num_objects: how many kinds of object there are, for an embedding of channel 0.
        num_colors: the same for channel 1.
        num_states: the same for channel 2.
    """

    def __init__(
        self, agent_view_size: int, view_channels: int = 1, uuid: str = "minigrid_ego_image", **kwargs: Any
    ) -> None:
        self.agent_view_size = agent_view_size
        self.view_channels = view_channels
        self.num_objects = max(OBJECT_TO_IDX.values()) + 1
        self.num_colors = max(COLOR_TO_IDX.values()) + 1
        self.num_states = max(STATE_TO_IDX.values()) + 1
        super().__init__(uuid=uuid, observation_space=self._get_observation_space())

    def _get_observation_space(self) -> gym.spaces.Box:
        size = self.agent_view_size
        return gym.spaces.Box(
            low=0,
            high=max(self.num_objects, self.num_colors, self.num_states) - 1,
            shape=(size, size, self.view_channels),
            dtype=np.int64,
        )

    def get_observation(
        self,
        env: MiniGridEnv,
        task: Task[MiniGridEnv] | None,
        *args: Any,
        minigrid_output_obs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Returns the view: `minigrid_output_obs`, which the last step returned, if its size is right."""
        size = self.agent_view_size
        if minigrid_output_obs is None or minigrid_output_obs["image"].shape[:2] != (size, size):
            grid_world(env).agent_view_size = size  # from now on, what steps return has our size
            minigrid_output_obs = grid_world(env).gen_obs()
        return minigrid_output_obs["image"][:, :, : self.view_channels].astype(np.uint8, copy=False)


class MiniGridMissionSensor(Sensor[MiniGridEnv, Task[MiniGridEnv]]):
    """The words of a BabyAI mission as numbers: [instr_len] int64, see `mission_tokens`.

    Args:
        instr_len: number of words kept; shorter missions are filled with zeros.
        uuid: name of the observation.
        **kwargs: ignored.
    """

    def __init__(self, instr_len: int, uuid: str = "minigrid_mission", **kwargs: Any) -> None:
        self.instr_len = instr_len
        super().__init__(uuid=uuid, observation_space=self._get_observation_space())

    def _get_observation_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(low=0, high=len(ALL_VOCAB_TOKENS), shape=(self.instr_len,), dtype=np.int64)

    def get_observation(
        self,
        env: MiniGridEnv,
        task: Task[MiniGridEnv] | None,
        *args: Any,
        minigrid_output_obs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Returns the tokens of the mission in `minigrid_output_obs` or, without it, of the environment."""
        if minigrid_output_obs is None:
            minigrid_output_obs = grid_world(env).gen_obs()
        return mission_tokens(minigrid_output_obs["mission"], self.instr_len)
