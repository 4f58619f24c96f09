"""Episodes of Gymnasium environments as AllenAct tasks, and which kind of task and sensor an environment has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import Task
from allenact_plugins.gym_plugin.gym_environment import GymEnvironment
from allenact_plugins.gym_plugin.gym_sensors import (
    BOX2D_SPACES,
    GymBox2DSensor,
    GymMuJoCoSensor,
    environment_spaces,
)
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS

_CONTINUOUS_BOX2D = ("CarRacing-v0", "LunarLanderContinuous-v2", "BipedalWalker-v2", "BipedalWalkerHardcore-v2")


class GymTask(Task[GymEnvironment]):
    """One episode of a Gymnasium environment.

    A subclass implements `_step` and sets `_gym_done` in it to what the environment said. `max_steps` is the
    limit under which the environment is registered.

    Args:
        env: the environment, reset already.
        sensors: a suite, or the sensors to make one of.
        task_info: what describes this episode.
        kwargs: passed on.
    """

    def __init__(
        self,
        env: GymEnvironment,
        sensors: SensorSuite | Sequence[Sensor],
        task_info: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        limit = env.spec.max_episode_steps
        max_steps = sys.maxsize if limit is None else limit
        super().__init__(env=env, sensors=sensors, task_info=task_info, max_steps=max_steps, **kwargs)
        self._gym_done = False
        self.task_name: str = env.spec.id

    @property
    def action_space(self) -> gym.Space:
        """The environment's."""
        return self.env.action_space

    def render(self, mode: str = "rgb", *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns a picture of the environment, [H, W, 3] uint8."""
        return self.env.render("rgb_array" if mode == "rgb" else mode, *args, **kwargs)

    def get_observations(self, *args: Any, gym_obs: Any = None, **kwargs: Any) -> Any:
        """Returns what the sensors see; `gym_obs` is what the environment's step returned, if there was one."""
        return super().get_observations(gym_obs=gym_obs, **kwargs)

    def reached_terminal_state(self) -> bool:
        """Whether the environment said that the episode is over (its own time limit included)."""
        return self._gym_done

    def was_truncated(self) -> bool:
        """Whether the episode ended because of a limit."""
        if self._gym_done:
            return self.env.truncated and not self.env.terminated
        return self.reached_max_steps()

    def metrics(self) -> dict[str, Any]:
        """Returns length, reward, the environment's own metrics if it has any, and `success`.

        Without an attribute `was_successful` of the environment, an episode with a positive return is a success.
        """
        metrics = super().metrics()
        if hasattr(self.env, "metrics"):
            metrics.update({name: float(value) for name, value in self.env.metrics().items()})
        success = self.env.was_successful if hasattr(self.env, "was_successful") else self.cumulative_reward > 0
        return {**metrics, "success": int(success)}

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def synchronise(self, num_steps_taken: int, total_reward: float, done: bool) -> None:
        """Takes over what happened in this episode while something else stepped its environment."""
        self._num_steps_taken = num_steps_taken
        self._total_reward = total_reward
        self._gym_done = done

    def state_dict(self) -> dict[str, Any]:
        """Returns how far this episode has come. A subclass with attributes of its own adds them."""
        return {
            "task_info": self.task_info,
            "num_steps_taken": self._num_steps_taken,
            "total_reward": self._total_reward,
            "gym_done": self._gym_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.task_info = state["task_info"]
        self.synchronise(state["num_steps_taken"], state["total_reward"], state["gym_done"])


class GymContinuousTask(GymTask):
    """An episode in which actions are vectors."""

    @classmethod
    def class_action_names(cls) -> tuple[str, ...]:
        """Returns an empty tuple: continuous actions have no names."""
        return ()

    def _step(self, action: Any) -> RLStepResult:
        observation, reward, self._gym_done, info = self.env.step(action=np.array(action))
        return RLStepResult(
            observation=self.get_observations(gym_obs=observation),
            reward=reward,
            done=self.is_done(),
            info=info,
        )


class GymDiscreteTask(GymTask):
    """An episode in which an action is one of n choices.

    Agents count their choices from 0. Where the environment counts from another number, its `Discrete` space says so,
    and what is added here is that number.
    """

    @classmethod
    def class_action_names(cls) -> tuple[str, ...]:
        """Returns an empty tuple: Gymnasium numbers actions and does not name them."""
        return ()

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """As many choices as the environment offers, counted from 0."""
        return gym.spaces.Discrete(int(self.env.action_space.n))

    def _step(self, action: Any) -> RLStepResult:
        choice = int(action) + int(self.env.action_space.start)
        observation, reward, self._gym_done, info = self.env.step(action=choice)
        return RLStepResult(
            observation=self.get_observations(gym_obs=observation),
            reward=reward,
            done=self.is_done(),
            info=info,
        )


def default_task_selector(env_name: str, **gym_env_kwargs: Any) -> type[GymTask]:
    """Returns the task class for an environment: `GymContinuousTask` or `GymDiscreteTask`, by its actions.

    Args:
        env_name: id of the environment.
        gym_env_kwargs: for `gymnasium.make`, where they change the action space.

    Raises:
        NotImplementedError: its actions are neither vectors nor one of n choices.
    """
    if env_name in MUJOCO_TASKS or env_name in _CONTINUOUS_BOX2D:
        return GymContinuousTask  # no need to make one to know
    action_space = environment_spaces(env_name, **gym_env_kwargs)[1]
    if isinstance(action_space, gym.spaces.Box):
        return GymContinuousTask
    if isinstance(action_space, gym.spaces.Discrete):
        return GymDiscreteTask
    raise NotImplementedError(
        f"there is no task class for {env_name}, whose actions are {action_space}: write a subclass of GymTask "
        "and give it to the sampler with task_selector=lambda env_name: YourTask"
    )


def sensor_selector(env_name: str) -> Sensor:
    """Returns a sensor for the observation of an environment."""
    if env_name in BOX2D_SPACES:
        return GymBox2DSensor(env_name)
    return GymMuJoCoSensor(gym_env_name=env_name, uuid="gym_mujoco_data")
