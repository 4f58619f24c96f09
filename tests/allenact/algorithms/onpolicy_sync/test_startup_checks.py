"""What is said before training begins."""

import logging
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch

from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.policy import ReparameterizedPolicy
from allenact.algorithms.onpolicy_sync.startup_checks import built, check_spaces, machine_params_of
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import BatchedVectorTasks, ProcessVectorTasks
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.errors import ExperimentConfigError, SpaceMismatchError
from allenact.pipeline.builder import Builder
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


class OnTwoMachines(ToyExperiment):
    """Chooses the workers of a machine as AllenAct's tutorial for several machines does."""

    def machine_params(self, mode="train", **kwargs):
        params = MachineParams(nprocesses=[2] * 4 if mode == "train" else 1)
        if "machine_id" in kwargs:
            assert mode == "train"
            params.set_local_worker_ids([2 * kwargs["machine_id"], 2 * kwargs["machine_id"] + 1])
        return params


def test_each_machine_is_told_which_one_it_is():
    assert [machine_params_of(OnTwoMachines(), "train", index).local_worker_ids for index in (0, 1)] == [[0, 1], [2, 3]]
    assert machine_params_of(OnTwoMachines(), "train").local_worker_ids == [0, 1, 2, 3]
    assert machine_params_of(OnTwoMachines(), "test", 1).local_worker_ids == [0]


def test_experiments_for_one_machine_need_not_know_of_others():
    class ForOne(ToyExperiment):
        def machine_params(self, mode="train"):
            return {"nprocesses": 3}

    assert list(machine_params_of(ForOne(), "train", 0).nprocesses) == [3]
    with pytest.raises(ExperimentConfigError, match=r"for one machine only.*\n.*--machine_id 1, ForOne"):
        machine_params_of(ForOne(), "train", 1)


VECTOR = gym.spaces.Box(-1, 1, (4,))


def tasks_with(num_actions, **observations):
    return SimpleNamespace(
        observation_space=gym.spaces.Dict(observations), action_spaces=[gym.spaces.Discrete(num_actions)]
    )


def model_for(num_actions=2, uuid="toy", **observations):
    return LinearActorCritic(uuid, gym.spaces.Discrete(num_actions), gym.spaces.Dict(observations))


def test_a_model_may_be_built_for_more_than_the_tasks_give(caplog):
    """Experiments build the model with the expert's sensor, and give it to the tasks of training only."""
    model = model_for(toy=VECTOR, expert_action=gym.spaces.Discrete(2))
    check_spaces(model, tasks_with(2, toy=VECTOR), None)
    assert caplog.text == ""
    check_spaces(model, tasks_with(3, toy=VECTOR), None)  # and need not use every choice
    assert "the first 2 of the tasks' 3 actions" in caplog.text


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_for(uuid="toys", toys=VECTOR), r'(?s)expects an observation "toys".*did you mean "toy"'),
        (lambda: model_for(toy=gym.spaces.Box(-1, 1, (5,))), 'disagree about the observation "toy"'),
        (lambda: model_for(num_actions=3, toy=VECTOR), "disagree about the actions"),
    ],
)
def test_a_model_for_other_tasks_is_refused(model, message):
    with pytest.raises(SpaceMismatchError, match=message):
        check_spaces(model(), tasks_with(2, toy=VECTOR), None)


def test_a_model_that_looks_at_what_is_not_there_is_told_so():
    class Curious(LinearActorCritic):
        def forward(self, observations, **kwargs):
            return super().forward({"toy": observations["smell"]}, **kwargs)

    class Smells(ToyExperiment):
        def create_model(self, **kwargs):
            toy = super().create_model().observation_space["toy"]
            return Curious("toy", self.action_space, gym.spaces.Dict(toy=toy, smell=toy))

    with (
        OnPolicyTrainer(Smells(), seed=0, sampler_backend="serial", send=lambda message: None) as trainer,
        pytest.raises(SpaceMismatchError, match='expects an observation "smell"'),
    ):
        trainer.train()


def test_an_optimizer_that_torch_refuses():
    with pytest.raises(ExperimentConfigError, match="the optimizer cannot be made: Invalid learning rate: -1"):
        built("optimizer", Builder(torch.optim.Adam, {"lr": -1}), params=[torch.nn.Parameter(torch.zeros(1))])


def test_a_mistake_in_an_optimizer_of_the_experiment_s_own_stays_what_it_is():
    def make(params):
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own") as caught:
        built("optimizer", make, params=[])
    assert not isinstance(caught.value, ExperimentConfigError)
