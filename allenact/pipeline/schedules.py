"""Numbers that change during training, as functions of the environment steps taken.

A schedule has no memory: the same step always gives the same number, so resuming and plotting are free.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from allenact.errors import ExperimentConfigError


class LinearDecay:
    """A straight line from `startp` at step 0 to `endp` at step `steps`, constant outside.

    Args:
        steps: length of the line in environment steps.
        startp: value at step 0.
        endp: value from step `steps` on.
    """

    def __init__(self, steps: int, startp: float = 1.0, endp: float = 0.0) -> None:
        self.steps = steps
        self.startp = startp
        self.endp = endp

    def __call__(self, epoch: int) -> float:
        """Returns the value after `epoch` environment steps."""
        if self.steps <= 0:
            return self.endp
        return self.startp + (self.endp - self.startp) * _clamp(epoch, self.steps) / self.steps

    def __repr__(self) -> str:
        return f"LinearDecay(steps={self.steps}, startp={self.startp}, endp={self.endp})"


class GeometricDecay:
    """From `startp` at step 0 to `endp` at step `steps`, by the same factor over equally many steps; constant outside.

    Args:
        steps: length of the decay in environment steps.
        startp: value at step 0, above 0.
        endp: value from step `steps` on, above 0.

    Raises:
        ExperimentConfigError: `startp` or `endp` is not above 0.
    """

    def __init__(self, steps: int, startp: float, endp: float) -> None:
        if not (startp > 0 and endp > 0):
            raise ExperimentConfigError(
                "a geometric decay is between numbers above 0.",
                f"startp={startp}, endp={endp}",
                "take a small number instead of 0.",
            )
        self.steps = steps
        self.startp = startp
        self.endp = endp

    def __call__(self, epoch: int) -> float:
        """Returns the value after `epoch` environment steps."""
        if self.steps <= 0:
            return self.endp
        return float(self.startp * (self.endp / self.startp) ** (_clamp(epoch, self.steps) / self.steps))

    def __repr__(self) -> str:
        return f"GeometricDecay(steps={self.steps}, startp={self.startp}, endp={self.endp})"


class MultiLinearDecay:
    """Several linear decays, one after the other.

    Where one ends and the next begins, at its last step, the value is the start of the next.

    Args:
        stages: the decays in order, each over its own `steps`.
    """

    def __init__(self, stages: Sequence[LinearDecay]) -> None:
        # Plain numbers only: a learning rate scheduler stores the attributes of its lambda in the checkpoint,
        # which has to load without unpickling classes.
        self._segments = [(stage.steps, stage.startp, stage.endp) for stage in stages]

    @property
    def stages(self) -> list[LinearDecay]:
        """The decays in order."""
        return [LinearDecay(*segment) for segment in self._segments]

    @property
    def steps(self) -> list[int]:
        """Environment steps after which each stage is over, counted from the start of the first."""
        return list(accumulate(steps for steps, _, _ in self._segments))

    @property
    def total_steps(self) -> int:
        """Environment steps of all stages together."""
        return sum(steps for steps, _, _ in self._segments)

    def __call__(self, epoch: int) -> float:
        """Returns the value after `epoch` environment steps."""
        epoch = _clamp(epoch, self.total_steps)
        ends = self.steps
        index = min(bisect_right(ends, epoch), len(ends) - 1)
        start = ends[index - 1] if index > 0 else 0
        return self.stages[index](epoch - start)


def _clamp(epoch: int, steps: int) -> int:
    return min(max(epoch, 0), steps)
