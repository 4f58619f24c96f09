"""Building blocks of models: convolutional stacks, initialisation, embeddings, gradient norms."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from allenact.errors import ExperimentConfigError


class Flatten(nn.Module):
    """Flattens everything but the batch dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [B, D] for [B, ...]."""
        return x.reshape(x.size(0), -1)  # [B, D]


def init_linear_layer(module: nn.Linear, weight_init: Callable, bias_init: Callable, gain: float = 1) -> nn.Linear:
    """Applies `weight_init(weight, gain=gain)` and `bias_init(bias)` to a layer, and returns the layer."""
    weight_init(module.weight.data, gain=gain)
    bias_init(module.bias.data)
    return module


def grad_norm(parameters: torch.Tensor | Iterable[torch.Tensor], norm_type: float = 2) -> torch.Tensor:
    """Returns the norm of all gradients taken together, as a 0-dimensional tensor; 0 if there are none."""
    parameters = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, norm_type=norm_type)


def make_cnn(
    input_channels: int,
    layer_channels: Sequence[int],
    kernel_sizes: Sequence[tuple[int, int]],
    strides: Sequence[tuple[int, int]],
    paddings: Sequence[tuple[int, int]],
    dilations: Sequence[tuple[int, int]],
    output_height: int,
    output_width: int,
    output_channels: int,
    flatten: bool = True,
    output_relu: bool = True,
) -> nn.Module:
    """Builds convolutions with ReLUs between them, then optionally a linear layer and a last ReLU.

    Args:
        input_channels: channels of the images.
        layer_channels: output channels of each convolution.
        kernel_sizes: of each convolution, (height, width).
        strides: likewise.
        paddings: likewise.
        dilations: likewise.
        output_height: of the last convolution's output, in pixels; needed for the linear layer.
        output_width: likewise.
        output_channels: size of the linear layer's output.
        flatten: whether to flatten and add the linear layer.
        output_relu: whether to end with a ReLU.

    Returns:
        A module from [B, C, H, W] to [B, output_channels], or to [B, C', H', W'] without `flatten`. Its
        children are called `conv_<i>`, `relu_<i>`, `flatten`, `fc` and `out_relu`.
    """
    if len({len(x) for x in (layer_channels, kernel_sizes, strides, paddings, dilations)}) > 1:
        raise ExperimentConfigError(
            "the layers of a convolutional network are described by lists of different lengths.",
            f"layer_channels={layer_channels}, kernel_sizes={kernel_sizes}, strides={strides}, "
            f"paddings={paddings}, dilations={dilations}",
            "give one entry for each convolution in each of them.",
        )
    net = nn.Sequential()
    channels = [input_channels, *layer_channels]
    for i, (kernel, stride, padding, dilation) in enumerate(
        zip(kernel_sizes, strides, paddings, dilations, strict=True)
    ):
        if i > 0:
            net.add_module(f"relu_{i - 1}", nn.ReLU(inplace=True))
        net.add_module(f"conv_{i}", nn.Conv2d(channels[i], channels[i + 1], kernel, stride, padding, dilation))
    if flatten:
        net.add_module("flatten", Flatten())
        net.add_module("fc", nn.Linear(channels[-1] * output_height * output_width, output_channels))
    if output_relu:
        net.add_module("out_relu", nn.ReLU(inplace=True))
    return net


def compute_cnn_output(
    cnn: nn.Module, cnn_input: torch.Tensor, permute_order: tuple[int, ...] | None = (0, 3, 1, 2)
) -> torch.Tensor:
    """Applies a network for batches of images to images with several leading dimensions.

    Args:
        cnn: network for [B, C, H, W].
        cnn_input: [T, N, H, W, C], or [T, N, agents, H, W, C].
        permute_order: how to permute [B, H, W, C] for the network; None leaves the order.

    Returns:
        [T, N, ...] or [T, N, agents, ...], with whatever follows the batch dimension of the network's output.
    """
    leading = cnn_input.shape[:-3]
    images = cnn_input.reshape(-1, *cnn_input.shape[-3:])  # [B, H, W, C]
    if permute_order is not None:
        images = images.permute(*permute_order)  # [B, C, H, W]
    output = cnn(images)
    return output.reshape(*leading, *output.shape[1:])  # [T, N, ...]


def simple_conv_and_linear_weights_init(m: nn.Module) -> None:
    """Initialises a convolution or linear layer: Glorot-uniform weights, zero bias. For `Module.apply`."""
    if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def simple_linear_weights_init(m: nn.Module) -> None:
    """Initialises a linear layer: Glorot-uniform weights, zero bias. For `Module.apply`."""
    if isinstance(m, nn.Linear):
        simple_conv_and_linear_weights_init(m)


class FeatureEmbedding(nn.Module):
    """An embedding of integers, `fc`, that may have size 0.

    Args:
        input_size: number of different integers.
        output_size: size of an embedding; 0 gives an empty output that can be concatenated like any other.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size
        if output_size > 0:
            self.fc = nn.Embedding(input_size, output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns [..., output_size] for integers [...]."""
        if self.output_size > 0:
            return self.fc(inputs)
        return torch.empty(*inputs.shape, 0, device=inputs.device)  # [..., 0]


def md5_hash_of_state_dict(state_dict: Mapping[str, Any]) -> str:
    """Returns a hash of names and values of a model's state; independent of the order of the entries."""
    digest = hashlib.md5()
    for name, value in sorted(state_dict.items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous()
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
