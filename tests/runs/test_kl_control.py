"""The KL divergence of an update: its estimate, the learning rate that follows it, and the end of the passes."""

import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.distributed import WorkerGroup
from allenact.algorithms.onpolicy_sync.kl_control import KLControl, adapted_rate, kl_estimate
from allenact.base_abstractions.misc import GenericAbstractLoss, LossOutput
from allenact.errors import ExperimentConfigError
from allenact.pipeline.schedules import LinearDecay
from allenact.pipeline.settings import TrainingSettings
from allenact.testing.experiments import ToyExperiment


def test_the_estimate_is_that_of_gaussians():
    torch.manual_seed(0)
    old = torch.distributions.Normal(torch.zeros(2), torch.tensor([1.0, 0.5]))
    new = torch.distributions.Normal(torch.tensor([0.2, 0.1]), torch.tensor([1.1, 0.5]))
    actions = old.sample((100, 1000))  # [T, n, A]
    expected = torch.distributions.kl_divergence(old, new).sum().item()
    per_entry = kl_estimate(new.log_prob(actions), old.log_prob(actions)).item()
    joint = kl_estimate(new.log_prob(actions).sum(-1), old.log_prob(actions).sum(-1)).item()
    assert per_entry == pytest.approx(joint)
    assert joint == pytest.approx(expected, rel=0.02)
    assert kl_estimate(new.log_prob(actions), new.log_prob(actions)).item() == 0


@pytest.mark.parametrize(
    ("rate", "divergence", "expected"),
    [
        (3e-4, 0.021, 2e-4),
        (3e-4, 0.02, 3e-4),
        (3e-4, 0.005, 3e-4),
        (2e-4, 0.0049, 3e-4),
        (1.2e-6, 1.0, 1e-6),
        (9e-3, 0.0, 1e-2),
        (0.1, 0.0, 0.1),  # a rate that begins beyond a bound is not thrown back behind it
        (0.1, 1.0, 0.1 / 1.5),
        (1e-7, 1.0, 1e-7),
    ],
)
def test_the_rule_of_the_rate(rate, divergence, expected):
    assert adapted_rate(rate, divergence, 0.01) == pytest.approx(expected)


def scalar(run, name):
    tag = f"train-onpolicy-misc/{name}"
    return [package.scalars[tag][0] / package.scalars[tag][1] for package in run.packages]


def toy(**settings):
    return ToyExperiment("push_right", **{"constant_lr": True, "update_repeats": 3, "lr": 1e-2, **settings})


@pytest.mark.parametrize(("judged", "times"), [("mini_batch", 6), ("pass", 3), ("update", 1)])
def test_how_often_the_rate_is_judged(judged, times, train):
    """With a target that is out of reach the rate rises every time."""
    run = train(toy(kl_target=1e6, kl_judged=judged, lr=1e-4, stage_steps=(64,)))
    (rate,) = {group["lr"] for group in run.trainer.optimizer.param_groups}
    assert rate == pytest.approx(min(1e-4 * 1.5 ** (2 * times), 1e-2))
    assert scalar(run, "kl")[0] > 0


def test_a_policy_that_moves_too_far_is_slowed_down(train):
    fast, slow = train(toy(kl_stop=1e9, stage_steps=(320,))), train(toy(kl_target=1e-5, stage_steps=(320,)))
    assert scalar(slow, "kl")[0] > 2e-5
    assert scalar(slow, "kl")[-1] < 0.2 * scalar(fast, "kl")[-1]
    assert scalar(slow, "lr")[-1] < 1e-2 == scalar(fast, "lr")[-1]


class LowFrom:
    """Targets that are out of reach: far too high, and from some step on far too low."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, epoch):
        return 1e6 if epoch < self.steps else 1e-12


def test_a_target_may_be_a_schedule(train):
    run = train(toy(kl_target=LowFrom(128), kl_judged="update", lr=1e-3, stage_steps=(160,)))
    # Rollouts are of 32 steps. Three updates are before step 128, the fourth at it; each log shows the rate before
    # the update's last judgement.
    assert scalar(run, "lr") == pytest.approx([1e-3, 1.5e-3, 2.25e-3, 3.375e-3, 2.25e-3])
    (rate,) = {group["lr"] for group in run.trainer.optimizer.param_groups}
    assert rate == pytest.approx(1.5e-3)


def test_a_schedule_may_return_numbers_of_numpy():
    settings = TrainingSettings(kl_target=lambda steps: np.float32(0.25))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert KLControl(settings, optimizer, WorkerGroup(), steps=0).target == 0.25


def test_a_schedule_must_stay_above_0(train):
    with pytest.raises(ExperimentConfigError, match="must return numbers above 0") as error:
        train(toy(kl_target=LinearDecay(steps=64, startp=0.01, endp=0.0), stage_steps=(160,)))
    assert "LinearDecay(steps=64, startp=0.01, endp=0.0) returned 0.0 at 64 environment steps" in str(error.value)


def test_passes_end_where_the_policy_has_moved_too_far(train):
    free, stopped = train(toy(lr=0.05)), train(toy(lr=0.05, kl_stop=1e-3))
    assert set(scalar(free, "rollout_epochs")) == {3}
    assert min(scalar(stopped, "rollout_epochs")) < 3
    assert any(not torch.equal(free.parameters[name], stopped.parameters[name]) for name in free.parameters)


class Weights(GenericAbstractLoss):
    """Runs the model itself, and asks nothing of its policy."""

    def loss(self, *, model, batch, batch_memory, stream_memory):
        value = sum(parameter.square().sum() for parameter in model.parameters())
        return LossOutput(
            value=value, info={}, per_epoch_info={}, batch_memory=batch_memory, stream_memory=stream_memory, bsize=1
        )


def test_it_needs_a_loss_of_the_policy(train):
    class OnlyWeights(ToyExperiment):
        """Has no other loss."""

        def training_pipeline(self, **kwargs):
            pipeline = super().training_pipeline()
            pipeline.named_losses["ppo_loss"] = Weights()
            return pipeline

    with pytest.raises(ExperimentConfigError, match="no loss works on the actions of the policy"):
        train(OnlyWeights("push_right", kl_target=0.01))
