"""Distributions over continuous actions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from allenact.base_abstractions.distributions import Distr

_LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
_NOISE_BLOCK = 64  # environment steps


class ActionNoise:
    """Standard normal numbers for one environment step after another, the same that torch would draw step by step.

    They are drawn for many steps at once: after a step of a simulator torch's code has left the caches, and then
    the call costs more than the numbers.

    Args:
        num_steps: T, how often `draw` will be called; no more is drawn than that.
        action_size: A.
    """

    def __init__(self, num_steps: int, action_size: int) -> None:
        self.steps_left = num_steps
        self.action_size = action_size
        self._steps: Iterator[np.ndarray] = iter(())

    def draw(self, num_samplers: int) -> np.ndarray:
        """Returns the noise of the next step, [N, A] float32. N must not change between calls."""
        for noise in self._steps:
            return noise
        # torch transforms normal numbers in groups of 16. A step that ends within a group has to be drawn by itself.
        aligned = num_samplers * self.action_size % 16 == 0
        count = min(_NOISE_BLOCK, self.steps_left) if aligned else 1
        self.steps_left -= count
        block = torch.empty(count, num_samplers, self.action_size).normal_()  # [count, N, A]
        self._steps = iter(block.numpy())
        return next(self._steps)


class GaussianDistr(torch.distributions.Normal, Distr):
    """Independent Gaussians, one for each entry of the action.

    Log-probabilities and entropies are per entry, [T, N, A]. With it PPO has one probability ratio for each
    entry of an action, not one for each action, as AllenAct always had.

    Args:
        loc: [T, N, A] means.
        scale: [T, N, A] standard deviations (or what broadcasts to that).
        kwargs: of `torch.distributions.Normal`.
    """

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor | float, **kwargs: Any) -> None:
        super().__init__(loc, scale, **kwargs)
        # Before it is broadcast: where all rows share a standard deviation, there are few logarithms to take.
        self._own_scale = scale if isinstance(scale, torch.Tensor) else torch.as_tensor(scale, dtype=self.loc.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianDistr:
        """Returns the same distribution with more batch dimensions."""
        return GaussianDistr(self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the log-density of each entry, [T, N, A]."""
        if self._validate_args:
            self._validate_sample(value)
        standardised = (value - self.loc) / self._own_scale  # [T, N, A]
        return -0.5 * standardised.square() - (self._own_scale.log() + _LOG_SQRT_2_PI)

    def entropy(self) -> torch.Tensor:
        """Returns the entropy of each entry, [T, N, A]."""
        return (0.5 + _LOG_SQRT_2_PI + self._own_scale.log()).expand(self.loc.shape)

    def mode(self) -> torch.Tensor:  # type: ignore[override]  # torch has a property, AllenAct a method
        """Returns the means, [T, N, A]."""
        return self.mean


class JointGaussianDistr(GaussianDistr):
    """Independent Gaussians taken together: one log-probability and one entropy for each action, [T, N].

    With it PPO has one probability ratio for each action, as in the literature.
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> JointGaussianDistr:
        """Returns the same distribution with more batch dimensions."""
        return JointGaussianDistr(self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the log-density of each action, [T, N]."""
        return super().log_prob(value).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Returns the entropy, [T, N]."""
        return super().entropy().sum(-1)
