"""Rollouts that sampler processes collect by themselves: the numbers of stepping in lockstep, and the same failures."""

import math
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector, StopRequested
from allenact.algorithms.onpolicy_sync.policy import ReparameterizedPolicy
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import make_vector_tasks, process_rollouts
from allenact.base_abstractions.sensor import SensorSuite
from allenact.errors import ExperimentConfigError, NonFiniteError, TaskWorkerError
from allenact.testing.tasks import PushRightTask, ToySensor, ToyTaskSampler
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic

SPACES = SensorSuite([ToySensor(PushRightTask.observation_size)]).observation_spaces
ROWS = ("rewards", "masks", "actions", "prev_actions", "action_log_probs", "value_preds", "returns")


class OddTask(PushRightTask):
    """Does something odd at a certain step of its sampler."""

    def play(self, action):
        reward = super().play(action)
        self.env.steps = getattr(self.env, "steps", 0) + 1
        return self.env.odd(reward) if self.env.steps == self.env.odd_at else reward


class OddSampler(ToyTaskSampler):
    def __init__(self, odd=float, odd_at=0, **kwargs):
        super().__init__(OddTask, max_steps=5, **kwargs)
        self.world.odd, self.world.odd_at = odd, odd_at


def not_a_number(reward):
    return math.nan


def leave(reward):
    os._exit(3)


def hang(reward):
    time.sleep(60)


def samplers(backend="process", n=5, processes=2, odd=float, odd_at=0, sampler=OddSampler, **kwargs):
    """Samplers of which the last but one is odd."""
    args = [{"seed": seed} for seed in range(n)]
    args[-2].update(odd=odd, odd_at=odd_at)
    return make_vector_tasks(
        sampler,
        args,
        action_space=PushRightTask.lower_action_space,
        backend=backend,
        max_processes=processes,
        mp_ctx=multiprocessing.get_context("fork"),
        **kwargs,
    )


def begin(tasks, model_class=MemorylessActorCritic, **kwargs):
    torch.manual_seed(3)
    model = model_class("toy", PushRightTask.lower_action_space, SPACES)
    collector = RolloutCollector(model, tasks, torch.device("cpu"), **kwargs)
    storage = RolloutBlockStorage()
    collector.initialize([storage])
    return collector, storage


def collect(tasks, steps=11, rollouts=3, bootstrap_truncated=True, **kwargs):
    """Returns all that comes of some rollouts, as tensors and plain values."""
    collector, storage = begin(tasks, **kwargs)
    seen = []
    for _ in range(rollouts):
        counts = []
        collector.collect(storage, [storage], steps, bootstrap_truncated=bootstrap_truncated, on_step=counts.append)
        storage.before_updates(next_value=collector.next_value(storage), use_gae=True, gamma=0.9, tau=0.95)
        seen += [getattr(storage, name).clone() for name in ROWS]
        seen += [storage.observations.tensor("toy").clone(), storage.total_experiences, sum(counts)]
        seen += [(episode.sampler, episode.metrics) for episode in collector.pop_episodes()]
        storage.after_updates()
    return [*seen, torch.get_rng_state()]


def assert_same(a, b):
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def requests_to(tasks):
    """Returns a list to which every rollout request to `tasks` is added."""
    requests, collect_rollout = [], tasks.collect_rollout
    tasks.collect_rollout = lambda request: (requests.append(request), collect_rollout(request))[1]
    return requests


@pytest.fixture
def chunks_of_one_step(monkeypatch):
    monkeypatch.setattr(process_rollouts, "CHUNK_S", 0.0)


@pytest.mark.parametrize("n", [2, 5, 8])
@pytest.mark.parametrize("bootstrap_truncated", [False, True])
def test_workers_collect_what_one_process_collects(n, bootstrap_truncated):
    with samplers("serial", n) as serial, samplers(n=n) as workers:
        expected = collect(serial, bootstrap_truncated=bootstrap_truncated)
        requests = requests_to(workers)
        assert_same(expected, collect(workers, bootstrap_truncated=bootstrap_truncated))
        assert len(requests) == 3, "the rollouts were not collected by the workers"
    assert any(isinstance(value, tuple) for value in expected), "no episode has ended"


@pytest.mark.parametrize("processes", [1, 3])
def test_chunks_may_have_any_length(processes, chunks_of_one_step):
    with samplers("serial") as serial, samplers(processes=processes) as workers:
        assert_same(collect(serial), collect(workers))


class Watching(MemorylessActorCritic):
    """Wants to be told of every step."""

    def sampler_select(self, keep):
        self.steps_seen = getattr(self, "steps_seen", 0) + 1


def test_models_that_follow_every_step_are_told(monkeypatch):
    with samplers() as tasks:
        collector, storage = begin(tasks, Watching)
        monkeypatch.setattr(tasks, "collect_rollout", None)
        collector.collect(storage, [storage], 4)
        assert collector.actor_critic.steps_seen == 4


def test_no_rollouts_of_workers_while_samplers_are_paused():
    with samplers() as tasks:
        tasks.pause_at(1)
        assert not tasks.can_collect_rollouts
        tasks.resume_all()
        assert tasks.can_collect_rollouts


