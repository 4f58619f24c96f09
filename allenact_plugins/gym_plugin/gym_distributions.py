"""Distributions over continuous actions."""

from __future__ import annotations

import torch

from allenact.base_abstractions.distributions import Distr


class GaussianDistr(torch.distributions.Normal, Distr):
    """Independent Gaussians, one for each entry of the action.

    Log-probabilities and entropies are per entry, [T, N, A]. With it PPO has one probability ratio for each
    entry of an action, not one for each action, as AllenAct always had.

    Args:
        loc: [T, N, A] means.
        scale: [T, N, A] standard deviations (or what broadcasts to that).
        kwargs: of `torch.distributions.Normal`.
    """

    def mode(self) -> torch.Tensor:  # type: ignore[override]  # torch has a property, AllenAct a method
        """Returns the means, [T, N, A]."""
        return self.mean
