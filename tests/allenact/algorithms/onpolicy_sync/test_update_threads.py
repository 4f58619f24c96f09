"""How many threads an update is given, and that finding out changes nothing."""

import logging

import pytest
import torch
from torch import nn

from allenact.algorithms.onpolicy_sync import update_threads as module
from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.testing.experiments import ToyExperiment


class Drawing(LinearActorCritic):
    """Draws random numbers in training, and counts in a buffer how often it was asked."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("asked", torch.tensor(0))
        self.dropout = nn.Dropout(0.2)

    def forward(self, observations, **kwargs):
        if torch.is_grad_enabled():
            self.asked += 1
            observations = {"toy": self.dropout(observations["toy"])}
        return super().forward(observations, **kwargs)


class DrawingExperiment(ToyExperiment):
    """The toy with that model."""

    def create_model(self, **kwargs):
        model = super().create_model()
        return Drawing("toy", model.action_space, model.observation_space)


EXPERIMENTS = {
    "plain": lambda: ToyExperiment(),
    "memory": lambda: ToyExperiment("remember", recurrent=True),
    "dict": lambda: ToyExperiment(dict_actions=True),
    "steps": lambda: ToyExperiment("push_right", mini_batches_over="steps"),
    "drawing": DrawingExperiment,
}


def trained(config):
    """Trains, and returns what was learned and the weights' gradients of the last mini-batch."""
    with OnPolicyTrainer(config, seed=1, sampler_backend="serial") as trainer:
        assert trainer.train()
        return {**trainer.actor_critic.state_dict(), "drawn": torch.rand(1)}


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
    lines = [line for line in caplog.messages if "torch thread" in line]
    assert lines == [
        "mini-batches of about 16 steps on 2 torch threads; the gradient of one took 20.0 ms with 1, 10.0 ms with 2"
    ], "once for both stages, whose mini-batches are of the same size"


def test_workers_share_the_cores_and_one_reports(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    asked = []
    monkeypatch.setattr("allenact.utils.torch_threads.usable_cores", lambda: 8)
    monkeypatch.setattr(module, "time_threads", lambda work, usual, most: asked.append((usual, most)) or {usual: 1.0})
    with OnPolicyTrainer(ToyExperiment(), seed=1, sampler_backend="serial") as trainer:
        trainer.updater.threads = module.UpdateThreads(trainer.actor_critic, 4, num_workers=3, report=False)
        assert trainer.train()
    assert asked == [(1, 2)]
    assert not [line for line in caplog.messages if "torch thread" in line]
