"""Running means of scalars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class ScalarMeanTracker:
    """Weighted means of named scalars.

    Values may be 0-dimensional tensors: they are added where they are, so that only reading a mean waits for
    the device.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, float] = {}

    def add_scalars(self, scalars: Mapping[str, Any], n: float | Mapping[str, float] = 1) -> None:
        """Adds one value for each name.

        Args:
            scalars: name -> value.
            n: weight of the values, or name -> weight.
        """
        for name, value in scalars.items():
            weight = n[name] if isinstance(n, Mapping) else n
            if isinstance(value, torch.Tensor):
                value = value.detach()
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
            self._counts[name] = self._counts.get(name, 0) + weight

    def means(self) -> dict[str, float]:
        """Returns name -> weighted mean, for the names with a positive weight."""
        return {name: float(self._sums[name]) / count for name, count in self._counts.items() if count > 0}

    def sums(self) -> dict[str, float]:
        """Returns name -> weighted sum."""
        return {name: float(value) for name, value in self._sums.items()}

    def counts(self) -> dict[str, float]:
        """Returns name -> sum of the weights."""
        return dict(self._counts)

    def pop_and_reset(self) -> dict[str, float]:
        """Returns the means and forgets everything."""
        means = self.means()
        self.reset()
        return means

    def reset(self) -> None:
        """Forgets everything."""
        self._sums.clear()
        self._counts.clear()

    @property
    def empty(self) -> bool:
        """Whether nothing has been added since the last reset."""
        return not self._counts

    def __getstate__(self) -> dict[str, Any]:
        """Plain numbers, because trackers are sent between processes."""
        return {"_sums": self.sums(), "_counts": self.counts()}


def __getattr__(name: str) -> Any:
    """Keeps AllenAct's name of what a worker reports to the runner importable from the utilities."""
    if name == "LoggingPackage":
        from allenact.algorithms.onpolicy_sync.tracking import LogPackage

        return LogPackage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
