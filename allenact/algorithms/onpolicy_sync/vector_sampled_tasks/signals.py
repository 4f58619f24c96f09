"""Keeps a signal from interrupting what must not stop half way."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class DelaySignalHandling:
    """Within this context SIGINT and SIGTERM are remembered; their handlers run when it ends.

    Signals arrive in the main thread only, so elsewhere this does nothing.
    """

    def __enter__(self) -> DelaySignalHandling:
        self._received: list[tuple[int, FrameType | None]] = []
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received.append((number, frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number, frame in self._received:
            handler = self._handlers[number]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(number)
