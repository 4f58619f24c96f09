"""Ctrl-C: the first one asks the run to stop, the second one ends it at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from allenact.utils.system import get_logger


class StopSignals:
    """While the block runs, SIGINT and SIGTERM ask the run to stop; the second of them raises KeyboardInterrupt.

    Attributes:
        requested: whether somebody asked.
    """

    def __init__(self) -> None:
        self.requested = False
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
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        get_logger().warning("Stopping. (Once more stops at once.)")
