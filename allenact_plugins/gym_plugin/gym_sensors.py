"""Sensors that hand an environment's observation to the agent. Their spaces are those of the environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task import Task
from allenact.errors import SpaceMismatchError
from allenact_plugins.gym_plugin.gym_environment import GymEnvironment, make_environment
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS

_LUNAR_LANDER = ((8,), -np.inf, np.inf, np.float32)
_BIPEDAL_WALKER = ((24,), -np.inf, np.inf, np.float32)
BOX2D_SPACES: dict[str, tuple[tuple[int, ...], float, float, type[Any]]] = {
    "LunarLander-v2": _LUNAR_LANDER,
    "LunarLanderContinuous-v2": _LUNAR_LANDER,
    "BipedalWalker-v2": _BIPEDAL_WALKER,
    "BipedalWalkerHardcore-v2": _BIPEDAL_WALKER,
    "CarRacing-v0": ((96, 96, 3), 0, 255, np.uint8),
}


class GymSensor(Sensor[GymEnvironment, Task[GymEnvironment]]):
    """The observation of any environment: arrays as float32, which models compute with, but bytes (images) as they are.

    Args:
        gym_env_name: id of the environment, of which the observation space is taken.
        uuid: name of the observation.
        gym_env_kwargs: for `gymnasium.make`, where they change the observation space.
        kwargs: ignored.

    Raises:
        UnknownEnvironmentError: no environment has that id.
        MissingExtraError: the environment needs a package that is not installed.
    """

    def __init__(
        self,
        gym_env_name: str,
        uuid: str,
        gym_env_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.gym_env_name = gym_env_name
        self.gym_env_kwargs = gym_env_kwargs or {}
        super().__init__(uuid=uuid, observation_space=self._get_observation_space())

    def get_observation(
        self,
        env: GymEnvironment,
        task: Task[GymEnvironment] | None,
        *args: Any,
        gym_obs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the observation.

        Args:
            env: the environment.
            task: unused.
            args: unused.
            gym_obs: what the step returned; None: ask the environment for its current observation.
            kwargs: unused.
        """
        return self._convert(env.current_observation if gym_obs is None else gym_obs)

    @staticmethod
    def _convert(observation: Any) -> Any:
        return _unless_bytes(observation)

    def check_matches(self, env: GymEnvironment) -> None:
        """Raises `SpaceMismatchError` if observations of `env` do not have the shape this sensor promises."""
        if _shapes(env.observation_space) != _shapes(self.observation_space):
            raise SpaceMismatchError(
                f'sensor "{self.uuid}" is made for another environment.',
                given=f'{type(self).__name__}("{self.gym_env_name}"): {_shapes(self.observation_space)}; '
                f"{env.spec.id}: {_shapes(env.observation_space)}",
                do="give sensor and task sampler the same id (and the same gym_env_kwargs).",
            )

    def _get_observation_space(self) -> gymnasium.Space[Any]:
        """Returns the space of the observations; sensors for other environments override it."""
        return _float32_space(environment_spaces(self.gym_env_name, **self.gym_env_kwargs)[0], also_bytes=False)


class GymBox2DSensor(GymSensor):
    """The observation of a Box2D task, as `GymSensor` gives it.

    | environment                  | observation                                                 | range     |
    | ---------------------------- | ----------------------------------------------------------- | --------- |
    | LunarLander(Continuous)-v2   | 8: x, y, velocities, angle and its velocity, 2 leg contacts | -inf, inf |
    | BipedalWalker(Hardcore)-v2   | 24: 4 of the hull, 5 of each leg, 10 lidar distances        | -inf, inf |
    | CarRacing-v0                 | RGB image, 96 x 96 x 3                                      | 0, 255    |

    Other ids: as the environment declares. The arguments are those of `GymSensor`.
    """

    def __init__(
        self, gym_env_name: str = "LunarLanderContinuous-v2", uuid: str = "gym_box2d_sensor", **kwargs: Any
    ) -> None:
        super().__init__(gym_env_name, uuid, **kwargs)

    def _get_observation_space(self) -> gymnasium.Space[Any]:
        if self.gym_env_name in BOX2D_SPACES and not self.gym_env_kwargs:
            shape, low, high, dtype = BOX2D_SPACES[self.gym_env_name]
            return gymnasium.spaces.Box(low, high, shape, dtype)
        return super()._get_observation_space()


class GymMuJoCoSensor(GymSensor):
    """The observation of a MuJoCo task (or of any other environment) as float32, whatever it was.

    Entries, ranges and units of each `-v2` task are in its data sheet in `mujoco_tasks`, e.g. `legged.Ant`.
    The arguments are those of `GymSensor`.
    """

    @staticmethod
    def _convert(observation: Any) -> Any:
        return as_float32(observation)

    def _get_observation_space(self) -> gymnasium.Space[Any]:
        if self.gym_env_name in MUJOCO_TASKS and "xml_file" not in self.gym_env_kwargs:
            shape = (MUJOCO_TASKS[self.gym_env_name].observation_size,)  # known without loading MuJoCo
            return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
        return _float32_space(environment_spaces(self.gym_env_name, **self.gym_env_kwargs)[0])


def as_float32(observation: Any) -> Any:
    """Converts an array, or each array of a dict, to float32."""
    if isinstance(observation, dict):
        return {name: as_float32(value) for name, value in observation.items()}
    return np.asarray(observation, dtype=np.float32)


def _unless_bytes(observation: Any) -> Any:
    """Converts each array to float32 if it is not one of bytes; what is no array stays as it is."""
    if isinstance(observation, dict):
        return {name: _unless_bytes(value) for name, value in observation.items()}
    if isinstance(observation, np.ndarray) and observation.dtype != np.uint8:
        return observation.astype(np.float32, copy=False)
    return observation


def environment_spaces(gym_env_name: str, **gym_env_kwargs: Any) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """Returns observation and action space of an environment, by making one and asking it."""
    env = make_environment(gym_env_name, **gym_env_kwargs)
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()


def _float32_space(space: gymnasium.Space[Any], also_bytes: bool = True) -> gymnasium.Space[Any]:
    if isinstance(space, gymnasium.spaces.Dict):
        return gymnasium.spaces.Dict({name: _float32_space(child, also_bytes) for name, child in space.items()})
    if isinstance(space, gymnasium.spaces.Box) and (also_bytes or space.dtype != np.uint8):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return gymnasium.spaces.Box(low, high, dtype=np.float32)
    return space


def _shapes(space: gymnasium.Space[Any]) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _shapes(child) for name, child in space.items()}
    return space.shape
