"""Networks built from sizes, and what is computed with them."""

import pytest
import torch
from torch import nn

from allenact.errors import ExperimentConfigError
from allenact.utils import model_utils as u

LAYERS = {
    "layer_channels": [4, 6],
    "kernel_sizes": [(3, 3), (2, 2)],
    "strides": [(2, 2), (1, 1)],
    "paddings": [(0, 0), (0, 0)],
    "dilations": [(1, 1), (1, 1)],
}


def test_make_cnn_names_and_sizes():
    net = u.make_cnn(3, **LAYERS, output_height=3, output_width=3, output_channels=5)
    assert [name for name, _ in net.named_children()] == ["conv_0", "relu_0", "conv_1", "flatten", "fc", "out_relu"]
    out = net(torch.randn(2, 3, 9, 9))
    assert out.shape == (2, 5)
    assert out.min() >= 0
    body = u.make_cnn(3, **LAYERS, output_height=3, output_width=3, output_channels=5, flatten=False, output_relu=False)
    assert [name for name, _ in body.named_children()] == ["conv_0", "relu_0", "conv_1"]
    assert body(torch.randn(2, 3, 9, 9)).shape == (2, 6, 3, 3)


def test_make_cnn_refuses_lists_of_different_lengths():
    with pytest.raises(ExperimentConfigError, match="different lengths"):
        u.make_cnn(3, **{**LAYERS, "strides": [(1, 1)]}, output_height=3, output_width=3, output_channels=5)


@pytest.mark.parametrize("leading", [(2, 3), (2, 3, 4)])
def test_cnn_output_equals_image_by_image(leading):
    torch.manual_seed(0)
    net = u.make_cnn(3, **LAYERS, output_height=3, output_width=3, output_channels=5)
    images = torch.randn(*leading, 9, 9, 3)
    output = u.compute_cnn_output(net, images)
    assert output.shape == (*leading, 5)
    last = tuple(n - 1 for n in leading)
    single = net(images[last].permute(2, 0, 1).unsqueeze(0))
    torch.testing.assert_close(output[last], single[0])


def test_cnn_output_without_permutation_keeps_channels_first():
    net = nn.Conv2d(3, 2, 1)
    assert u.compute_cnn_output(net, torch.randn(1, 2, 3, 4, 5), permute_order=None).shape == (1, 2, 2, 4, 5)


def test_grad_norm_is_the_norm_of_all_gradients_together():
    a, b, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert u.grad_norm([a, b, unused]) == pytest.approx(5.0)
    assert u.grad_norm([a, b], norm_type=1) == pytest.approx(7.0)
    assert u.grad_norm(a) == pytest.approx(3.0)
    assert u.grad_norm([unused]) == 0
    assert u.grad_norm(p for p in (a, b)) == torch.nn.utils.clip_grad_norm_([a, b], 1e9)


def test_init_linear_layer():
    layer = u.init_linear_layer(nn.Linear(4, 4), nn.init.orthogonal_, lambda b: nn.init.constant_(b, 0.5), gain=2)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(4))
    assert layer.bias.tolist() == [0.5] * 4


def test_simple_initialisation_bounds_weights_and_clears_biases():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, (5, 5)), nn.Linear(10, 20), nn.Linear(3, 3, bias=False), nn.ReLU())
    net.apply(u.simple_conv_and_linear_weights_init)
    conv, linear = net[0], net[1]
    conv_bound = (6 / (2 * 25 + 3 * 25)) ** 0.5
    linear_bound = (6 / 30) ** 0.5
    assert 0.9 * conv_bound < conv.weight.abs().max() <= conv_bound
    assert 0.9 * linear_bound < linear.weight.abs().max() <= linear_bound
    assert conv.bias.abs().max() == linear.bias.abs().max() == 0

    before = conv.weight.clone()
    net.apply(u.simple_linear_weights_init)
    assert torch.equal(conv.weight, before)


def test_feature_embedding_may_be_empty():
    indices = torch.tensor([[1, 2, 0]])
    embedding = u.FeatureEmbedding(3, 4)
    assert list(embedding.state_dict()) == ["fc.weight"]
    assert torch.equal(embedding(indices), embedding.fc.weight[indices])
    empty = u.FeatureEmbedding(3, 0)(indices)
    assert empty.shape == (1, 3, 0)
    assert torch.equal(torch.cat([empty, torch.ones(1, 3, 2)], dim=-1), torch.ones(1, 3, 2))


def test_flatten_keeps_the_batch():
    assert u.Flatten()(torch.arange(12).reshape(2, 3, 2)).tolist() == [list(range(6)), list(range(6, 12))]


def test_state_dict_hash_sees_values_names_and_types_but_not_order():
    state = {"a": torch.arange(3.0), "b": torch.tensor(2)}
    same = {"b": torch.tensor(2), "a": torch.arange(3.0)}
    assert u.md5_hash_of_state_dict(state) == u.md5_hash_of_state_dict(same)
    for changed in (
        {**state, "b": torch.tensor(3)},
        {"a": state["a"], "c": state["b"]},
        {**state, "a": torch.arange(3.0).double()},
        {**state, "a": torch.arange(3.0).reshape(3, 1)},
    ):
        assert u.md5_hash_of_state_dict(changed) != u.md5_hash_of_state_dict(state)