def test_a_stop_leaves_no_answer_behind(chunks_of_one_step):
    questions = iter([False, False, False, True])
    with samplers() as tasks:
        collector, storage = begin(tasks, stop_requested=lambda: next(questions))
        with pytest.raises(StopRequested):
            collector.collect(storage, [storage], 1000)
        assert collector.pop_episodes() == []
        assert len(tasks.observe()["toy"]) == 5
        assert len(tasks.state_dict()) == 5


def test_rewards_that_are_not_finite_are_found(chunks_of_one_step):
    with samplers(odd=not_a_number, odd_at=4) as tasks:
        collector, storage = begin(tasks)
        with pytest.raises(NonFiniteError, match=r"samplers \[3\] of 5, step 3 of the rollout: \[nan\]"):
            collector.collect(storage, [storage], 1000)
        tasks.observe()


def test_rewards_are_checked_within_a_chunk():
    with samplers(odd=not_a_number, odd_at=4) as tasks:
        collector, storage = begin(tasks)
        with pytest.raises(NonFiniteError, match=r"samplers \[3\] of 5, step 3 of the rollout: \[nan\]"):
            collector.collect(storage, [storage], 10)


class BreaksSampler(ToyTaskSampler):
    """The third step of one of its tasks pays NaN, the next one raises."""

    def __init__(self, odd=None, odd_at=0, **kwargs):
        super().__init__(BreaksTask, max_steps=5, **kwargs)
        self.world.odd_at = odd_at


class BreaksTask(PushRightTask):
    def play(self, action):
        reward = super().play(action)
        self.env.steps = getattr(self.env, "steps", 0) + 1
        if self.env.odd_at and self.env.steps > self.env.odd_at:
            raise ValueError("lost its balance")
        return math.nan if self.env.steps == self.env.odd_at else reward


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_a_reward_is_blamed_for_what_breaks_after_it(backend):
    with samplers(backend, odd_at=3, sampler=BreaksSampler) as tasks:
        collector, storage = begin(tasks)
        with pytest.raises(NonFiniteError, match=r"samplers \[3\] of 5, step 2 of the rollout: \[nan\]"):
            collector.collect(storage, [storage], 10)


class OwnPolicy(MemorylessActorCritic):
    """Acts by what `act` says, without noise."""

    act = staticmethod(lambda observations, noise: noise)

    def make_rollout_policy(self, num_steps):
        return ReparameterizedPolicy(self.act, lambda n: np.zeros((n, 1), np.float32))


def first_entry(observations, noise):
    return observations["toy"][:, :1]  # a view of what the next step overwrites


class ViewPolicy(OwnPolicy):
    act = staticmethod(first_entry)


def test_a_policy_that_cannot_be_pickled_is_named():
    with samplers() as tasks:
        collector, storage = begin(tasks, OwnPolicy)
        with pytest.raises(ExperimentConfigError, match="the policy cannot be sent"):
            collector.collect(storage, [storage], 4)
        assert len(tasks.observe()["toy"]) == 5, "they are as they were"


def test_actions_may_be_views_of_observations():
    with samplers("serial") as serial, samplers() as workers:
        assert_same(collect(serial, model_class=ViewPolicy), collect(workers, model_class=ViewPolicy))


class ShortSampler(ToyTaskSampler):
    """Has `tasks` tasks of five steps."""

    def __init__(self, tasks, **kwargs):
        super().__init__(PushRightTask, max_steps=5, **kwargs)
        self.tasks = tasks

    def next_task(self, force_advance_scene=False):
        self.tasks -= 1
        return super().next_task(force_advance_scene) if self.tasks >= 0 else None


def test_samplers_that_run_out_are_named():
    args = [{"seed": seed, "tasks": 2 if seed == 2 else 100} for seed in range(4)]
    context = multiprocessing.get_context("fork")
    with make_vector_tasks(
        ShortSampler, args, action_space=None, backend="process", max_processes=2, mp_ctx=context
    ) as tasks:
        collector, storage = begin(tasks)
        with pytest.raises(NotImplementedError, match="Task sampler 2 ran out of tasks during training"):
            collector.collect(storage, [storage], 100)
        tasks.pause_at(2)
        assert len(tasks.observe()["toy"]) == 3


def test_a_process_that_dies_is_replaced(chunks_of_one_step):
    with samplers(n=4, odd=leave, odd_at=4, keep_healthy=True) as tasks:
        collector, storage = begin(tasks)
        states = tasks.state_dict()
        with pytest.raises(
            TaskWorkerError, match=r'worker 1 \(samplers 2 to 3\) died while answering "continue_rollout"'
        ):
            collector.collect(storage, [storage], 1000)
        assert tasks.restart_lost(states, [7] * 4) == ([2, 3], [])
        collector.initialize([storage])
        collector.collect(storage, [storage], 3)
        assert storage.step == 3


@pytest.mark.slow
def test_a_process_that_hangs_is_noticed_while_others_collect():
    with samplers(odd=hang, odd_at=4, read_timeout=0.5) as tasks:
        collector, storage = begin(tasks)
        steps = []
        with pytest.raises(TaskWorkerError, match=r'worker 1 \(samplers 3 to 4\) did not answer "start_rollout"'):
            collector.collect(storage, [storage], 60_000, on_step=steps.append)
        assert 0 < sum(steps) < 3 * 60_000, "the others were not done"
