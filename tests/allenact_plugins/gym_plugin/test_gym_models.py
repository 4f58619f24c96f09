"""MemorylessActorCritic and GaussianDistr."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, ReparameterizedPolicy
from allenact.base_abstractions.distributions import Distr
from allenact.errors import SpaceMismatchError
from allenact_plugins.gym_plugin.gym_distributions import ActionNoise, GaussianDistr
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic

OBSERVATIONS = Dict({"state": Box(-1.0, 1.0, (5,), "float32"), "image": Box(0, 255, (8, 8, 3), "uint8")})


def model(**kwargs):
    return MemorylessActorCritic("state", Box(-3.0, 3.0, (2,), "float32"), OBSERVATIONS, **kwargs)


def call(net, steps=3, samplers=4):
    observations = {"state": torch.randn(steps, samplers, 5)}
    masks = torch.ones(steps, samplers, 1)
    return net(observations=observations, memory=None, prev_actions=None, masks=masks), observations["state"]


def test_shapes_and_values():
    net = model()
    (output, memory), states = call(net)
    assert isinstance(net, ActorCriticModel)
    assert memory is None
    assert net.recurrent_memory_specification is None
    assert output.values.shape == (3, 4, 1)
    distribution = output.distributions
    assert distribution.sample().shape == distribution.mode().shape == (3, 4, 2)
    torch.testing.assert_close(distribution.mode(), net.actor(states))
    torch.testing.assert_close(output.values, net.critic(states))
    assert (distribution.mode().abs() <= 1).all()
    assert (distribution.stddev == 0.5).all()
    assert output.extras == {}


def test_state_dict_keys():
    """Checkpoints of AllenAct name their parameters like this."""
    shapes = {name: tuple(value.shape) for name, value in model().state_dict().items()}
    assert shapes == {
        "actor.0.weight": (64, 5),
        "actor.0.bias": (64,),
        "actor.2.weight": (32, 64),
        "actor.2.bias": (32,),
        "actor.4.weight": (2, 32),
        "actor.4.bias": (2,),
        "critic.0.weight": (64, 5),
        "critic.0.bias": (64,),
        "critic.2.weight": (32, 64),
        "critic.2.bias": (32,),
        "critic.4.weight": (1, 32),
        "critic.4.bias": (1,),
    }


@pytest.mark.parametrize("dims", [(), (7,), (9, 8, 7)])
def test_any_hidden_sizes(dims):
    net = model(mlp_hidden_dims=dims, action_std=0.1)
    (output, _), _ = call(net)
    assert output.distributions.mode().shape == (3, 4, 2)
    assert output.distributions.stddev[0, 0, 0].item() == pytest.approx(0.1)
    sizes = [layer.out_features for layer in net.critic if isinstance(layer, torch.nn.Linear)]
    assert sizes == [*dims, 1]


def test_actor_and_critic_share_nothing():
    net = model()
    (output, _), _ = call(net)
    output.values.sum().backward()
    assert all(parameter.grad is None for parameter in net.actor.parameters())
    assert all(parameter.grad is not None for parameter in net.critic.parameters())


@pytest.mark.parametrize(
    ("uuid", "action_space", "message"),
    [
        ("image", Box(-1, 1, (2,), "float32"), 'observation "image" is none'),
        ("state", Discrete(3), r"(?s)one of 3 choices.*own_environment_tutorial"),
        ("state", MultiBinary(3), "the action is none"),
        ("state", Box(-1, 1, (2, 2), "float32"), "the action is none"),
    ],
)
def test_only_vectors(uuid, action_space, message):
    with pytest.raises(SpaceMismatchError, match=message):
        MemorylessActorCritic(uuid, action_space, OBSERVATIONS)


def test_gaussian_against_its_formula():
    distribution = GaussianDistr(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 0.5]]]))
    assert isinstance(distribution, Distr)
    log_probs = distribution.log_prob(torch.tensor([[[1.0, 1.0]]]))  # [1, 1, 2]: one for each entry of the action
    expected = [-0.5 - 0.5 * math.log(2 * math.pi), -2.0 - math.log(0.5) - 0.5 * math.log(2 * math.pi)]
    assert log_probs[0, 0].tolist() == pytest.approx(expected)
    entropies = [0.5 * math.log(2 * math.pi * math.e) + math.log(scale) for scale in (1.0, 0.5)]
    assert distribution.entropy()[0, 0].tolist() == pytest.approx(entropies)
    assert distribution.mode().tolist() == [[[0.0, 2.0]]]


def test_a_uuid_that_nobody_observes():
    with pytest.raises(SpaceMismatchError, match='did you mean "state"'):
        MemorylessActorCritic("stat", Box(-3.0, 3.0, (2,), "float32"), OBSERVATIONS)


@pytest.mark.parametrize(("samplers", "size"), [(8, 8), (2, 8), (3, 2), (1, 1), (16, 3), (5, 7)])
def test_noise_is_what_torch_draws_step_by_step(samplers, size):
    """Also where a step's numbers are no multiple of the 16 that torch transforms together."""
    torch.manual_seed(3)
    rollouts = [ActionNoise(100, size) for _ in range(2)]
    drawn = np.stack([noise.draw(samplers) for noise in rollouts for _ in range(100)])
    torch.manual_seed(3)
    expected = torch.stack([torch.empty(samplers, size).normal_() for _ in range(200)])
    np.testing.assert_array_equal(drawn, expected.numpy())


def test_the_standard_deviation_of_a_derived_model_may_be_learned():
    actor_critic = model()
    std = torch.nn.Parameter(actor_critic.action_std.clone())
    del actor_critic.action_std
    actor_critic.action_std = std
    policy = actor_critic.make_rollout_policy(4)
    assert isinstance(policy, ReparameterizedPolicy)
