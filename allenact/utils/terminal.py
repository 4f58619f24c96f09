"""A block of text at the bottom of a terminal that is drawn again in place, while other output goes by above it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from typing import TextIO

ERASE_BELOW = "\033[J"
"""Erases a terminal from the cursor to its end: written before a line, it makes room for it above a live block."""


def understands_control_codes(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can erase text and move the cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def wants_live_text(stream: TextIO) -> bool:
    """Whether text on `stream` may be drawn again in place: a terminal, whose user has not set NO_COLOR."""
    return understands_control_codes(stream) and not os.environ.get("NO_COLOR")


class LiveBlock:
    """Lines at the bottom of a terminal.

    After drawing, the cursor rests on the empty line above the text. So whatever any process writes, now or in between,
    comes above the text and over it, not into it, and the next drawing begins below. Nothing has to be redirected, a
    resized window does no harm, and a process that is killed leaves no terminal to repair.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def size(self) -> tuple[int, int]:
        """How many columns and rows there are for text."""
        columns, rows = shutil.get_terminal_size()
        with contextlib.suppress(OSError, ValueError):  # else what COLUMNS and LINES say, or the usual size
            columns, rows = os.get_terminal_size(self.stream.fileno())
        return max(columns - 1, 20), max(rows - 2, 1)  # a last column that is used may wrap

    def draw(self, lines: Sequence[str]) -> None:
        """Draws the text anew, in one write, so that nothing else comes in between."""
        shown = list(lines)[: self.size[1]]
        self._write("".join(f"\n{line}" for line in shown) + f"\r\033[{len(shown)}A" if shown else "")

    def leave(self, lines: Sequence[str]) -> None:
        """Writes the text for the last time, as ordinary output."""
        self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone is no reason to end a run
            self.stream.write(ERASE_BELOW + text)
            self.stream.flush()
