"""Spaces and values of the gym plugin's sensors."""

import gymnasium
import numpy as np
import pytest

from allenact.base_abstractions.sensor import SensorSuite
from allenact.errors import SpaceMismatchError, UnknownEnvironmentError
from allenact_plugins.gym_plugin.gym_environment import GymEnvironment
from allenact_plugins.gym_plugin.gym_sensors import GymBox2DSensor, GymMuJoCoSensor, GymSensor
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS

SIZES = {
    "InvertedPendulum-v2": 4,
    "Ant-v2": 111,
    "Reacher-v2": 11,
    "Hopper-v2": 11,
    "InvertedDoublePendulum-v2": 11,
    "HumanoidStandup-v2": 376,
    "Humanoid-v2": 376,
    "HalfCheetah-v2": 17,
    "Walker2d-v2": 17,
    "Swimmer-v2": 8,
    "Pusher-v2": 23,
}


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_mujoco_spaces_agree_with_what_environments_return(env_id):
    sensor = GymMuJoCoSensor(env_id, uuid="state")
    assert sensor.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (SIZES[env_id],), np.float32)
    env = GymEnvironment(env_id)
    env.reset(seed=0)
    observation = sensor.get_observation(env, None)
    assert observation.dtype == np.float32
    assert sensor.observation_space.contains(observation)


@pytest.mark.parametrize(("env_id", "size"), [("Ant-v5", 105), ("Pendulum-v1", 3)])
def test_any_registered_environment(env_id, size):
    sensor = GymMuJoCoSensor(env_id, uuid="state")
    assert sensor.observation_space.shape == (size,)
    assert sensor.observation_space.dtype == np.float32
    assert GymMuJoCoSensor(
        "Ant-v5", uuid="x", gym_env_kwargs={"include_cfrc_ext_in_observation": False}
    ).observation_space.shape == (27,)


@pytest.mark.parametrize(("sensor_class", "picture"), [(GymSensor, np.uint8), (GymMuJoCoSensor, np.float32)])
def test_dict_observations(sensor_class, picture):
    class Goals(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            goal=gymnasium.spaces.Box(-1, 1, (2,), np.float64),
            picture=gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
            state=gymnasium.spaces.Box(0, 9, (3,), np.int64),
        )
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return {"goal": np.zeros(2), "picture": np.zeros((4, 4, 3), np.uint8), "state": np.ones(3, np.int64)}, {}

    gymnasium.register("Goals-v0", entry_point=Goals)
    try:
        sensor = sensor_class("Goals-v0", uuid="x")
        observation = sensor.get_observation(GymEnvironment("Goals-v0"), None)
    finally:
        del gymnasium.registry["Goals-v0"]
    assert {name: space.dtype for name, space in sensor.observation_space.items()} == {
        "goal": np.float32,
        "picture": picture,
        "state": np.float32,
    }
    assert sensor.observation_space.contains(observation)


@pytest.mark.parametrize(
    ("env_id", "space"),
    [
        ("LunarLander-v2", gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)),
        ("LunarLanderContinuous-v2", gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)),
        ("BipedalWalker-v2", gymnasium.spaces.Box(-np.inf, np.inf, (24,), np.float32)),
        ("BipedalWalkerHardcore-v2", gymnasium.spaces.Box(-np.inf, np.inf, (24,), np.float32)),
        ("CarRacing-v0", gymnasium.spaces.Box(0, 255, (96, 96, 3), np.uint8)),
    ],
)
def test_box2d_spaces(env_id, space):
    sensor = GymBox2DSensor(env_id)
    assert sensor.uuid == "gym_box2d_sensor"
    assert sensor.observation_space == space
    pytest.importorskip("Box2D")
    env = GymEnvironment(env_id)
    observation = sensor.get_observation(env, None)
    assert observation is env.initial_observation  # as it is
    assert space.contains(observation)
    sensor.check_matches(env)


def test_box2d_defaults_and_current_names():
    assert GymBox2DSensor().gym_env_name == "LunarLanderContinuous-v2"
    pytest.importorskip("Box2D")
    assert GymBox2DSensor("LunarLander-v3", uuid="x").observation_space.shape == (8,)


def test_a_given_observation_wins():
    env = GymEnvironment("Hopper-v2")
    env.reset(seed=0)
    given = np.arange(11.0)
    assert GymMuJoCoSensor("Hopper-v2", uuid="x").get_observation(env, None, gym_obs=given).tolist() == given.tolist()


def test_the_observation_is_the_latest():
    env = GymEnvironment("Hopper-v2")
    sensor = GymMuJoCoSensor("Hopper-v2", uuid="x")
    env.reset(seed=0)
    first = sensor.get_observation(env, None)
    np.testing.assert_array_equal(sensor.get_observation(env, None), first)
    after = env.step(np.ones(3))[0].astype(np.float32)
    np.testing.assert_array_equal(sensor.get_observation(env, None), after)


def test_unknown_id():
    with pytest.raises(UnknownEnvironmentError, match=r'(?s)"Antv-2".*did you mean "Ant-v2"'):
        GymMuJoCoSensor("Antv-2", uuid="gym_mujoco_data")


def test_a_sensor_for_another_environment():
    sensors = SensorSuite([GymMuJoCoSensor("Ant-v2", uuid="state")])
    with pytest.raises(SpaceMismatchError, match=r'(?s)"state" is made for another.*Ant-v2.*\(111,\).*Hopper-v2'):
        GymTaskSampler("Hopper-v2", sensors=sensors, seed=0).next_task()


@pytest.mark.parametrize("sensor_class", [GymBox2DSensor, GymMuJoCoSensor])
def test_a_subclass_may_know_another_environment(sensor_class):
    class Mine(sensor_class):
        def _get_observation_space(self):
            if self.gym_env_name == "Mine-v0":
                return gymnasium.spaces.Box(-1, 1, (3,))
            return super()._get_observation_space()

    assert Mine(gym_env_name="Mine-v0", uuid="mine").observation_space.shape == (3,)
    with pytest.raises(UnknownEnvironmentError):
        Mine(gym_env_name="Nobodys-v0", uuid="mine")
