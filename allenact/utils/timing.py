"""Where the time goes: a span around each phase of a loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Adds up wall-clock seconds by phase. `with timer("collect"): ...`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the time spent inside the block to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def pop(self) -> dict[str, float]:
        """Returns the seconds of each phase since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds
