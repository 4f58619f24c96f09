"""What is said before training begins."""

import logging

import pytest

from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.policy import ReparameterizedPolicy
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import BatchedVectorTasks, ProcessVectorTasks
from allenact.testing.experiments import ToyExperiment
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from projects.tutorials import gym_mujoco_tutorial
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr("allenact.algorithms.onpolicy_sync.engine_base.usable_cores", lambda: 2)


@pytest.fixture
def said(caplog):
    """A function that trains, with a stop before the first step, and returns the lines before that."""

    def begin(config, **kwargs):
        caplog.set_level(logging.INFO)
        with OnPolicyTrainer(config, seed=3, **kwargs) as trainer:
            trainer.stop_requested = True
            assert not trainer.train()
            return trainer.vector_tasks, [record.getMessage() for record in caplog.records]

    return begin


@pytest.mark.parametrize(
    ("num_steps", "updates"),
    [
        (2048, "rollouts of 2048 x 8 = 16,384 steps, 10 passes over 4 mini-batches of about 4,096;"),
        (16, "rollouts of 16 x 8 = 128 steps, 10 passes over 4 mini-batches of about 32;"),
    ],
)
def test_the_tutorial_on_auto(num_steps, updates, said):
    tasks, (model, samplers, stage, *_) = said(GymMuJoCoTutorialExperimentConfig(num_steps=num_steps))
    assert type(tasks) is ProcessVectorTasks
    assert model == (
        "MemorylessActorCritic with 18,793 trainable parameters on cpu, seed 3, starting at 0 environment steps"
    )
    assert samplers == (
        "8 task samplers, stepped in 2 worker processes (forkserver), in each as one MuJoCo batch of Ant-v2 on 1 thread"
        "; backend process, chosen because each can act with a copy of the policy, on a core of its own"
    )
    assert stage.startswith("stage 0: 30,000,000 environment steps, losses ppo_loss; ")
    assert updates in stage
    assert stage.endswith("; a log every 50,000 steps, a checkpoint every 200,000")


class FullForward(MemorylessActorCritic):
    """Has to be run in full at every step."""

    def make_rollout_policy(self, num_steps):
        raise NotImplementedError


class LocalPolicy(MemorylessActorCritic):
    """Acts by what cannot be pickled."""

    def make_rollout_policy(self, num_steps):
        policy = super().make_rollout_policy(num_steps)
        return ReparameterizedPolicy(lambda observations, noise: policy.act(observations, noise), policy.draw)


class Watching(MemorylessActorCritic):
    """Wants to be told of every step."""

    def sampler_select(self, keep):
        """Does nothing with it."""


@pytest.mark.parametrize("model_class", [FullForward, LocalPolicy, Watching])
def test_a_policy_that_cannot_be_lent(model_class, said, monkeypatch):
    monkeypatch.setattr(gym_mujoco_tutorial, "MemorylessActorCritic", model_class)
    tasks, lines = said(GymMuJoCoTutorialExperimentConfig())
    assert type(tasks) is BatchedVectorTasks
    assert lines[1] == (
        "8 task samplers, stepped as one MuJoCo batch of Ant-v2 on 2 threads;"
        " backend batched, chosen because these samplers offer it"
    )


def test_samplers_without_a_batch(said):
    tasks, lines = said(ToyExperiment(stage_steps=(64, 32)), max_sampler_processes=1)
    assert lines[1].startswith(f"4 task samplers, {tasks.description}")
    assert lines[1].endswith("one process only; not batched because ToyTaskSampler offers no batch")
    assert [line.partition(";")[0] for line in lines[2:4]] == [
        "stage 0: 64 environment steps, losses ppo_loss",
        "stage 1: 32 environment steps, losses ppo_loss",
    ]
