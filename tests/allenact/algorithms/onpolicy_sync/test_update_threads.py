"""How many threads an update is given, and that finding out changes nothing."""

import logging
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync import update_threads as module
from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.pipeline.settings import TrainingSettings
from allenact.testing.experiments import ToyExperiment


class Drawing(LinearActorCritic):
    """Draws random numbers in training, and counts how often it was asked; a part of it is not learned."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("asked", torch.tensor(0))
        self.register_buffer("latest", None)
        self.calls = 0
        self.dropout = nn.Dropout(0.2)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, observations, **kwargs):
        if torch.is_grad_enabled():
            self.asked += 1
            self.calls += 1
            self.latest = observations["toy"].mean()  # 0-d
            observations = {"toy": self.dropout(observations["toy"])}
        return super().forward(observations, **kwargs)


class DrawingExperiment(ToyExperiment):
    """The toy with that model."""

    def create_model(self, **kwargs):
        model = super().create_model()
        return Drawing("toy", model.action_space, model.observation_space)


EXPERIMENTS = {
    "plain": lambda: ToyExperiment(),
    "dict": lambda: ToyExperiment(dict_actions=True),
    "steps": lambda: ToyExperiment("push_right", mini_batches_over="steps"),
    "drawing": DrawingExperiment,
}


def trained(config):
    """Trains, and returns what was learned and what would be drawn next."""
    with OnPolicyTrainer(config, seed=1, sampler_backend="serial") as trainer:
        assert trainer.train()
        calls = torch.tensor(getattr(trainer.actor_critic, "calls", 0))
        return {**trainer.actor_critic.state_dict(), "drawn": torch.rand(1), "calls": calls}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_measurement_changes_nothing(name, monkeypatch):
    measured = []
    time_threads = module.time_threads
    monkeypatch.setattr(module, "time_threads", lambda *args: measured.append(time_threads(*args)) or measured[-1])
    monkeypatch.setattr(module, "most_threads", lambda num_workers: 1)
    expected = trained(EXPERIMENTS[name]())
    assert not measured, "there is nothing to choose from"

    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    result = trained(EXPERIMENTS[name]())
    (seconds,) = measured
    assert next(iter(seconds)) == 1
    assert 0 < seconds[1] < 10
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "experiment",
    [
        lambda: ToyExperiment("remember", recurrent=True),
        lambda: ToyExperiment(num_mini_batch=3),
        lambda: ToyExperiment(num_mini_batch=5, mini_batches_over="steps"),
    ],
    ids=["memory", "3 of 4 samplers", "5 of 32 steps"],
)
def test_where_sizes_differ_nothing_is_measured(experiment, monkeypatch, caplog):
    """One mini-batch does not tell whether two threads give the bits of one on all of them."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    monkeypatch.setattr(module, "time_threads", lambda *args: pytest.fail("measured"))
    trained(experiment())
    (line,) = lines(caplog)
    assert line.endswith("on 1 torch thread; not measured, but by the size of the work")


def test_what_is_faster_is_used_and_said(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    monkeypatch.setattr(module, "time_threads", lambda work, usual, most: {usual: 0.02, most: 0.01})
    used = []
    with OnPolicyTrainer(ToyExperiment(stage_steps=(64, 64)), seed=1, sampler_backend="serial") as trainer:
        model = trainer.actor_critic
        model.register_forward_pre_hook(lambda *_: used.append((torch.is_grad_enabled(), torch.get_num_threads())))
        assert trainer.train()
    assert set(used) == {(False, 1), (True, 2)}, "acting is too little work to share"
    assert lines(caplog) == [
        "onpolicy: mini-batches of about 16 steps on 2 torch threads"
        "; the gradient of one took 20.0 ms with 1, 10.0 ms with 2"
    ], "once for both stages, whose mini-batches are of the same size"


def lines(caplog):
    return [line for line in caplog.messages if "torch thread" in line]


class Plugged(RolloutBlockStorage):
    """A storage of a plugin that knows no option but AllenAct's."""

    def batched_experience_generator(self, num_mini_batch):
        return super().batched_experience_generator(num_mini_batch)


def test_the_storage_of_a_plugin(monkeypatch, caplog):
    class Experiment(ToyExperiment):
        """Uses it."""

        def training_pipeline(self, **kwargs):
            pipeline = super().training_pipeline()
            (uuid,) = pipeline.named_storages
            pipeline.named_storages[uuid] = Plugged()
            return pipeline

    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    caplog.set_level(logging.INFO)
    with OnPolicyTrainer(Experiment(), seed=1, sampler_backend="serial") as trainer:
        assert trainer.train()
        assert type(trainer.training_pipeline.rollout_storage) is Plugged
    (line,) = lines(caplog)
    assert "the gradient of one took" in line


def test_a_model_that_cannot_be_measured_is_trained(monkeypatch, caplog):
    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    caplog.set_level(logging.INFO)
    with OnPolicyTrainer(ToyExperiment(), seed=1, sampler_backend="serial") as trainer:
        trainer.actor_critic.open_file = open(os.devnull)  # noqa: SIM115 - cannot be copied
        with trainer.actor_critic.open_file:
            assert trainer.train()
    (line,) = lines(caplog)
    assert "on 1 torch thread; not measured: TypeError: cannot pickle" in line


def test_one_core_has_nothing_to_choose(monkeypatch, caplog):
    monkeypatch.setattr("allenact.utils.torch_threads.usable_cores", lambda: 1)
    caplog.set_level(logging.INFO)
    with OnPolicyTrainer(ToyExperiment(), seed=1, sampler_backend="serial") as trainer:
        assert trainer.train()
    assert lines(caplog) == ["onpolicy: mini-batches of about 16 steps on 1 torch thread; it may use one core"]


def test_components_are_told_apart(monkeypatch):
    """Another storage, another size: each is measured, or not, for itself."""
    monkeypatch.setattr(module, "most_threads", lambda num_workers: 2)
    drawn = []

    def batch():
        drawn.append(True)
        raise RuntimeError("enough")

    settings = TrainingSettings(num_steps=8, num_mini_batch=2)
    threads = module.UpdateThreads(nn.Linear(2, 2), num_samplers=4, num_workers=1, report=False)
    threads.choose(SimpleNamespace(storage_uuid="stream", training_settings=settings), None)
    for _ in range(2):
        threads.choose(SimpleNamespace(storage_uuid="onpolicy", training_settings=settings), batch)
    assert len(drawn) == 1
    longer = TrainingSettings(num_steps=16, num_mini_batch=2)
    threads.choose(SimpleNamespace(storage_uuid="onpolicy", training_settings=longer), batch)
    assert len(drawn) == 2


def test_workers_share_the_cores_and_one_reports(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    asked = []
    monkeypatch.setattr("allenact.utils.torch_threads.usable_cores", lambda: 8)
    monkeypatch.setattr(module, "time_threads", lambda work, usual, most: asked.append((usual, most)) or {usual: 1.0})
    with OnPolicyTrainer(ToyExperiment(), seed=1, sampler_backend="serial") as trainer:
        trainer.updater.threads = module.UpdateThreads(trainer.actor_critic, 4, num_workers=3, report=False)
        assert trainer.train()
    assert asked == [(1, 2)]
    assert not lines(caplog)
