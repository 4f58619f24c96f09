"""PPO and A2C on numbers worked out by hand, and by the gradients that they must have."""

import logging
import math

import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses import A2C, ACKTR, PPO
from allenact.algorithms.onpolicy_sync.losses.a2cacktr import A2CConfig
from allenact.algorithms.onpolicy_sync.losses.grouped_action_imitation import GroupedActionImitation
from allenact.algorithms.onpolicy_sync.losses.imitation import Imitation
from allenact.algorithms.onpolicy_sync.losses.ppo import PPOConfig, PPOValue
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput


class FixedDistr:
    """Says what it is told to say."""

    def __init__(self, log_probs, entropy=0.0):
        self.log_probs = log_probs
        self.mean_entropy = torch.as_tensor(entropy)

    def log_prob(self, actions):
        return self.log_probs

    def entropy(self):
        return self.mean_entropy

    def conditional_entropy(self):
        return self.mean_entropy * 10


def row(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).reshape(1, -1, 1)  # [1, n, 1]


def make_batch(advantages, old_log_probs, values=None, returns=None, actions=None):
    zeros = torch.zeros_like(advantages)
    return {
        "actions": actions,
        "old_action_log_probs": old_log_probs,
        "norm_adv_targ": advantages,
        "adv_targ": advantages * 2 + 1,
        "values": zeros if values is None else values,
        "returns": zeros if returns is None else returns,
    }


def output(log_probs, values=None, entropy=0.0):
    values = torch.zeros(*log_probs.shape[:2], 1).to(log_probs) if values is None else values
    return ActorCriticOutput(FixedDistr(log_probs, entropy), values, {})


@pytest.fixture
def single_element():
    batch = make_batch(row(1.5), torch.tensor([[-1.0]]).double(), values=row(0.5), returns=row(1.2))
    return batch, output(torch.tensor([[-0.7]]).double(), values=row(0.9), entropy=1.1)


def numbers(info):
    return {key: pytest.approx(value.item(), abs=1e-6) for key, value in info.items()}


def test_ppo_of_the_worked_example(single_element):
    batch, out = single_element
    loss, info = PPO(**PPOConfig).loss(step_count=0, batch=batch, actor_critic_output=out)
    assert numbers(info) == {"value": 0.18, "action": -1.65, "entropy": -1.1, "ppo_total": -1.571}
    assert loss.item() == pytest.approx(-1.571)
    assert loss.dim() == 0


@pytest.mark.parametrize("loss", [PPO(**PPOConfig), PPOValue(0.1)])
def test_a_model_may_have_no_extras(single_element, loss):
    batch, out = single_element
    total = loss.loss(0, batch, out)[0]
    assert torch.equal(loss.loss(0, batch, out._replace(extras=None))[0], total)


def test_ratios_are_reported_per_pass(single_element):
    batch, out = single_element
    _, _, ratios = PPO(**PPOConfig, show_ratios=True).loss(0, batch, out)
    assert numbers(ratios) == {"ratio": 1.349859, "ratio_clamped": 1.1, "ratio_used": 1.1}
    batch["norm_adv_targ"] = -batch["norm_adv_targ"]
    _, _, ratios = PPO(**PPOConfig, show_ratios=True).loss(0, batch, out)
    assert ratios["ratio_used"].item() == pytest.approx(1.349859)


def test_the_clipping_range_decays_with_the_steps_of_the_stage(single_element):
    batch, out = single_element
    ppo = PPO(**PPOConfig, clip_decay=lambda steps: 1 - steps / 100)
    _, info = ppo.loss(step_count=50, batch=batch, actor_critic_output=out)
    assert info["action"].item() == pytest.approx(-1.5 * 1.05)
    # The value moved by 0.4 and is clipped to 0.05: the error of 0.55 is the larger one.
    assert info["value"].item() == pytest.approx(0.5 * (1.2 - 0.55) ** 2)


def test_advantages_as_they_are(single_element):
    batch, out = single_element
    _, info = PPO(**PPOConfig, normalize_advantage=False).loss(0, batch, out)
    assert info["action"].item() == pytest.approx(-1.1 * 4.0)


def test_the_entropy_method_has_a_name(single_element):
    batch, out = single_element
    _, info = PPO(**PPOConfig, entropy_method_name="conditional_entropy").loss(0, batch, out)
    assert info["entropy"].item() == pytest.approx(-11.0)


