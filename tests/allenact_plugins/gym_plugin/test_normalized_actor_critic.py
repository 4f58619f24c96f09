"""NormalizedActorCritic: what it computes, what it remembers, and that NumPy acting is the same."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from allenact.errors import ExperimentConfigError, NonFiniteError, SpaceMismatchError
from allenact_plugins.gym_plugin.gym_distributions import ActionNoise, GaussianDistr, JointGaussianDistr
from allenact_plugins.gym_plugin.normalized_actor_critic import ACTIVATIONS, NormalizedActorCritic

OBSERVATIONS = Dict({"state": Box(-1.0, 1.0, (5,), "float32")})
ACTIONS = Box(-1.0, 1.0, (2,), "float32")


def model(**kwargs):
    torch.manual_seed(0)
    return NormalizedActorCritic("state", ACTIONS, OBSERVATIONS, **{"hidden_sizes": (16, 8), **kwargs})


def show(net, observations, returns):
    """A rollout for the statistics; one worker."""
    net.update_statistics({"state": observations}, returns, lambda tensor: tensor)


def call(net, states):
    masks = torch.ones(*states.shape[:2], 1)
    return net(observations={"state": states}, memory=None, prev_actions=None, masks=masks)[0]


@pytest.mark.parametrize(
    "kwargs",
    [
        *({"activation": name} for name in ACTIVATIONS),
        {"shared_torso": False},
        {"normalize_observations": False, "normalize_returns": False},
        {"observation_clip": 0.5, "initial_log_std": -1.0},
        {"hidden_sizes": ()},
        {"joint": False, "learn_std": False},
    ],
)
def test_numpy_acts_like_torch(kwargs):
    net = model(**kwargs)
    show(net, torch.randn(30, 4, 5) * 3 + 1, torch.randn(30, 4, 1))
    states = torch.randn(1, 6, 5) * 4
    policy = net.make_rollout_policy(1)
    torch.manual_seed(1)
    actions = policy({"state": states[0].numpy()})  # [6, 2]
    assert actions.dtype == np.float32
    torch.manual_seed(1)
    distributions = call(net, states).distributions
    expected = distributions.mode()[0] + torch.from_numpy(ActionNoise(1, 2).draw(6)) * distributions.stddev[0]
    np.testing.assert_allclose(actions, expected.detach(), rtol=1e-5, atol=1e-5)


def test_observations_are_normalised_and_clipped():
    net, plain = model(observation_clip=1.5), model(normalize_observations=False)
    states = torch.randn(40, 3, 5) * 7 + 2
    show(net, states, torch.zeros(40, 3, 1))
    flat = states.reshape(-1, 5)
    normalised = ((states - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()).clamp(-1.5, 1.5)
    assert (normalised.abs() == 1.5).any()
    torch.testing.assert_close(call(net, states).distributions.mode(), call(plain, normalised).distributions.mode())


def test_values_are_in_units_of_the_reward():
    net, plain = model(), model(normalize_returns=False)
    states, returns = torch.randn(20, 2, 5), torch.randn(20, 2, 1) * 50 + 300
    show(net, states, returns)
    show(plain, states, returns)
    scale = returns.std(unbiased=False)
    output = call(net, states)
    torch.testing.assert_close(output.values, call(plain, states).values * scale + returns.mean())
    torch.testing.assert_close(output.extras["value_scale"], scale.reshape(1))
    assert call(plain, states).extras == {}


@pytest.mark.parametrize("shared_torso", [True, False])
def test_values_can_be_kept_while_the_statistics_move(shared_torso):
    net, moving = model(keep_values=True, shared_torso=shared_torso), model(shared_torso=shared_torso)
    states = torch.randn(20, 2, 5)
    for each in (net, moving):
        each.observation_moments = None
    before = call(net, states).values
    for size in (10, 1000):
        for each in (net, moving):
            show(each, states, torch.randn(20, 2, 1) * size + size)
    torch.testing.assert_close(call(net, states).values, before, rtol=1e-4, atol=1e-4)
    assert (call(moving, states).values - before).abs().min() > 1


def test_statistics_are_saved_and_stand_still_when_it_only_runs():
    net = model()
    show(net, torch.randn(20, 2, 5), torch.randn(20, 2, 1))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert {"observation_moments.mean", "return_moments.variance", "log_std"} <= set(state)
    for training in (True, False):
        net.train(training)
        call(net, torch.randn(3, 2, 5) + 9)
        net.make_rollout_policy(1)({"state": np.ones((1, 5), np.float32)})
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    other = model(initial_log_std=1.0)
    other.load_state_dict(state)
    states = torch.randn(3, 2, 5)
    assert torch.equal(call(net, states).values, call(other, states).values)


def test_the_statistics_take_nothing_that_is_infinite():
    net, states, returns = model(), torch.randn(20, 2, 5), torch.randn(20, 2, 1)
    states[3, 1, 4] = returns[5, 0] = math.inf
    assert torch.isfinite(call(net, states).values).all(), "the clipping hides it"
    with pytest.raises(NonFiniteError, match=r'sensor "state" cannot be normalised(.|\n)*entries \[4\] of 5'):
        show(net, states, torch.zeros(20, 2, 1))
    with pytest.raises(NonFiniteError, match="returns cannot be normalised"):
        show(net, torch.zeros(20, 2, 5), returns)
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


@pytest.mark.parametrize(("over", "bound", "direction"), [(1.5, 0.5, 1), (-3.0, -1.0, -1)])
def test_the_standard_deviation_stays_within_bounds_and_comes_back(over, bound, direction):
    net = model(initial_log_std=-0.5, log_std_range=[-1, 0.5])
    states = torch.zeros(1, 1, 5)
    inside = call(net, states).distributions.stddev
    assert torch.equal(inside, net.log_std.exp().expand(1, 1, 2)), "within the bounds nothing is changed, to the bit"
    optimizer = torch.optim.SGD([net.log_std], lr=0.1)
    net.log_std.data.fill_(over)  # a step has gone too far
    for _ in range(30):
        stddev = call(net, states).distributions.stddev
        if net.log_std[0] * direction > bound * direction:
            assert torch.equal(stddev, torch.full((2,), bound).exp().expand(1, 1, 2))
        optimizer.zero_grad()
        (direction * stddev.log().sum()).backward()
        optimizer.step()
    assert (net.log_std * direction < bound * direction).all()
    assert (call(net, states).distributions.stddev.log() * direction < bound * direction).all()


def test_the_standard_deviation_can_stand_still():
    for learn_std in (True, False):
        net = model(learn_std=learn_std, initial_log_std=-0.5)
        distribution = call(net, torch.randn(3, 2, 5)).distributions
        assert distribution.stddev.unique().item() == pytest.approx(math.exp(-0.5))
        distribution.log_prob(torch.randn(3, 2, 2)).sum().backward()
        assert (net.log_std.grad is not None) == learn_std
        assert "log_std" in net.state_dict(), "checkpoints have the same entries"


def test_there_is_a_probability_for_each_action_or_for_each_entry():
    states, actions = torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    joint, single = call(model(), states).distributions, call(model(joint=False), states).distributions
    assert [type(joint), type(single)] == [JointGaussianDistr, GaussianDistr]
    assert single.log_prob(actions).shape == (3, 4, 2)
    torch.testing.assert_close(joint.log_prob(actions), single.log_prob(actions).sum(-1))


def test_initialisations():
    orthogonal = model(initialisation="orthogonal", hidden_sizes=(8, 8))
    for layer, gain in ((orthogonal.torso[2], math.sqrt(2)), (orthogonal.mean_head, 0.01), (orthogonal.value_head, 1)):
        product = layer.weight @ layer.weight.T
        torch.testing.assert_close(product, gain**2 * torch.eye(len(product)))
    biases = [value for name, value in orthogonal.named_parameters() if name.endswith("bias")]
    biases += [value for name, value in model().named_parameters() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)
    assert model(initialisation="default").mean_head.bias.all()


def test_what_it_refuses():
    with pytest.raises(ExperimentConfigError, match='did you mean "tanh"'):
        model(activation="tahn")
    with pytest.raises(ExperimentConfigError, match='did you mean "orthogonal"'):
        model(initialisation="ortogonal")
    for initial in (-5.1, 2.1, math.nan):
        with pytest.raises(ExperimentConfigError, match=r"out of its range(.|\n)*log_std_range=\(-5.0, 2.0\)"):
            model(initial_log_std=initial)
    with pytest.raises(SpaceMismatchError, match=r"(?s)one of 3 choices.*CategoricalDistr"):
        NormalizedActorCritic("state", Discrete(3), OBSERVATIONS)
    with pytest.raises(SpaceMismatchError, match='did you mean "state"'):
        NormalizedActorCritic("stat", ACTIONS, OBSERVATIONS)


def test_the_joint_gaussian_adds_up_its_entries():
    loc, scale = torch.randn(3, 4, 2), torch.tensor([0.5, 2.0])
    joint, single = JointGaussianDistr(loc, scale), GaussianDistr(loc, scale)
    actions = joint.sample()
    assert actions.shape == (3, 4, 2)
    assert torch.equal(joint.mode(), loc)
    reference = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
    torch.testing.assert_close(joint.log_prob(actions), reference.log_prob(actions))
    torch.testing.assert_close(joint.entropy(), reference.entropy())
    torch.testing.assert_close(joint.log_prob(actions), single.log_prob(actions).sum(-1))
    assert joint.expand((5, 3, 4, 2)).log_prob(actions).shape == (5, 3, 4)
