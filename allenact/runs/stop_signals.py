"""Ctrl-C: the first one asks the run to stop, the second one ends it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self

from allenact.utils.system import get_logger

SAME_REQUEST_S = 1.0
"""Signals that come so soon after the first one are the same request: `timeout`, job schedulers and other programs
signal the process that they have started, and then its whole group, or pass on what the terminal has sent already."""


class StopRequest:
    """Tells a signal that repeats the first one from somebody who has lost patience.

    Args:
        same_for_s: seconds after the first signal in which others mean the same.
    """

    def __init__(self, same_for_s: float = SAME_REQUEST_S) -> None:
        self.same_for_s = same_for_s
        self._first: float | None = None

    def is_repeated(self) -> bool:
        """Takes note of a signal; returns whether it is one to pass over."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first < self.same_for_s


class StopSignals:
    """While the block runs, SIGINT and SIGTERM ask the run to stop; the second of them raises KeyboardInterrupt.

    Signals within `SAME_REQUEST_S` of the first one count as one with it.

    Attributes:
        requested: whether somebody asked.
    """

    def __init__(self) -> None:
        self.requested = False
        self._request = StopRequest()
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Returns whether somebody asked."""
        return self.requested

    def __enter__(self) -> Self:
        try:
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._request.is_repeated():
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        get_logger().warning("Stopping. (Once more stops at once.)")