def test_unclipped_value_loss_and_its_sides(single_element):
    batch, out = single_element
    _, info = PPO(**PPOConfig, use_clipped_value_loss=False).loss(0, batch, out)
    assert info["value"].item() == pytest.approx(0.5 * 0.3**2)
    _, info = PPOValue(clip_param=0.1, use_clipped_value_loss=False).loss(0, batch, out)
    assert numbers(info) == {"value": 0.045}
    loss, info = PPOValue(clip_param=0.1).loss(0, batch, out)
    assert loss.item() == info["value"].item() == pytest.approx(0.18)
    # Moving away from the return is never hidden by the clipping.
    worse = output(torch.tensor([[-0.7]]).double(), values=row(-3.0))
    _, info = PPOValue(clip_param=0.1).loss(0, batch, worse)
    assert info["value"].item() == pytest.approx(0.5 * 4.2**2)


@pytest.mark.parametrize("use_clipped_value_loss", [True, False])
def test_the_value_loss_of_normalised_values(use_clipped_value_loss):
    """The same as the loss of normalised values and returns, wherever the mean is."""
    torch.manual_seed(0)
    old, new, returns = torch.randn(3, 6, 4, 1, dtype=torch.float64) * 0.3
    scale, mean = torch.tensor([7.0]).double(), 30.0
    loss = PPOValue(clip_param=0.2, use_clipped_value_loss=use_clipped_value_loss)
    log_probs = torch.zeros(6, 4)
    normalised = make_batch(old, log_probs, values=old, returns=returns)
    expected, _ = loss.loss(0, normalised, output(log_probs, values=new))
    batch = make_batch(old, log_probs, values=old * scale + mean, returns=returns * scale + mean)
    out = output(log_probs, values=new * scale + mean)._replace(extras={"value_scale": scale})
    assert loss.loss(0, batch, out)[0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("loss", [PPO(0.1, 0.0, 0.0), PPO(0.1, 0.0, 0.0, normalize_advantage=False)])
def test_an_unchanged_policy_gives_the_policy_gradient(loss):
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(4, (5, 3))
    advantages = torch.randn(5, 3, 1, dtype=torch.float64)
    log_probs = CategoricalDistr(logits=logits).log_prob(actions)
    batch = make_batch(advantages, log_probs.detach(), actions=actions)
    used = batch["norm_adv_targ"] if loss.normalize_advantage else batch["adv_targ"]
    out = ActorCriticOutput(CategoricalDistr(logits=logits), torch.zeros(5, 3, 1).double(), {})
    value, _ = loss.loss(0, batch, out)
    assert value.item() == pytest.approx(-used.mean().item())
    (gradient,) = torch.autograd.grad(value, logits)
    (expected,) = torch.autograd.grad(-(used[..., 0] * log_probs).mean(), logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "has_gradient"),
    [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (0.7, -1.0, False), (1.05, 1.0, True)],
)
def test_the_gradient_stops_where_the_ratio_has_gone_far_enough(ratio, advantage, has_gradient):
    log_probs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    batch = make_batch(row(advantage), torch.zeros(1, 1).double())
    value, _ = PPO(0.1, 0.0, 0.0).loss(0, batch, output(log_probs))
    (gradient,) = torch.autograd.grad(value, log_probs)
    expected = -advantage * ratio if has_gradient else 0.0
    assert gradient.item() == pytest.approx(expected)


def test_a_factorised_policy_is_clipped_per_dimension_of_the_action():
    """The ratios 1.5 and 0.5 have the product 0.75, but each is clipped for itself."""
    log_probs = torch.tensor([[[1.5, 0.5]]], dtype=torch.float64).log()  # [1, 1, A]
    batch = make_batch(row(1.0), torch.zeros(1, 1, 2).double())
    _, info = PPO(0.2, 0.5, 0.0).loss(0, batch, output(log_probs))
    assert info["action"].item() == pytest.approx(-(1.2 + 0.5) / 2)


def test_reported_numbers_carry_no_graph():
    log_probs = torch.zeros(2, 2, requires_grad=True)
    values = torch.zeros(2, 2, 1, requires_grad=True)
    batch = make_batch(torch.ones(2, 2, 1), torch.zeros(2, 2), returns=torch.ones(2, 2, 1))
    for loss in (PPO(**PPOConfig), A2C(**A2CConfig), PPOValue(0.1)):
        value, info = loss.loss(0, batch, output(log_probs, values))
        assert value.requires_grad
        assert not any(number.requires_grad for number in info.values())


