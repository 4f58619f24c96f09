import numpy as np
import pytest
from minigrid.core.world_object import Lava
from minigrid.envs import CrossingEnv

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import SingleProcessVectorSampledTasks
from allenact.errors import ExperimentConfigError, TaskError
from allenact.testing.contracts import check_task_sampler
from allenact.utils.system import get_logger
from allenact_plugins.minigrid_plugin import seeded_task_sampler
from allenact_plugins.minigrid_plugin.minigrid_environments import AskForHelpSimpleCrossing, FastCrossing
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor
from allenact_plugins.minigrid_plugin.minigrid_tasks import AskForHelpSimpleCrossingTask, MiniGridTaskSampler

SENSORS = [EgocentricMiniGridSensor(agent_view_size=5)]
LEFT = 0


def make_sampler(**kwargs):
    env_info = {"size": 9, "num_crossings": 3}
    return MiniGridTaskSampler(env_class=FastCrossing, env_info=env_info, sensors=SENSORS, **kwargs)


def grids(sampler, count):
    """What the worlds of the next tasks look like."""
    return [sampler.next_task().env.grid.encode().tobytes() for _ in range(count)]


@pytest.fixture
def warnings(monkeypatch):
    """What the logger warned about."""
    messages = []
    monkeypatch.setattr(get_logger(), "warning", lambda message, *args: messages.append(message))
    monkeypatch.setattr(seeded_task_sampler, "_warned_about", set())
    return messages


def test_deterministic_sampling_goes_round_the_list():
    sampler = make_sampler(task_seeds_list=[7, 3, 5], deterministic_sampling=True, max_tasks=7)
    assert sampler.length == 7
    assert sampler.total_unique == 3
    first = sampler.next_task()
    assert sampler.length == 6
    assert sampler.last_sampled_task is first
    assert first.env.saved_seed == 7
    seeds = [sampler.next_task().env.saved_seed for _ in range(6)]
    assert seeds == [3, 5, 7, 3, 5, 7]
    assert sampler.next_task() is None
    sampler.reset()
    assert sampler.length == 7
    assert sampler.next_task().env.saved_seed == 7


def test_number_of_unique_seeds_stands_for_a_list():
    sampler = make_sampler(num_unique_seeds=3, deterministic_sampling=True)
    assert [sampler.next_task().env.saved_seed for _ in range(4)] == [0, 1, 2, 0]
    assert sampler.length == float("inf")
    random = make_sampler(task_seeds_list=[10, 20, 30], seed=0)
    assert {random.next_task().env.saved_seed for _ in range(30)} == {10, 20, 30}


def test_the_seed_decides_about_all_tasks():
    assert grids(make_sampler(seed=4), 5) == grids(make_sampler(seed=4), 5)
    assert grids(make_sampler(seed=4), 5) != grids(make_sampler(seed=5), 5)
    sampler = make_sampler(seed=5)
    sampler.next_task()
    sampler.set_seed(4)
    assert grids(sampler, 5) == grids(make_sampler(seed=4), 5)


def test_without_a_seed_samplers_differ_and_leave_global_randomness_alone():
    state = np.random.get_state()[1].copy()
    assert grids(make_sampler(), 5) != grids(make_sampler(), 5)
    assert np.array_equal(np.random.get_state()[1], state)


def test_failed_tasks_are_repeated():
    sampler = make_sampler(repeat_failed_task_for_min_steps=5, seed=0)
    task = sampler.next_task()
    seed, graph = task.env.saved_seed, task.graph
    grid = task.env.grid
    for expected_steps in (2, 4):
        for _ in range(2):
            task.step(LEFT)
        task = sampler.next_task()
        assert task.env.grid is grid, expected_steps
        assert task.env.step_count == 0
        assert task.graph is graph
    for _ in range(2):
        task.step(LEFT)
    assert sampler.next_task().env.saved_seed != seed  # 6 steps were spent


def test_solved_tasks_are_not_repeated():
    sampler = make_sampler(repeat_failed_task_for_min_steps=10**6, seed=0)
    task = sampler.next_task()
    while not task.is_done():
        task.step(task.query_expert()[0])
    assert task.metrics()["success"] == 1
    grid = task.env.grid
    assert sampler.next_task().env.grid is not grid


