"""Which tasks evaluations and resumed runs begin with."""

import dataclasses

import numpy as np
import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.resume import restore_state
from projects.gym_baselines.experiments.mujoco.gym_mujoco_invertedpendulum_ppo import (
    GymMuJoCoInvertedPendulumModernConfig as Pendulum,
)

SMALL = {"total_steps": 256, "num_samplers": 4, "num_steps": 16, "save_interval": 128, "update_repeats": 1}


class OtherTests(Pendulum):
    def __init__(self, **tests):
        super().__init__(**SMALL, model={"hidden_sizes": [4]})
        self.tests = tests

    def test_task_sampler_args(self, *args, **kwargs):
        return {"sensors": self.SENSORS, **self.tests}


@pytest.fixture
def checkpoints(train):
    return [str(path) for path in train(Pendulum(**SMALL, model={"hidden_sizes": [4]})).checkpoints]


def seeds_of(package):
    return [metrics["task_info"]["seed"] for metrics in package.metrics]


@pytest.mark.parametrize("backend", ["serial", "batched"])
def test_every_evaluation_plays_the_episodes_of_the_seed_that_the_experiment_gives(checkpoints, backend):
    config = OtherTests(max_tasks=3, seed=5)
    with OnPolicyInference(config, "test", sampler_backend=backend, deterministic_agents=True) as tester:
        first, second, third = (tester.run_eval(checkpoints[-1]) for _ in range(3))
    assert seeds_of(first) == seeds_of(second) == seeds_of(third)
    assert [m["reward"] for m in first.metrics] == [m["reward"] for m in third.metrics]
    with OnPolicyInference(OtherTests(max_tasks=3, seed=6), "test", sampler_backend=backend) as tester:
        assert seeds_of(tester.run_eval(checkpoints[-1])) != seeds_of(first)


def test_seeds_may_be_an_array(checkpoints):
    config = OtherTests(max_tasks=3, task_seeds_list=np.arange(7, 10), deterministic_sampling=True)
    with OnPolicyInference(config, "test", sampler_backend="serial") as tester:
        assert seeds_of(tester.run_eval(checkpoints[-1])) == [7, 8, 9]


def test_a_run_that_cannot_be_resumed_exactly_does_not_begin_with_the_first_tasks_of_the_run(checkpoints):
    config = Pendulum(**SMALL, model={"hidden_sizes": [4]})

    def first_tasks(prepare):
        with OnPolicyTrainer(config, seed=7, sampler_backend="serial") as trainer:
            prepare(trainer)
            return [task.task_info["seed"] for task in trainer.vector_tasks._tasks]

    inexact = dataclasses.replace(load_checkpoint(checkpoints[0]), rng_state=None)
    anew = first_tasks(lambda trainer: trainer.prepare())
    resumed = first_tasks(lambda trainer: restore_state(trainer, inexact))
    assert set(anew).isdisjoint(resumed)