def test_a2c_by_hand():
    batch = make_batch(row(1.0, -2.0), torch.zeros(1, 2).double(), returns=row(1.0, 3.0))
    out = output(torch.tensor([[-0.5, -1.5]]).double(), values=row(0.0, 1.0), entropy=0.7)
    loss, info = A2C(**A2CConfig).loss(0, batch, out)  # advantages as they are: 2 * 1 + 1 = 3 and -3
    action = (3 * 0.5 - 3 * 1.5) / 2
    value = 0.5 * (1 + 4) / 2
    total = action + 0.5 * value - 0.01 * 0.7
    assert {"a2c_total": total, "value": value, "action": action, "entropy": -0.7} == numbers(info)
    assert loss.item() == pytest.approx(total)


def test_acktr_is_a2c_under_another_name(single_element):
    batch, out = single_element
    ours, info = ACKTR(**A2CConfig).loss(0, batch, out)
    theirs, _ = A2C(**A2CConfig).loss(0, batch, out)
    assert ours.item() == theirs.item() == info["aktr_total"].item()


@pytest.mark.parametrize("make", [lambda: PPO(**PPOConfig, show_ratios=True), lambda: A2C(**A2CConfig)])
def test_the_loss_of_each_step_sums_to_the_loss(make):
    """Projects weigh steps themselves: they call `loss_per_step` of the loss they build on."""
    torch.manual_seed(0)
    distr = CategoricalDistr(logits=torch.randn(5, 3, 4))
    actions = torch.randint(4, (5, 3))
    batch = make_batch(torch.randn(5, 3, 1), distr.log_prob(actions) + 0.3, actions=actions)
    batch.update(values=torch.randn(5, 3, 1), returns=torch.randn(5, 3, 1))
    out = ActorCriticOutput(distr, torch.randn(5, 3, 1), {})

    per_step = make().loss_per_step(step_count=0, batch=batch, actor_critic_output=out)
    terms, ratios = per_step if isinstance(per_step, tuple) else (per_step, {})
    assert {name: (term.shape, weight) for name, (term, weight) in terms.items()} == {
        "value": ((5, 3, 1), 0.5),
        "action": ((5, 3, 1), None),
        "entropy": ((5, 3, 1), 0.01),
    }
    assert all(ratio.shape == (5, 3, 1) for ratio in ratios.values())
    loss, info, *rest = make().loss(step_count=0, batch=batch, actor_critic_output=out)
    for name, (term, _) in terms.items():
        torch.testing.assert_close(info[name], term.mean())
    total = sum(term.mean() * (1 if weight is None else weight) for term, weight in terms.values())
    torch.testing.assert_close(loss, total)
    assert [set(ratios)] == [set(per_epoch) for per_epoch in rest] if rest else not ratios


def test_a_subclass_may_change_the_loss_of_each_step(single_element):
    class WithoutEntropy(PPO):
        def loss_per_step(self, *args, **kwargs):
            terms, ratios = super().loss_per_step(*args, **kwargs)
            return {name: term for name, term in terms.items() if name != "entropy"}, ratios

    batch, out = single_element
    loss, info = WithoutEntropy(**PPOConfig).loss(step_count=0, batch=batch, actor_critic_output=out)
    assert loss.item() == pytest.approx(-1.65 + 0.5 * 0.18)
    assert set(info) == {"ppo_total", "value", "action"}


@pytest.mark.parametrize(
    "make",
    [
        lambda **extra: PPO(**PPOConfig, **extra),
        lambda **extra: PPOValue(0.1, **extra),
        lambda **extra: A2C(**A2CConfig, **extra),
        lambda **extra: ACKTR(**A2CConfig, **extra),
        Imitation,
        lambda **extra: GroupedActionImitation(2, [{0}, {1}], **extra),
    ],
)
def test_unknown_arguments_are_named_and_ignored(make, caplog, monkeypatch):
    monkeypatch.setattr("allenact.utils.system._warned", set())
    monkeypatch.setattr(logging.getLogger("allenact"), "propagate", True)
    make(use_clipped_value_los=True)
    make(use_clipped_value_los=True)
    (warning,) = [record.getMessage() for record in caplog.records if "ignores" in record.getMessage()]
    assert "ignores the argument use_clipped_value_los." in warning
