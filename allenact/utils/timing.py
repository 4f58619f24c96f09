"""Timer: how long each phase of a loop takes; and how a time is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Adds up wall-clock seconds by phase. `with timer("collect"): ...`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the time spent inside the block to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._last[phase] = time.perf_counter() - start
            self._seconds[phase] = self._seconds.get(phase, 0.0) + self._last[phase]

    def last(self, phase: str, default: float) -> float:
        """Returns the seconds that the last block of `phase` took, `default` if there was none."""
        return self._last.get(phase, default)

    def pop(self) -> dict[str, float]:
        """Returns the seconds of each phase since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds


def duration(seconds: float) -> str:
    """Writes seconds in the two largest units that they fill: 1 h 20 min, 3 min 5 s, 8 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
