"""Sensors and suites."""

import gymnasium as gym
import numpy as np
import pytest

from allenact.base_abstractions import sensor as sensor_module
from allenact.base_abstractions.sensor import Sensor, SensorSuite, SpaceDict, get_logger, prepare_locals_for_super
from allenact.errors import ExperimentConfigError


class Constant(Sensor):
    def __init__(self, value, uuid, size=2, **kwargs):
        observation_space = gym.spaces.Box(-1.0, 1.0, (size,))
        self.value = value
        super().__init__(**prepare_locals_for_super(locals()))

    def get_observation(self, env, task, *args, offset=0, **kwargs):
        return (env, task, self.value + offset)


def test_a_suite_reads_its_sensors_in_order_and_passes_keywords():
    suite = SensorSuite([Constant(1, "z"), Constant(2, "a", size=3)])
    assert suite.get_observations(env="env", task="task", offset=10) == {
        "z": ("env", "task", 11),
        "a": ("env", "task", 12),
    }
    assert list(suite.sensors) == list(suite.observation_spaces.spaces) == ["z", "a"]
    assert isinstance(suite.observation_spaces, SpaceDict)
    assert suite.observation_spaces["a"].shape == (3,)
    assert suite.get("z").value == 1


def test_names_must_differ():
    with pytest.raises(ExperimentConfigError, match=r"(?s)same uuid.*\['a', 'a'\]"):
        SensorSuite([Constant(1, "a"), Constant(2, "a")])


def test_spaces_of_the_old_package_are_converted():
    class Discrete:
        __module__ = "gym.spaces.discrete"
        n = np.int64(4)

    suite = SensorSuite([Sensor("old", Discrete())])
    assert suite.observation_spaces["old"] == gym.spaces.Discrete(4)


def test_a_sensor_without_observation_says_so():
    with pytest.raises(NotImplementedError, match="Sensor does not implement get_observation"):
        Sensor("a", gym.spaces.Discrete(2)).get_observation(None, None)


def test_names_other_code_imports_from_here():
    from allenact.base_abstractions import expert_sensors

    for name in (
        "AbstractExpertSensor",
        "AbstractExpertActionSensor",
        "AbstractExpertPolicySensor",
        "ExpertActionSensor",
        "ExpertPolicySensor",
    ):
        assert getattr(sensor_module, name) is getattr(expert_sensors, name)
    assert get_logger().name == "allenact"
    with pytest.raises(AttributeError, match="no attribute 'ExpertChef'"):
        _ = sensor_module.ExpertChef
