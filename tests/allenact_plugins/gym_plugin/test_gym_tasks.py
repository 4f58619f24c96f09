"""Tasks and the sampler: which seed comes next, what a finished episode reports, what is saved."""

import math
import random

import gymnasium
import numpy as np
import pytest

from allenact.errors import ExperimentConfigError, TaskError
from allenact_plugins.gym_plugin import gym_tasks
from allenact_plugins.gym_plugin.gym_sensors import GymBox2DSensor, GymMuJoCoSensor, GymSensor
from allenact_plugins.gym_plugin.gym_tasks import (
    GymContinuousTask,
    GymDiscreteTask,
    GymTask,
    GymTaskSampler,
    default_task_selector,
    sensor_selector,
)


class SeedEnv(gymnasium.Env):
    """Shows the seed of its episode; pays what the action says; remembers how it was reset."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self):
        self.seeds = []
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        return np.array([float(seed or 0)]), {}

    def step(self, action):
        return np.array([0.0]), float(action[0]), False, False, {}

    def close(self):
        self.closed = True


class ChoiceEnv(SeedEnv):
    """Pays the number of the choice; choices are counted from `first`."""

    def __init__(self, first=5):
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3, start=first)

    def step(self, action):
        assert self.action_space.contains(action)
        return np.array([0.0]), float(action), False, False, {}


class SwitchesEnv(SeedEnv):
    """Has actions that no task class is made for."""

    action_space = gymnasium.spaces.MultiBinary(2)


class RepeatingSeedEnv(SeedEnv):
    """Has its own way of starting the same episode again, and its own idea of success."""

    was_successful = True

    def same_seed_reset(self):
        self.seeds.append("same")

    def metrics(self):
        return {"height": np.float32(2.5)}


@pytest.fixture(autouse=True)
def seed_envs():
    environments = {"Choice": ChoiceEnv, "RepeatingSeed": RepeatingSeedEnv, "Seed": SeedEnv, "Switches": SwitchesEnv}
    for name, env in environments.items():
        gymnasium.register(f"{name}-v0", entry_point=env, max_episode_steps=3)
    yield
    for name in environments:
        del gymnasium.registry[f"{name}-v0"]


def sampler(env_id="Seed-v0", **kwargs):
    kwargs.setdefault("seed", 0)
    return GymTaskSampler(
        env_id, sensors=[GymMuJoCoSensor(env_id, "x")], task_selector=lambda _: GymContinuousTask, **kwargs
    )


def play(task, reward=1.0):
    while not task.is_done():
        task.step([reward])
    return task


def seeds_of(sampler, count):
    return [int(sampler.next_task().get_observations()["x"][0]) for _ in range(count)]


# Seeds


def test_deterministic_sampling_takes_seeds_in_order():
    tasks = sampler(task_seeds_list=[5, 3, 8], deterministic_sampling=True, max_tasks=5)
    assert (tasks.length, tasks.total_unique) == (5, 3)
    assert seeds_of(tasks, 5) == [5, 3, 8, 5, 3]
    assert tasks.length == 0
    assert tasks.next_task() is None
    tasks.reset()
    assert tasks.length == 5
    assert seeds_of(tasks, 2) == [5, 3]


def test_number_of_unique_seeds():
    tasks = sampler(num_unique_seeds=3)
    assert set(seeds_of(tasks, 40)) == {0, 1, 2}
    assert seeds_of(sampler(num_unique_seeds=3, deterministic_sampling=True), 4) == [0, 1, 2, 0]
    assert sampler(num_unique_seeds=9, task_seeds_list=[4]).num_unique_seeds == 1  # the list decides
    assert (tasks.length, tasks.total_unique) == (math.inf, 3)


def test_new_seeds_without_end():
    tasks = sampler()
    seeds = seeds_of(tasks, 30)
    assert len(set(seeds)) == 30
    assert (tasks.length, tasks.total_unique) == (math.inf, math.inf)


def test_the_same_seed_gives_the_same_tasks_and_other_seeds_others():
    def tasks(seed):
        own = sampler(seed=seed)
        return [(own.next_task().task_info["id"], int(own.env.initial_observation[0])) for _ in range(5)]

    assert tasks(1) == tasks(1)
    assert tasks(1) != tasks(2)
    own = sampler(seed=1)
    seeds_of(own, 3)
    own.set_seed(1)
    assert [own.next_task().task_info["id"] for _ in range(5)] == [task_id for task_id, _ in tasks(1)]
    assert sampler(seed=None).next_task().task_info != sampler(seed=None).next_task().task_info


def test_the_generator_has_its_name_of_allenact():
    one, other = sampler(seed=3), sampler(seed=3)
    assert one.np_seeded_random_gen.randint(1000) == other.np_seeded_random_gen.randint(1000)
    one.np_seeded_random_gen.randint(1000)
    assert one.next_task().task_info != other.next_task().task_info, "it is the generator of the tasks, not a copy"


def test_global_generators_are_left_alone():
    random.seed(4)
    np.random.seed(4)
    before = random.getstate(), np.random.get_state()[1].tolist()
    own = sampler(seed=3)
    own.set_seed(5)
    play(own.next_task())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("env_id", ["Seed-v0", "RepeatingSeed-v0"])
def test_failed_tasks_are_repeated(env_id):
    tasks = sampler(env_id, repeat_failed_task_for_min_steps=7)
    play(tasks.next_task(), reward=0.0)  # 3 steps spent
    play(tasks.next_task(), reward=0.0)  # 6
    play(tasks.next_task(), reward=0.0)  # 9: enough
    play(tasks.next_task(), reward=1.0)  # earned something
    tasks.next_task()
    seeds = tasks.env.seeds
    again = "same" if env_id == "RepeatingSeed-v0" else seeds[0]
    assert seeds[1:3] == [again, again]
    assert len({seeds[0], seeds[3], seeds[4]}) == 3
    assert tasks.env.saved_seed == seeds[4]


def test_forcing_a_new_scene_does_not_repeat():
    tasks = sampler(repeat_failed_task_for_min_steps=100)
    play(tasks.next_task(), reward=0.0)
    tasks.next_task(force_advance_scene=True)
    assert len(set(tasks.env.seeds)) == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"deterministic_sampling": True}, "needs seeds to take in order"),
        ({"num_unique_seeds": 0}, "no seed to begin a task with"),
        ({"task_seeds_list": []}, "no seed to begin a task with"),
        ({"num_unique_seeds": 3, "repeat_failed_task_for_min_steps": 5}, "cannot be repeated"),
    ],
)
def test_contradicting_arguments(kwargs, message):
    with pytest.raises(ExperimentConfigError, match=message):
        sampler(**kwargs)


def test_random_evaluation_tasks_are_warned_of(caplog):
    sampler(max_tasks=4)
    assert "hands out 4 tasks with random seeds" in caplog.text


def test_unknown_arguments_are_named_once(caplog):
    gym_tasks._warned_of.clear()
    for _ in range(2):
        sampler(gym_env_types=["Ant-v2"], mp_ctx=None)
    assert caplog.text.count("unknown argument") == 1
    assert '"gym_env_types". did you mean "gym_env_type"' in caplog.text


# Tasks


def test_an_episode():
    tasks = sampler()
    task = tasks.next_task()
    assert task.max_steps == 3
    assert task.task_name == "Seed-v0"
    assert task.action_space.shape == (1,)
    assert task.class_action_names() == task.action_names() == ()
    assert tasks.last_sampled_task is task
    np.testing.assert_array_equal(task.get_observations()["x"], task.get_observations()["x"])  # not used up
    results = [task.step([0.5]) for _ in range(3)]
    assert [result.done for result in results] == [False, False, True]
    assert results[0].observation["x"].dtype == np.float32
    assert task.was_truncated()
    assert task.metrics() == {"ep_length": 3, "reward": 1.5, "task_info": task.task_info, "success": 1}
    assert task.task_info["id"].startswith("random")
    assert isinstance(task.task_info["seed"], int)
    with pytest.raises(TaskError, match="after its episode had ended"):
        task.step([0.5])


def test_success_without_the_environment_s_word():
    assert play(sampler().next_task(), reward=-1.0).metrics()["success"] == 0
    assert play(sampler().next_task(), reward=0.0).metrics()["success"] == 0


def test_metrics_of_the_environment():
    metrics = play(sampler("RepeatingSeed-v0").next_task(), reward=-1.0).metrics()
    assert metrics["success"] == 1
    assert metrics["height"] == 2.5
    assert type(metrics["height"]) is float


def test_falling_is_not_truncation():
    task = GymTaskSampler("InvertedPendulum-v2", seed=0).next_task()
    while not task.is_done():
        task.step([3.0])
    assert task.reached_terminal_state()
    assert not task.was_truncated()
    assert task.num_steps_taken() < task.max_steps


def test_an_environment_without_a_limit():
    gymnasium.registry["Seed-v0"].max_episode_steps = None
    task = sampler().next_task()
    for _ in range(10):
        task.step([1.0])
    assert not task.is_done()


class FourValuesTask(GymTask):
    """A task class written for gym: four values come back from the environment."""

    def _step(self, action):
        from allenact.base_abstractions.misc import RLStepResult

        gym_obs, reward, self._gym_done, info = self.env.step(action=[action])
        return RLStepResult(self.get_observations(gym_obs=gym_obs), reward, self.is_done(), info)


def test_task_classes_of_old():
    tasks = GymTaskSampler(
        "Seed-v0", sensors=[GymMuJoCoSensor("Seed-v0", "x")], task_selector=lambda _: FourValuesTask, seed=0
    )
    task = tasks.next_task()
    while not task.is_done():
        task.step(2.0)
    assert task.metrics()["reward"] == 6.0
    assert task.was_truncated()
    assert tasks.state_dict(task) is None


def test_closing():
    tasks = sampler()
    tasks.close()  # nothing to close yet
    env = tasks.next_task().env
    tasks.close()
    assert env.closed
    task = sampler().next_task()
    task.close()
    assert task.env.closed


# Selectors


@pytest.mark.parametrize(
    "env_id", ["Ant-v2", "Pusher-v2", "LunarLanderContinuous-v2", "BipedalWalker-v2", "CarRacing-v0", "Pendulum-v1"]
)
def test_continuous_environments(env_id):
    assert default_task_selector(env_id) is GymContinuousTask


def test_environments_with_choices():
    assert default_task_selector("CartPole-v1") is GymDiscreteTask
    assert default_task_selector("MountainCar-v0") is GymDiscreteTask
    tasks = GymTaskSampler("CartPole-v1", sensors=[GymSensor("CartPole-v1", "x")], seed=0)
    task = tasks.next_task()
    assert task.action_names() == ()
    while not task.is_done():
        result = task.step(1)
    assert task.observation_space["x"].contains(result.observation["x"])
    assert task.metrics()["reward"] == task.num_steps_taken() < 20
    assert tasks.state_dict(task) is None


def test_choices_are_counted_from_zero():
    task = GymTaskSampler("Choice-v0", sensors=[GymMuJoCoSensor("Choice-v0", "x")], seed=0).next_task()
    assert task.action_space == gymnasium.spaces.Discrete(3)
    assert [task.step(choice).reward for choice in range(3)] == [5.0, 6.0, 7.0]


def test_keywords_of_the_environment_decide_about_the_task_class():
    pytest.importorskip("Box2D")
    classes = [
        GymTaskSampler("LunarLander-v3", sensors=[], gym_env_kwargs={"continuous": continuous}).task_class
        for continuous in (False, True)
    ]
    assert classes == [GymDiscreteTask, GymContinuousTask]


def test_other_actions_need_a_task_class():
    with pytest.raises(NotImplementedError, match=r"no task class for Switches-v0.*MultiBinary.*task_selector"):
        default_task_selector("Switches-v0")


def test_sensors_for_environments():
    assert type(sensor_selector("LunarLander-v2")) is GymBox2DSensor
    sensor = sensor_selector("Ant-v2")
    assert (type(sensor), sensor.uuid) == (GymMuJoCoSensor, "gym_mujoco_data")
    task = GymTaskSampler("Ant-v2", seed=0).next_task()
    assert task.get_observations()["gym_mujoco_data"].shape == (111,)


def test_box2d_episode():
    pytest.importorskip("Box2D")
    tasks = GymTaskSampler(seed=0)  # LunarLanderContinuous-v2
    task = tasks.next_task()
    first = task.get_observations()["gym_box2d_sensor"]
    for _ in range(5):
        task.step([0.0, 0.0])
    assert task.render("rgb").ndim == 3
    assert tasks.state_dict(task) is None
    tasks.set_seed(0)
    np.testing.assert_array_equal(tasks.next_task().get_observations()["gym_box2d_sensor"], first)


# States


def test_a_saved_sampler_goes_on_as_if_nothing_had_happened():
    kwargs = {"task_seeds_list": [4, 5, 6], "max_tasks": 9, "gym_env_kwargs": {"max_episode_steps": 10}}
    whole = GymTaskSampler("Hopper-v2", seed=1, **kwargs)
    whole.next_task()
    task = whole.next_task()
    for _ in range(4):
        task.step([0.1, 0.2, 0.3])
    state = whole.state_dict(task)

    resumed = GymTaskSampler("Hopper-v2", seed=99, **kwargs)
    again = resumed.load_state_dict(state)
    assert again.task_info == task.task_info
    np.testing.assert_equal(again.get_observations(), task.get_observations())
    assert resumed.length == whole.length == 7
    for _ in range(3):
        while not task.is_done():
            np.testing.assert_equal(again.step([0.3, -0.2, 0.1]), task.step([0.3, -0.2, 0.1]))
        assert again.is_done()
        assert again.metrics() == task.metrics()
        task, again = whole.next_task(), resumed.next_task()


def test_what_cannot_be_saved():
    tasks = sampler()
    assert tasks.state_dict(None) is None
    assert tasks.state_dict(tasks.next_task()) is None  # not one of our environments


def test_a_subclass_may_bring_its_own_environment():
    one, other = sampler(seed=3), sampler(seed=3)
    one.env = other.env
    assert one.next_task().env is other.env
