"""RNNStateEncoder: one pass over a rollout equals stepping through it."""

import random

import pytest
import torch

from allenact.embodiedai.models.basic_models import RNNStateEncoder


def step_by_step(encoder, x, hidden, masks):
    """The definition: reset where the mask says so, then take one step of torch's own network."""
    outputs = []
    for t in range(len(x)):
        initial = 0.0 if encoder.init_hidden_state is None else encoder.init_hidden_state
        parts = hidden.chunk(2) if isinstance(encoder.rnn, torch.nn.LSTM) else (hidden,)
        parts = [torch.where(masks[t].reshape(1, -1, 1) == 0, initial, part).contiguous() for part in parts]
        out, state = encoder.rnn(x[t : t + 1], tuple(parts) if len(parts) == 2 else parts[0])
        hidden = torch.cat(state) if isinstance(state, tuple) else state
        outputs.append(out)
    return torch.cat(outputs), hidden


@pytest.mark.parametrize("seed", range(60))
def test_one_pass_equals_stepping(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    steps, samplers = rng.choice([1, 2, 3, 7, 20]), rng.choice([1, 2, 3, 6])
    encoder = RNNStateEncoder(
        input_size=rng.choice([1, 4]),
        hidden_size=rng.choice([1, 5]),
        num_layers=rng.choice([1, 2]),
        rnn_type=rng.choice(["GRU", "LSTM", "RNN"]),
        trainable_masked_hidden_state=rng.random() < 0.5,
    ).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(steps, samplers, encoder.rnn.input_size, dtype=torch.float64)
    hidden = torch.randn(encoder.num_recurrent_layers, samplers, encoder.rnn.hidden_size, dtype=torch.float64)
    masks = (torch.rand(steps, samplers, 1) < rng.choice([0.0, 0.5, 0.9, 1.0])).double()

    results = []
    for run in (encoder, lambda *args: step_by_step(encoder, *args)):
        inputs = x.clone().requires_grad_()
        outputs, state = run(inputs, hidden, masks)
        encoder.zero_grad()
        (outputs.square().sum() + state.sum()).backward()
        gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        results.append([outputs, state, inputs.grad, *gradients])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_rollout_can_be_cut_anywhere():
    torch.manual_seed(0)
    encoder = RNNStateEncoder(3, 4, rnn_type="LSTM")
    x, hidden, masks = torch.randn(9, 2, 3), torch.randn(2, 2, 4), (torch.rand(9, 2, 1) > 0.3).float()
    whole, end = encoder(x, hidden, masks)
    first, middle = encoder(x[:4], hidden, masks[:4])
    second, end_of_second = encoder(x[4:], middle, masks[4:])
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(end_of_second, end)


@pytest.mark.parametrize("steps", [1, 5])
def test_agents_are_independent(steps):
    torch.manual_seed(0)
    encoder = RNNStateEncoder(3, 4)
    x, hidden = torch.randn(steps, 2, 3, 3), torch.randn(1, 2, 3, 4)  # [T, N, agents, D], [L, N, agents, H]
    masks = (torch.rand(steps, 2, 1) > 0.3).float()
    outputs, state = encoder(x, hidden, masks)
    assert outputs.shape == (steps, 2, 3, 4)
    assert state.shape == hidden.shape
    for agent in range(3):
        alone, alone_state = encoder(x[:, :, agent], hidden[:, :, agent], masks)
        torch.testing.assert_close(outputs[:, :, agent], alone)
        torch.testing.assert_close(state[:, :, agent], alone_state)


def test_an_episode_starts_from_the_learned_state():
    encoder = RNNStateEncoder(3, 4, num_layers=2, rnn_type="LSTM", trainable_masked_hidden_state=True)
    x, masks = torch.randn(2, 1, 3), torch.zeros(2, 1, 1)
    ignored, _ = encoder(x, torch.full((4, 1, 4), 100.0), masks)
    expected, _ = encoder(x, encoder.init_hidden_state.repeat(2, 1, 1), torch.tensor([1.0, 0.0]).reshape(2, 1, 1))
    torch.testing.assert_close(ignored, expected)


def test_state_dict_and_initialisation():
    encoder = RNNStateEncoder(3, 4, trainable_masked_hidden_state=True)
    assert set(encoder.state_dict()) == {
        "init_hidden_state",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "rnn.bias_ih_l0",
        "rnn.bias_hh_l0",
    }
    assert encoder.init_hidden_state.shape == (1, 1, 4)
    assert 0 < encoder.init_hidden_state.abs().max() < 1
    assert encoder.rnn.bias_ih_l0.abs().max() == 0
    weight = encoder.rnn.weight_hh_l0  # [3 * H, H]
    torch.testing.assert_close(weight.t() @ weight, torch.eye(4), atol=1e-5, rtol=0)
    assert set(RNNStateEncoder(3, 4).state_dict()) == set(encoder.state_dict()) - {"init_hidden_state"}
    assert RNNStateEncoder(3, 4, num_layers=2, rnn_type="LSTM").num_recurrent_layers == 4
