"""Mean and variance of everything seen so far, as buffers of a model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from allenact.errors import NonFiniteError


class RunningMoments(nn.Module):
    """Mean and variance, entry by entry, of all rows that `update` was given.

    Batches are merged with the formula of Chan, Golub and LeVeque (1979), in float64: the result does not depend on
    how the rows are cut into batches, beyond rounding. `forward` does not change anything.

    Args:
        size: number of entries of a row, S.
        what: the rows are, for the error of `update`.

    Attributes:
        count: [] rows so far.
        mean: [S]; 0 before the first update.
        variance: [S] of the population (divided by the count); 1 before the first update.
    """

    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, size: int, what: str = "rows") -> None:
        super().__init__()
        self.what = what
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))

    @torch.no_grad()
    def update(
        self, rows: torch.Tensor, sum_over_workers: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    ) -> None:
        """Takes in more rows.

        Args:
            rows: [..., S] of this worker.
            sum_over_workers: returns the sum of a tensor over all workers (two calls), so that all have the same
                moments afterwards.

        Raises:
            NonFiniteError: an entry is NaN or infinite, or too large to be squared; the moments stay as they were.
        """
        rows = rows.reshape(-1, len(self.mean)).double()  # [B, S]
        sums = torch.cat((rows.sum(0), rows.new_tensor([len(rows)])))  # [S + 1]
        sums = sum_over_workers(sums)
        count = sums[-1]  # []
        if count == 0:
            return
        mean = sums[:-1] / count  # [S]
        squares = sum_over_workers((rows - mean).square().sum(0))  # [S]
        total, difference = self.count + count, mean - self.mean
        squares += self.variance * self.count + difference.square() * (self.count * count / total)
        if not torch.isfinite(squares).all():  # so is every row, else; and nothing would ever heal the moments
            bad = (~torch.isfinite(squares)).nonzero().flatten().tolist()
            raise NonFiniteError(
                f"{self.what} cannot be normalised: there is NaN, infinity or too large a number among them.",
                f"entries {bad[:5]} of {len(self.mean)}, in {int(count)} rows",
                "look at what the environment's step() returns: observations and rewards.",
            )
        self.mean += difference * (count / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)

    def scale(self) -> torch.Tensor:
        """Returns what to divide by, [S] float32: the standard deviation, kept away from 0."""
        return (self.variance + 1e-5).sqrt().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` [..., S] shifted and scaled to mean 0 and variance 1."""
        return (x - self.mean.float()) / self.scale()
