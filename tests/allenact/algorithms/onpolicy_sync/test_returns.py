"""Returns and advantages against closed forms and against sums written from the definition."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync.returns import (
    advantage_stats,
    discounted_returns,
    gae,
    normalize_advantages,
)

GAMMA, LAMBDA = 0.99, 0.95


def column(*numbers):
    return torch.tensor(numbers).reshape(-1, 1, 1)  # [T, 1, 1]


@pytest.fixture
def worked_example():
    """One sampler, four steps, an episode that ends after the second."""
    rewards = column(1.0, 0.0, 2.0, -1.0)
    values = column(0.5, 0.2, 0.3, 0.1, 0.4)
    masks = column(1.0, 1.0, 0.0, 1.0, 1.0)
    return rewards, values, masks


def random_rollout(steps, samplers, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(steps, samplers, 1, generator=generator, dtype=torch.float64)
    values = torch.randn(steps + 1, samplers, 1, generator=generator, dtype=torch.float64)
    masks = (torch.rand(steps + 1, samplers, 1, generator=generator) > 0.3).double()
    return rewards, values, masks


def test_gae_of_the_worked_example(worked_example):
    advantages = gae(*worked_example, gamma=GAMMA, gae_lambda=LAMBDA)
    torch.testing.assert_close(advantages, column(0.5099, -0.2, 1.136888, -0.704))
    returns = advantages + worked_example[1][:-1]
    torch.testing.assert_close(returns, column(1.0099, 0.0, 1.436888, -0.604), atol=1e-6, rtol=1e-5)


def test_normalised_advantages_of_the_worked_example(worked_example):
    normalised = normalize_advantages(gae(*worked_example, gamma=GAMMA, gae_lambda=LAMBDA))
    torch.testing.assert_close(normalised, column(0.402099, -0.478368, 1.179734, -1.103465))


def test_discounted_returns_of_the_worked_example(worked_example):
    rewards, values, masks = worked_example
    returns = discounted_returns(rewards, values[-1], masks, gamma=GAMMA)
    torch.testing.assert_close(returns, column(1.0, 0.0, 1.40204, -0.604, 0.4), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 2, 7, 16, 33])
def test_gae_equals_the_double_sum(steps, seed):
    rewards, values, masks = random_rollout(steps, 3, seed)
    expected = torch.zeros_like(rewards)
    for n in range(3):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                delta = rewards[k, n] + GAMMA * values[k + 1, n] * masks[k + 1, n] - values[k, n]
                expected[t, n] += weight * delta
                weight *= GAMMA * LAMBDA * masks[k + 1, n].item()
    torch.testing.assert_close(gae(rewards, values, masks, gamma=GAMMA, gae_lambda=LAMBDA), expected)


@pytest.mark.parametrize("steps", [1, 5, 32])
def test_discounted_returns_equal_the_double_sum(steps):
    rewards, values, masks = random_rollout(steps, 3, seed=steps)
    expected = torch.zeros_like(values)
    expected[-1] = values[-1]
    for n in range(3):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                expected[t, n] += weight * rewards[k, n]
                weight *= GAMMA * masks[k + 1, n].item()
            expected[t, n] += weight * values[-1, n]
    returns = discounted_returns(rewards, values[-1:], masks, gamma=GAMMA)
    torch.testing.assert_close(returns, expected)


def test_lambda_one_without_values_gives_the_discounted_return():
    rewards, values, masks = random_rollout(20, 4, seed=0)
    advantages = gae(rewards, torch.zeros_like(values), masks, gamma=GAMMA, gae_lambda=1.0)
    returns = discounted_returns(rewards, torch.zeros(4, 1).double(), masks, gamma=GAMMA)
    torch.testing.assert_close(advantages, returns[:-1])


def test_lambda_zero_gives_the_one_step_error():
    rewards, values, masks = random_rollout(20, 4, seed=1)
    advantages = gae(rewards, values, masks, gamma=GAMMA, gae_lambda=0.0)
    torch.testing.assert_close(advantages, rewards + GAMMA * values[1:] * masks[1:] - values[:-1])


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_the_right_value_of_a_constant_reward_leaves_no_advantage(gae_lambda):
    rewards = torch.full((50, 2, 1), 3.0, dtype=torch.float64)
    values = torch.full((51, 2, 1), 3.0 / (1 - GAMMA), dtype=torch.float64)
    advantages = gae(rewards, values, torch.ones_like(values), gamma=GAMMA, gae_lambda=gae_lambda)
    torch.testing.assert_close(advantages, torch.zeros_like(rewards), atol=1e-10, rtol=0)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_a_termination_cuts_and_a_truncation_bootstraps(gae_lambda):
    """Two samplers end after row 4; only the second is cut by a limit."""
    rewards = torch.ones(10, 2, 1, dtype=torch.float64)
    values = torch.full((11, 2, 1), 1 / (1 - GAMMA), dtype=torch.float64)
    masks = torch.ones_like(values)
    masks[5] = 0
    beyond = torch.zeros_like(rewards)
    beyond[4, 1] = values[0, 1]
    advantages = gae(rewards, values, masks, gamma=GAMMA, gae_lambda=gae_lambda, truncation_values=beyond)
    torch.testing.assert_close(advantages[:, 1], torch.zeros(10, 1).double(), atol=1e-9, rtol=0)
    assert advantages[4, 0].item() == pytest.approx(1 - values[4, 0].item())  # nothing follows a termination
    returns = discounted_returns(rewards, values[-1], masks, gamma=GAMMA, truncation_values=beyond)
    torch.testing.assert_close(returns[:, 1], values[:, 1])
    assert returns[4, 0].item() == 1


def test_inputs_are_left_alone(worked_example):
    copies = [tensor.clone() for tensor in worked_example]
    gae(*worked_example, gamma=GAMMA, gae_lambda=LAMBDA, truncation_values=torch.ones(4, 1, 1))
    assert all(torch.equal(before, after) for before, after in zip(copies, worked_example, strict=True))


def test_advantage_stats_equal_those_of_torch():
    advantages = torch.randn(30, 4, 1)
    stats = advantage_stats(advantages)
    torch.testing.assert_close(stats["mean"], advantages.mean())
    torch.testing.assert_close(stats["std"], advantages.std())


def test_advantage_stats_of_two_workers_are_those_of_all_their_rows():
    ours, theirs = torch.randn(7, 3, 1), torch.randn(5, 3, 1) + 2
    both = torch.cat((ours, theirs))
    sums_of_theirs = iter([torch.stack((theirs.sum(), torch.tensor(15.0))), (theirs - both.mean()).square().sum()])
    stats = advantage_stats(ours, sum_over_workers=lambda tensor: tensor + next(sums_of_theirs))
    torch.testing.assert_close(stats["mean"], both.mean())
    torch.testing.assert_close(stats["std"], both.std())


def test_normalising_equal_advantages_gives_zero():
    assert torch.equal(normalize_advantages(torch.full((1, 1, 1), 4.0)), torch.zeros(1, 1, 1))
    assert torch.equal(normalize_advantages(torch.full((8, 2, 1), 4.0)), torch.zeros(8, 2, 1))
