"""Sensors: what an agent sees of a task. Suites: the sensors of one experiment, in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

import gymnasium as gym
from gymnasium.spaces import Dict as SpaceDict

from allenact.base_abstractions.misc import EnvType, SubTaskType
from allenact.errors import ExperimentConfigError
from allenact.utils.misc_utils import prepare_locals_for_super
from allenact.utils.spaces_utils import as_gymnasium_space
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.base_abstractions.expert_sensors import (
        AbstractExpertActionSensor,
        AbstractExpertPolicySensor,
        AbstractExpertSensor,
        ExpertActionSensor,
        ExpertPolicySensor,
    )

__all__ = [
    "AbstractExpertActionSensor",
    "AbstractExpertPolicySensor",
    "AbstractExpertSensor",
    "ExpertActionSensor",
    "ExpertPolicySensor",
    "Sensor",
    "SensorSuite",
    "SpaceDict",
    "get_logger",
    "prepare_locals_for_super",
]


class Sensor(Generic[EnvType, SubTaskType]):
    """One named observation.

    Args:
        uuid: its name, unique within a suite.
        observation_space: what it returns.
        kwargs: ignored, because of `super().__init__(**prepare_locals_for_super(locals()))`.
    """

    uuid: str
    observation_space: gym.Space

    def __init__(self, uuid: str, observation_space: gym.Space, **kwargs: Any) -> None:
        self.uuid = uuid
        self.observation_space = observation_space

    def get_observation(self, env: EnvType, task: SubTaskType | None, *args: Any, **kwargs: Any) -> Any:
        """Returns the current observation.

        Args:
            env: the task's environment.
            task: the current task.
            args: unused.
            kwargs: what was given to `Task.get_observations`.

        Returns:
            A NumPy array, a torch tensor, a number, or a nested dict of these.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement get_observation")


class SensorSuite(Generic[EnvType]):
    """Several sensors read together.

    Args:
        sensors: sensors with different uuids.

    Attributes:
        sensors: uuid -> sensor, in the order given.
        observation_spaces: dict space of their observation spaces, in the same order.

    Raises:
        ExperimentConfigError: two sensors have the same uuid.
    """

    sensors: OrderedDict[str, Sensor[EnvType, Any]]
    observation_spaces: SpaceDict

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self.sensors = OrderedDict((sensor.uuid, sensor) for sensor in sensors)
        if len(self.sensors) < len(sensors):
            raise ExperimentConfigError(
                "two sensors of one suite have the same uuid.",
                f"uuids {[sensor.uuid for sensor in sensors]}",
                "give each sensor its own uuid.",
            )
        # An ordered dict, because a dict space sorts the keys of a plain dict.
        self.observation_spaces = SpaceDict(
            OrderedDict((uuid, as_gymnasium_space(s.observation_space)) for uuid, s in self.sensors.items())
        )

    def get(self, uuid: str) -> Sensor[EnvType, Any]:
        """Returns the sensor with that uuid."""
        return self.sensors[uuid]

    def get_observations(self, env: EnvType, task: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns uuid -> observation; keywords are passed to every sensor."""
        return {uuid: s.get_observation(env=env, task=task, **kwargs) for uuid, s in self.sensors.items()}


def __getattr__(name: str) -> Any:
    """Offers the expert sensors here too; imported on use because they are sensors themselves."""
    if "Expert" in name and name in __all__:
        from allenact.base_abstractions import expert_sensors

        return getattr(expert_sensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