def test_graphs_are_kept_by_seed():
    sampler = make_sampler(num_unique_seeds=2, deterministic_sampling=True, cache_graphs=True)
    made = [sampler.next_task().graph for _ in range(2)]
    again = [sampler.next_task().graph for _ in range(2)]
    assert [a is b for a, b in zip(made, again, strict=True)] == [True, True]
    assert made[0] is not made[1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"deterministic_sampling": True}, "deterministic_sampling needs unique seeds"),
        ({"num_unique_seeds": 0}, "no seed to choose from"),
        ({"num_unique_seeds": 3, "task_seeds_list": [1]}, "number of seeds does not fit"),
        ({"num_unique_seeds": 3, "repeat_failed_task_for_min_steps": 5}, "cannot be repeated"),
        ({"cache_graphs": True}, "cache_graphs"),
        ({"cache_graphs": True, "num_unique_seeds": 1001}, "num_unique_seeds=1001"),
    ],
)
def test_contradictions_are_refused(kwargs, message):
    with pytest.raises(ExperimentConfigError, match=message):
        make_sampler(**kwargs)


def test_unknown_arguments_are_reported_once_and_named(warnings):
    for _ in range(2):
        make_sampler(max_task=3, mp_ctx=None)
    assert warnings == ['MiniGridTaskSampler ignores the argument "max_task". did you mean "max_tasks"?']


def test_random_evaluation_is_warned_about(warnings):
    make_sampler(max_tasks=3)
    assert len(warnings) == 1
    assert "max_tasks=3 without deterministic_sampling" in warnings[0]


def test_environments_may_come_from_any_callable_and_need_no_arguments():
    sampler = MiniGridTaskSampler(env_class=lambda: FastCrossing(size=7), sensors=SENSORS, seed=1)
    assert sampler.next_task().env.width == 7
    assert sampler.all_observation_spaces_equal
    sampler.close()


def test_experts_make_every_episode_a_success():
    sampler = make_sampler(num_unique_seeds=5, deterministic_sampling=True, max_tasks=5)
    while (task := sampler.next_task()) is not None:
        while not task.is_done():
            observation = task.step(task.query_expert()[0]).observation
            assert task.observation_space.contains({key: value.astype(np.int64) for key, value in observation.items()})
        assert task.metrics()["success"] == 1


def test_task_classes_get_extra_arguments():
    sampler = make_sampler(extra_task_kwargs={"corrupt_expert_within_actions_of_goal": 2}, seed=0)
    assert sampler.next_task().corrupt_expert_within_actions_of_goal == 2


# Saving


class Blind(FastCrossing):
    """Its rewards are those of another environment."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + 0.5, *rest


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_unique_seeds": 3, "deterministic_sampling": True},
        {"num_unique_seeds": 3, "cache_graphs": True},
        {"repeat_failed_task_for_min_steps": 7},
    ],
)
def test_a_saved_episode_goes_on(kwargs):
    check_task_sampler(lambda: make_sampler(seed=3, **kwargs))
    assert saved_after(make_sampler(seed=3, **kwargs), 3) is not None


def saved_after(sampler, steps):
    task = sampler.next_task()
    for _ in range(steps):
        task.step(LEFT)
    return sampler.state_dict(task)


def test_a_world_with_a_memory_goes_on():
    def make(**kwargs):
        return MiniGridTaskSampler(
            env_class=AskForHelpSimpleCrossing,
            env_info={"size": 9, "exploration_reward": 0.1, "toggle_is_permenant": True},
            sensors=SENSORS,
            task_class=AskForHelpSimpleCrossingTask,
            seed=1,
            **kwargs,
        )

    check_task_sampler(make)
    check_task_sampler(lambda: make(repeat_failed_task_for_min_steps=6))


def test_what_cannot_be_repeated_is_not_saved():
    assert saved_after(make_sampler(extra_task_kwargs={"corrupt_expert_within_actions_of_goal": 2}), 1) is None


def test_another_environment_is_noticed():
    state = saved_after(make_sampler(seed=3), 2)
    other = MiniGridTaskSampler(env_class=Blind, env_info={"size": 9, "num_crossings": 3}, sensors=SENSORS, seed=3)
    with pytest.raises(TaskError, match="cannot be played again"):
        other.load_state_dict(state)
    others = SingleProcessVectorSampledTasks.from_samplers([other, make_sampler(seed=3)])
    assert others.load_state_dict([state, state]) == [0], "it is restarted"


def test_environments_may_be_seeded_by_a_call_of_their_own():
    class Old(CrossingEnv):
        """As environments were written for gym: `reset()` without arguments returns the observation."""

        next_seed = None

        def seed(self, seed):
            self.next_seed = seed

        def reset(self, partial_reset=False):
            return super().reset(seed=self.next_seed)[0]

    seeds = {"task_seeds_list": [7, 3], "deterministic_sampling": True}
    old = MiniGridTaskSampler(
        env_class=Old, env_info={"size": 9, "num_crossings": 3, "obstacle_type": Lava}, sensors=SENSORS, **seeds
    )
    assert grids(old, 4) == grids(make_sampler(**seeds), 4)
