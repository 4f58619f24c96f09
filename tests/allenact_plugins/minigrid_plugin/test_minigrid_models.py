import gymnasium as gym
import pytest
import torch

from allenact.base_abstractions.misc import Memory
from allenact.errors import SpaceMismatchError
from allenact.utils.misc_utils import prepare_locals_for_super
from allenact_plugins.minigrid_plugin.minigrid_models import (
    MiniGridSimpleConv,
    MiniGridSimpleConvBase,
    MiniGridSimpleConvRNN,
)

T, N, VIEW, HIDDEN = 4, 3, 5, 16
COUNTS = {"num_objects": 11, "num_colors": 6, "num_states": 3}


def space(*shape):
    return gym.spaces.Dict({"minigrid_ego_image": gym.spaces.Box(0, 10, shape, int)})


def make_model(model_class, channels=3, view=VIEW, **kwargs):
    torch.manual_seed(0)
    options = {**COUNTS, **kwargs}
    return model_class(action_space=gym.spaces.Discrete(3), observation_space=space(view, view, channels), **options)


def make_view(channels=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 3, (T, N, VIEW, VIEW, channels), dtype=torch.uint8, generator=generator)


def run(model, view, memory=None, masks=None):
    masks = torch.ones(*view.shape[:2], 1) if masks is None else masks
    return model(observations={"minigrid_ego_image": view}, memory=memory, prev_actions=None, masks=masks)


def zero_memory(num_layers=1):
    return Memory(rnn=(torch.zeros(num_layers, N, HIDDEN), 1))


def test_memoryless_model():
    model = make_model(MiniGridSimpleConv)
    assert model.recurrent_memory_specification is None
    output, memory = run(model, make_view())
    assert memory is None
    assert output.distributions.logits.shape == (T, N, 3)
    assert output.values.shape == (T, N, 1)
    assert set(model.state_dict()) == {
        "object_embedding.weight",
        "color_embedding.weight",
        "state_embedding.weight",
        "actor_critic.linear.weight",
        "actor_critic.linear.bias",
    }
    assert model.actor_critic.linear.weight.shape == (4, VIEW * VIEW * 3 * 8)


def test_recurrent_model():
    model = make_model(MiniGridSimpleConvRNN, hidden_size=HIDDEN)
    specification = model.recurrent_memory_specification
    assert specification == {"rnn": ((("layer", 1), ("sampler", None), ("hidden", HIDDEN)), torch.float32)}
    assert (model.num_recurrent_layers, model.recurrent_hidden_state_size) == (1, HIDDEN)
    output, memory = run(model, make_view(), zero_memory())
    assert output.distributions.logits.shape == (T, N, 3)
    assert output.values.shape == (T, N, 1)
    assert memory.tensor("rnn").shape == (1, N, HIDDEN)
    assert set(model.state_dict()) == {
        "object_embedding.weight",
        "color_embedding.weight",
        "state_embedding.weight",
        "actor_critic.state_encoder.init_hidden_state",
        *(f"actor_critic.state_encoder.rnn.{kind}_{way}h_l0" for kind in ("weight", "bias") for way in "ih"),
        "actor_critic.ac_nonrecurrent_head.linear.weight",
        "actor_critic.ac_nonrecurrent_head.linear.bias",
    }


def test_lstm_keeps_hidden_and_cell():
    model = make_model(MiniGridSimpleConvRNN, hidden_size=HIDDEN, rnn_type="LSTM")
    assert model.recurrent_memory_specification["rnn"][0][0] == ("layer", 2)
    assert run(model, make_view(), zero_memory(2))[1].tensor("rnn").shape == (2, N, HIDDEN)


def test_one_pass_equals_single_steps():
    model = make_model(MiniGridSimpleConvRNN, hidden_size=HIDDEN)
    view, masks = make_view(), torch.ones(T, N, 1)
    masks[0], masks[2, 1] = 0, 0
    whole, _ = run(model, view, zero_memory(), masks)
    memory = zero_memory()
    for t in range(T):
        step, memory = run(model, view[t : t + 1], memory, masks[t : t + 1])
        torch.testing.assert_close(step.values[0], whole.values[t])


def test_embeddings_of_each_cell_lie_next_to_each_other():
    model = make_model(MiniGridSimpleConv, object_embedding_dim=2)
    view = make_view()
    embedded = model.embed(view)
    assert embedded.shape == (T, N, VIEW * VIEW * 3 * 2)
    cells = embedded.view(T, N, VIEW, VIEW, 3, 2)
    tables = (model.object_embedding, model.color_embedding, model.state_embedding)
    for channel, table in enumerate(tables):
        expected = table.weight[view[1, 2, 3, 4, channel].long()]
        torch.testing.assert_close(cells[1, 2, 3, 4, channel], expected)


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"num_colors": 0, "num_states": 0}, {"object_embedding"}),
        ({"num_states": 0}, {"object_embedding", "color_embedding"}),
    ],
)
def test_fewer_channels(counts, names):
    model = make_model(MiniGridSimpleConv, channels=len(names), **counts)
    assert {name.split(".")[0] for name in model.state_dict()} == names | {"actor_critic"}
    assert run(model, make_view(channels=len(names)))[0].values.shape == (T, N, 1)


@pytest.mark.parametrize(
    ("shape", "counts"), [((5, 5, 2), {}), ((5, 4, 3), {}), ((2, 2, 3), {}), ((5, 5, 3), {"num_states": 0})]
)
def test_views_that_do_not_fit_are_refused(shape, counts):
    with pytest.raises(SpaceMismatchError, match="square view"):
        MiniGridSimpleConv(gym.spaces.Discrete(3), space(*shape), **{**COUNTS, **counts})


def test_experiments_may_put_their_own_model_behind_the_embeddings():
    class Own(MiniGridSimpleConvBase):
        def __init__(
            self, action_space, observation_space, num_objects, num_colors, num_states, hidden_size=7, **kwargs
        ):
            super().__init__(**prepare_locals_for_super(locals()))
            size = VIEW * VIEW * 3 * self.object_embedding_dim
            self.actor_critic = make_model(MiniGridSimpleConv).actor_critic
            assert self.actor_critic.input_uuid == self.ac_key == "enc"
            assert self.actor_critic.linear.in_features == size

        def _recurrent_memory_specification(self):
            return None

    assert run(make_model(Own), make_view())[0].values.shape == (T, N, 1)
