"""SimpleCNN: a few convolutions over colour and depth images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from allenact.base_abstractions.misc import ObservationType
from allenact.utils.model_utils import compute_cnn_output, make_cnn

Pair = tuple[int, int]  # height, width


class SimpleCNN(nn.Module):
    """Features of colour and depth images [T, N, height, width, channels], one network for each kind.

    Args:
        observation_space: contains the spaces of the images.
        output_size: size of the features of each kind of image.
        rgb_uuid: name of the colour images, None if there are none.
        depth_uuid: name of the depth images, None if there are none.
        layer_channels: output channels of each convolution.
        kernel_sizes: of each convolution.
        layers_stride: of each convolution.
        paddings: of each convolution.
        dilations: of each convolution.
        flatten: whether a linear layer follows, so that features are vectors.
        output_relu: whether a ReLU comes last.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        output_size: int,
        rgb_uuid: str | None,
        depth_uuid: str | None,
        layer_channels: Sequence[int] = (32, 64, 32),
        kernel_sizes: Sequence[Pair] = ((8, 8), (4, 4), (3, 3)),
        layers_stride: Sequence[Pair] = ((4, 4), (2, 2), (1, 1)),
        paddings: Sequence[Pair] = ((0, 0), (0, 0), (0, 0)),
        dilations: Sequence[Pair] = ((1, 1), (1, 1), (1, 1)),
        flatten: bool = True,
        output_relu: bool = True,
    ) -> None:
        super().__init__()
        self.rgb_uuid, self.depth_uuid = rgb_uuid, depth_uuid
        self.flatten = flatten

        def build(uuid: str) -> nn.Module:
            height, width, channels = _image_shape(observation_space, uuid)
            for kernel, stride, padding, dilation in zip(kernel_sizes, layers_stride, paddings, dilations, strict=True):
                height, width = conv_output_size((height, width), kernel, stride, padding, dilation)
            cnn = make_cnn(
                input_channels=channels,
                layer_channels=layer_channels,
                kernel_sizes=kernel_sizes,
                strides=layers_stride,
                paddings=paddings,
                dilations=dilations,
                output_height=height,
                output_width=width,
                output_channels=output_size,
                flatten=flatten,
                output_relu=output_relu,
            )
            self.layer_init(cnn)
            return cnn

        if rgb_uuid is not None:
            self.rgb_cnn = build(rgb_uuid)
        if depth_uuid is not None:
            self.depth_cnn = build(depth_uuid)

    @staticmethod
    def layer_init(cnn: nn.Module) -> None:
        """Initialises a network: Kaiming-normal weights, zero biases."""
        for layer in cnn.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @property
    def is_blind(self) -> bool:
        """Whether there are no images at all."""
        return self.rgb_uuid is None and self.depth_uuid is None

    def forward(self, observations: ObservationType) -> torch.Tensor | None:
        """Returns the features [T, N, ...] of all images, one after the other along the channels.

        Args:
            observations: contains the images, [T, N, height, width, channels] or
                [T, N, agents, height, width, channels].

        Returns:
            [T, N, (agents,) output_size * kinds], or [T, N, (agents,) channels, height, width] without
            `flatten`; None if there are no images.
        """
        features = []
        for uuid, name in ((self.rgb_uuid, "rgb_cnn"), (self.depth_uuid, "depth_cnn")):
            if uuid is not None:
                image: Any = observations[uuid]
                features.append(compute_cnn_output(getattr(self, name), image))
        if not features:
            return None
        return torch.cat(features, dim=-1 if self.flatten else -3)


def conv_output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Returns height and width of the output of a convolution (the formula of `torch.nn.Conv2d`)."""

    def one(i: int) -> int:
        return (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1

    return one(0), one(1)


def _image_shape(observation_space: gym.spaces.Dict, uuid: str) -> tuple[int, int, int]:
    shape = observation_space.spaces[uuid].shape
    if shape is None or len(shape) != 3:
        raise ValueError(f'SimpleCNN needs images of shape (height, width, channels), "{uuid}" has {shape}')
    return shape
