"""The toys are what they say, and keep the contract themselves."""

import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import SingleProcessVectorSampledTasks
from allenact.base_abstractions.sensor import ExpertActionSensor
from allenact.testing.contracts import check_task_sampler
from allenact.testing.tasks import (
    CopyTask,
    EndlessRewardTask,
    PushRightTask,
    RememberTask,
    ToySensor,
    ToyTaskSampler,
    toy_action_space,
)

TOYS = [CopyTask, PushRightTask, RememberTask, EndlessRewardTask]


@pytest.mark.parametrize("task_class", TOYS)
@pytest.mark.parametrize("dict_actions", [False, True])
@pytest.mark.parametrize("max_tasks", [None, 2])
def test_toys_keep_the_contract(task_class, dict_actions, max_tasks):
    check_task_sampler(
        lambda: ToyTaskSampler(task_class, dict_actions=dict_actions, max_tasks=max_tasks), check_render=True
    )


def expert_return(task):
    while not task.is_done():
        action, success = task.query_expert()
        assert success
        task.step(action)
    return task.cumulative_reward


@pytest.mark.parametrize("dict_actions", [False, True])
@pytest.mark.parametrize(
    ("task_class", "expected"), [(CopyTask, 7.0), (RememberTask, 1.0), (EndlessRewardTask, 8.0), (PushRightTask, 0.8)]
)
def test_the_expert_gets_everything(task_class, expected, dict_actions):
    task = ToyTaskSampler(task_class, seed=1, dict_actions=dict_actions).next_task()
    assert expert_return(task) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("task_class", "truncated"), [(CopyTask, False), (RememberTask, False), (EndlessRewardTask, True)]
)
def test_how_the_toys_end(task_class, truncated):
    task = ToyTaskSampler(task_class).next_task()
    expert_return(task)
    assert task.was_truncated() == truncated


def test_pushing_right_ends_both_ways():
    arrived = ToyTaskSampler(PushRightTask, max_steps=30).next_task()
    expert_return(arrived)
    assert not arrived.was_truncated()
    cut = ToyTaskSampler(PushRightTask, max_steps=5).next_task()
    expert_return(cut)
    assert cut.was_truncated()


def test_the_number_to_remember_is_shown_once():
    task = ToyTaskSampler(RememberTask, seed=3, max_steps=6).next_task()
    seen = [task.get_observations()["toy"]]
    while not task.is_done():
        result = task.step(task.expert_action())
        seen.append(result.observation["toy"])
    assert seen[0].argmax() == task.expert_action()
    assert [observation.sum() for observation in seen] == [1, 0, 0, 0, 1, 0]
    assert seen[4][3] == 1  # the question mark, at which the answer counts
    assert result.reward == 1.0


def test_lower_counts_only_if_higher_is_1():
    task = ToyTaskSampler(CopyTask, dict_actions=True).next_task()
    right = task.expert_action()
    assert task.step({"higher": 0, "lower": right}).reward == 0.0
    assert task.step({"higher": 1, "lower": task.expert_action()}).reward == 1.0


@pytest.mark.parametrize("dict_actions", [False, True])
def test_expert_sensor(dict_actions):
    """What imitation sees: the action and whether there is one, for each group."""
    space = toy_action_space(CopyTask, dict_actions)
    sensors = [ToySensor(4), ExpertActionSensor(space)]
    args = [{"task_class": CopyTask, "sensors": sensors, "dict_actions": dict_actions, "seed": i} for i in range(3)]
    with SingleProcessVectorSampledTasks(ToyTaskSampler, args) as tasks:
        observed = tasks.observe()
        shown = observed["toy"].argmax(axis=1)
        expert = observed["expert_action"]
        if dict_actions:
            assert np.array_equal(expert, np.stack([[1, 1, number, 1] for number in shown]))
        else:
            assert np.array_equal(expert, np.stack([shown, np.ones(3, int)], axis=1))
        for _ in range(8):
            actions = torch.from_numpy(expert[:, 0::2].astype(np.int64))
            batch = tasks.step_batch(actions)
            expert = batch.observations["expert_action"]
            assert batch.rewards.tolist() == [1.0] * 3
