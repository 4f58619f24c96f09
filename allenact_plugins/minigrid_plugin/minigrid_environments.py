"""Crossing environments: replayable ones, ones that hide the view until asked, and larger ones."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from minigrid.core.world_object import Lava, Wall, WorldObj
from minigrid.envs import CrossingEnv
from minigrid.minigrid_env import MiniGridEnv

GridObservation = dict[str, Any]  # "image" [v, v, 3] uint8, "direction" int, "mission" str


def grid_world(env: gym.Env[Any, Any]) -> MiniGridEnv:
    """Returns the MiniGrid environment inside `env`, which may be wrapped."""
    return cast(MiniGridEnv, env.unwrapped)


class FastCrossing(CrossingEnv):
    """A crossing environment that can start the same episode again without making its grid anew.

    Args:
        size: width and height of the grid in cells, outer walls included; odd.
        num_crossings: number of rivers (or walls) across the room, each with one opening.
        obstacle_type: what the rivers consist of: a MiniGrid object class or "lava" or "wall".
        seed: seed of the first grid; None draws one from the operating system.
        **kwargs: passed to `minigrid.envs.CrossingEnv`.
    """

    def __init__(
        self,
        size: int = 9,
        num_crossings: int = 1,
        obstacle_type: type[WorldObj] | str = Lava,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(size=size, num_crossings=num_crossings, obstacle_type=obstacle_type, **kwargs)
        self.reset(seed=seed)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        partial_reset: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in a new grid, or in the present one if `partial_reset`."""
        if partial_reset:
            return self.same_seed_reset(), {}
        observation, info = super().reset(seed=seed, options=options)
        self._start = (tuple(self.agent_pos), self.agent_dir)
        return observation, info

    def same_seed_reset(self) -> GridObservation:
        """Puts the agent back where the episode began, keeps the grid, and returns the first observation."""
        self.agent_pos, self.agent_dir = self._start
        self.step_count = 0
        self.carrying = None
        return self.gen_obs()


class AskForHelpSimpleCrossing(FastCrossing):
    """A crossing where the agent is blind unless it has asked for help with the `toggle` action.

    The image is all zeros except in the observation that follows a `toggle`, or from the first `toggle` on if
    `toggle_is_permenant`.

    Args:
        size: as for `FastCrossing`.
        num_crossings: as for `FastCrossing`.
        obstacle_type: as for `FastCrossing`.
        seed: as for `FastCrossing`.
        exploration_reward: added to the reward of a step onto a cell not visited in this episode.
        death_penalty: added to the last reward (so usually negative) of an episode that ends without success
            before the step limit.
        toggle_is_permenant: whether one `toggle` opens the eyes for the rest of the episode; the spelling is
            AllenAct's.
        **kwargs: passed to `minigrid.envs.CrossingEnv`.
    """

    def __init__(
        self,
        size: int = 9,
        num_crossings: int = 1,
        obstacle_type: type[WorldObj] | str = Wall,
        seed: int | None = None,
        exploration_reward: float | None = None,
        death_penalty: float | None = None,
        toggle_is_permenant: bool = False,
        **kwargs: Any,
    ) -> None:
        self.exploration_reward = exploration_reward
        self.death_penalty = death_penalty
        self.toggle_is_permenant = toggle_is_permenant
        self._begin_episode()
        super().__init__(size=size, num_crossings=num_crossings, obstacle_type=obstacle_type, seed=seed, **kwargs)

    def _begin_episode(self) -> None:
        self.was_successful = False
        self.explored_points: set[tuple[int, int]] = set()
        self._sees = False

    def gen_obs(self) -> GridObservation:
        """Returns MiniGrid's observation, its image zeroed while the agent is blind."""
        observation = super().gen_obs()
        if not self._sees:
            observation["image"] = np.zeros_like(observation["image"])
        return observation

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        partial_reset: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in a new grid, or in the present one if `partial_reset`."""
        self._begin_episode()
        observation, info = super().reset(seed=seed, options=options, partial_reset=partial_reset)
        self.explored_points = {self._agent_cell()}
        return observation, info

    def same_seed_reset(self) -> GridObservation:
        """Puts the agent back where the episode began, keeps the grid, and returns the first observation."""
        self._begin_episode()
        observation = super().same_seed_reset()
        self.explored_points = {self._agent_cell()}
        return observation

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps as MiniGrid does, with the view and the extra rewards of this class."""
        asked = action == self.actions.toggle
        self._sees = asked or (self._sees and self.toggle_is_permenant)
        observation, reward, terminated, truncated, info = super().step(action)
        reward = float(reward)
        self.was_successful = bool(terminated and reward > 0)

        cell = self._agent_cell()
        if cell not in self.explored_points:
            self.explored_points.add(cell)
            reward += self.exploration_reward or 0.0
        if terminated and not self.was_successful and self.steps_remaining > 0:
            reward += self.death_penalty or 0.0
        return observation, reward, terminated, truncated, info

    def metrics(self) -> dict[str, float]:
        """Returns how much of the grid was seen in this episode.

        Returns:
            explored_count: number of different cells the agent has stood on.
            final_distance: smallest Manhattan distance, in cells, from any of them to the goal's corner.
        """
        goal = (self.width - 2, self.height - 2)
        distances = [abs(goal[0] - x) + abs(goal[1] - y) for x, y in self.explored_points]
        return {"explored_count": len(self.explored_points), "final_distance": min(distances)}

    def _agent_cell(self) -> tuple[int, int]:
        x, y = self.agent_pos
        return int(x), int(y)


class LavaCrossingS25N10(CrossingEnv):
    """A room of 25 x 25 cells with ten rivers of lava."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(size=25, num_crossings=10, **kwargs)


class LavaCrossingS15N7(CrossingEnv):
    """A room of 15 x 15 cells with seven rivers of lava."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(size=15, num_crossings=7, **kwargs)


class LavaCrossingS11N7(CrossingEnv):
    """A room of 9 x 9 cells with four rivers of lava; the name is AllenAct's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(size=9, num_crossings=4, **kwargs)


for _name in ("LavaCrossingS25N10", "LavaCrossingS15N7", "LavaCrossingS11N7"):
    if f"MiniGrid-{_name}-v0" not in gym.registry:
        gym.register(id=f"MiniGrid-{_name}-v0", entry_point=f"{__name__}:{_name}")
