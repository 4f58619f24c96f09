"""SimpleCNN and the small actor-critics: shapes, names of parameters, memory."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.base_abstractions.misc import Memory
from allenact.embodiedai.models.basic_models import LinearActorCritic, RNNActorCritic, SimpleCNN
from allenact.errors import SpaceMismatchError

SPACES = gym.spaces.Dict(
    {
        "features": gym.spaces.Box(-1, 1, (6,), np.float32),
        "rgb": gym.spaces.Box(0, 1, (40, 36, 3), np.float32),
        "depth": gym.spaces.Box(0, 1, (40, 36, 1), np.float32),
    }
)
ACTIONS = gym.spaces.Discrete(3)


def run(model, steps=4, samplers=2, memory=None):
    torch.manual_seed(1)
    masks = torch.ones(steps, samplers, 1)
    masks[2:] = 0
    return model(
        observations={"features": torch.randn(steps, samplers, 6)}, memory=memory, prev_actions=None, masks=masks
    )


def test_linear_actor_critic():
    model = LinearActorCritic("features", ACTIONS, SPACES)
    assert set(model.state_dict()) == {"linear.weight", "linear.bias"}
    assert model.linear.weight.shape == (4, 6)
    assert model.recurrent_memory_specification is None
    output, memory = run(model)
    assert memory is None
    assert output.distributions.logits.shape == (4, 2, 3)
    with torch.no_grad():
        model.linear.bias[3] = 7.0  # the value comes last
    assert torch.equal(run(model)[0].values, output.values + 7.0)
    assert torch.equal(run(model)[0].distributions.logits, output.distributions.logits)


@pytest.mark.parametrize(("rnn_type", "layers"), [("GRU", 2), ("LSTM", 4)])
def test_rnn_actor_critic(rnn_type, layers):
    model = RNNActorCritic("features", ACTIONS, SPACES, hidden_size=5, num_layers=2, rnn_type=rnn_type)
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"state_encoder", "ac_nonrecurrent_head"}
    assert "ac_nonrecurrent_head.linear.weight" in model.state_dict()
    assert "state_encoder.init_hidden_state" in model.state_dict()
    assert model.recurrent_memory_specification == {
        "rnn": ((("layer", layers), ("sampler", None), ("hidden", 5)), torch.float32)
    }
    assert (model.num_recurrent_layers, model.recurrent_hidden_state_size) == (layers, 5)
    memory = Memory(rnn=(torch.zeros(layers, 2, 5), 1))
    output, after = run(model, memory=memory)
    assert output.values.shape == (4, 2, 1)
    assert after.tensor("rnn").shape == (layers, 2, 5)
    assert after.tensor("rnn").abs().max() > 0


@pytest.mark.parametrize("memory", [None, Memory()])
def test_missing_memory_is_zero(memory):
    model = RNNActorCritic("features", ACTIONS, SPACES, hidden_size=5)
    ours, _ = run(model, memory=memory)
    expected, _ = run(model, memory=Memory(rnn=(torch.zeros(1, 2, 5), 1)))
    assert torch.equal(ours.values, expected.values)


def test_spaces_that_do_not_fit_are_named():
    with pytest.raises(SpaceMismatchError, match='a vector as observation "rgb"'):
        LinearActorCritic("rgb", ACTIONS, SPACES)
    with pytest.raises(SpaceMismatchError, match='a vector as observation "feature"'):
        RNNActorCritic("feature", ACTIONS, SPACES)
    with pytest.raises(SpaceMismatchError, match="needs discrete actions"):
        LinearActorCritic("features", gym.spaces.Box(-1, 1, (2,)), SPACES)


def images(*leading):
    return {
        "rgb": torch.rand(*leading, 40, 36, 3),
        "depth": torch.rand(*leading, 40, 36, 1),
    }


def test_simple_cnn_concatenates_colour_and_depth():
    model = SimpleCNN(SPACES, output_size=7, rgb_uuid="rgb", depth_uuid="depth")
    layers = ("conv_0", "conv_1", "conv_2", "fc")
    assert set(model.state_dict()) == {
        f"{cnn}.{layer}.{kind}" for cnn in ("rgb_cnn", "depth_cnn") for layer in layers for kind in ("weight", "bias")
    }
    observations = images(3, 2)
    features = model(observations)
    assert features.shape == (3, 2, 14)
    observations["depth"] = torch.zeros_like(observations["depth"])
    assert torch.equal(model(observations)[..., :7], features[..., :7])
    assert not torch.equal(model(observations)[..., 7:], features[..., 7:])
    assert model(images(3, 2, 4)).shape == (3, 2, 4, 14)


def test_simple_cnn_without_flattening():
    model = SimpleCNN(SPACES, output_size=7, rgb_uuid="rgb", depth_uuid="depth", flatten=False, output_relu=False)
    height, width = model.rgb_cnn(torch.rand(1, 3, 40, 36)).shape[-2:]
    assert model(images(3, 2)).shape == (3, 2, 64, height, width)


def test_a_blind_cnn_returns_nothing():
    model = SimpleCNN(SPACES, output_size=7, rgb_uuid=None, depth_uuid=None)
    assert model.is_blind
    assert model(images(1, 1)) is None


def test_simple_cnn_needs_images():
    with pytest.raises(ValueError, match=r'"features" has \(6,\)'):
        SimpleCNN(SPACES, output_size=7, rgb_uuid="features", depth_uuid=None)
