"""The contract of tasks and samplers, on a task that counts."""

import gymnasium as gym
import numpy as np
import pytest

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import SubTaskType, Task, TaskSampler
from allenact.errors import TaskError


class CountSensor(Sensor[list, "CountTask"]):
    def __init__(self):
        super().__init__(uuid="count", observation_space=gym.spaces.Box(0, 100, (1,)))

    def get_observation(self, env, task, *args, scale=1, **kwargs):
        return np.array([scale * len(env)], dtype=np.float32)


class CountTask(Task[list]):
    """Appends its actions to the environment; ends at the action "end"."""

    reward = 0.5

    @property
    def action_space(self):
        return gym.spaces.Discrete(2)

    def render(self, mode="rgb", *args, **kwargs):
        return np.zeros((1, 1, 3), dtype=np.uint8)

    def _step(self, action):
        self.env.append(action)
        self.steps_seen_inside = self.num_steps_taken()
        return RLStepResult(self.get_observations(), self.reward, action == "done", {})

    def reached_terminal_state(self):
        return "end" in self.env

    def close(self):
        pass


def make(max_steps=3, **kwargs):
    return CountTask(env=[], sensors=[CountSensor()], task_info={"id": "a"}, max_steps=max_steps, **kwargs)


def test_a_task_keeps_what_it_was_given():
    suite = SensorSuite([CountSensor()])
    task = CountTask([], suite, {"id": "b"}, 5, unknown_keyword=1)
    assert task.sensor_suite is suite
    assert task.observation_space == suite.observation_spaces
    assert make().observation_space == suite.observation_spaces
    assert (task.task_info, task.max_steps, task.num_steps_taken(), task.cumulative_reward) == ({"id": "b"}, 5, 0, 0.0)


def test_steps_are_counted_after_the_step():
    task = make(max_steps=2)
    result = task.step("go")
    assert task.steps_seen_inside == 0
    assert (result.done, task.num_steps_taken()) == (False, 1)
    assert result.observation["count"].tolist() == [1.0]
    result = task.step("go")
    assert task.steps_seen_inside == 1
    assert result.done is True  # the limit, which _step could not know
    assert task.is_done()


def test_the_two_ends_of_an_episode_are_told_apart():
    cut = make(max_steps=1)
    cut.step("go")
    assert cut.reached_max_steps()
    assert cut.was_truncated()
    ended = make(max_steps=2)
    ended.step("end")
    assert ended.is_done()
    assert not ended.was_truncated()
    both = make(max_steps=1)
    both.step("end")
    assert both.reached_max_steps()
    assert not both.was_truncated()


def test_done_of_the_step_itself_is_kept():
    assert make().step("done").done is True


def test_a_finished_task_refuses_steps():
    task = make(max_steps=1)
    task.step("go")
    with pytest.raises(TaskError, match=r"(?s)CountTask.*1 environment steps taken, max_steps=1.*next task"):
        task.step("go")


def test_rewards_add_up():
    task = make()
    task.step("go")
    task.step("go")
    assert task.cumulative_reward == 1.0
    assert task.metrics() == {"ep_length": 2, "reward": 1.0, "task_info": {"id": "a"}}


@pytest.mark.parametrize("reward", [(1.0, 3.0), [1, 3]])
def test_rewards_of_several_agents_add_up_one_by_one(reward):
    task = make()
    task.reward = reward
    task.step("go")
    task.step("go")
    assert task._total_reward == [2.0, 6.0]
    assert task.cumulative_reward == 4.0


def test_rewards_of_numpy_become_python_numbers():
    task = make()
    task.reward = np.float32(0.25)
    task.step("go")
    assert type(task.cumulative_reward) is float


def test_keywords_reach_the_sensors():
    task = make()
    task.step("go")
    assert task.get_observations(scale=7)["count"].tolist() == [7.0]


def test_deprecated_hooks():
    task = make()
    assert task.query_expert(anything=1) == (None, False)
    with pytest.raises(NotImplementedError, match="CountTask does not name its actions"):
        task.action_names()

    class Named(CountTask):
        @classmethod
        def class_action_names(cls):
            return ("stay", "go")

    assert Named([], [CountSensor()], {}, 1).action_names() == ("stay", "go")


def test_incomplete_tasks_and_samplers_cannot_be_made():
    class NoStep(CountTask):
        _step = Task._step

    with pytest.raises(TypeError, match="_step"):
        NoStep([], [CountSensor()], {}, 1)
    with pytest.raises(TypeError, match="next_task"):
        TaskSampler()
    assert SubTaskType.__name__ == "SubTaskType"


class OneTaskSampler(TaskSampler):
    length = 1
    last_sampled_task = None
    all_observation_spaces_equal = True

    def next_task(self, force_advance_scene=False):
        return make()

    def close(self):
        pass

    def reset(self):
        pass

    def set_seed(self, seed):
        pass


def test_samplers_need_not_batch_or_save():
    sampler = OneTaskSampler()
    assert OneTaskSampler.make_batch([sampler], num_threads=1) is None
    assert sampler.state_dict(sampler.next_task()) is None
    with pytest.raises(NotImplementedError, match="OneTaskSampler cannot be restored"):
        sampler.load_state_dict({})


def test_a_task_may_count_its_steps_elsewhere_too():
    class Counting(CountTask):
        def _increment_num_steps_taken(self):
            super()._increment_num_steps_taken()
            self.env.append("counted")

    task = Counting(env=[], sensors=[CountSensor()], task_info={}, max_steps=3)
    task.step("go")
    assert (task.env, task.num_steps_taken()) == (["go", "counted"], 1)
