"""What the live blocks of training and evaluation share: rows on a terminal, redrawn in place."""

from __future__ import annotations

import abc
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from allenact.utils.system import get_logger
from allenact.utils.terminal import LiveBlock, wants_live_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from allenact.algorithms.onpolicy_sync.tracking import LogPackage

_REFRESH_S = 0.25  # the block is drawn at most this often; a drawing takes about two milliseconds
_SHOWN_FIRST = ("reward", "ep_length", "success")
_BARS = "▁▂▃▄▅▆▇█"

Row = tuple["RenderableType", "RenderableType"]
"""A label and what it says."""


class Progress(Protocol):
    """Shows logs in another way than a line with all their numbers."""

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Called with each log: its package, merged over all workers, and every scalar by tag."""


class LiveProgress(abc.ABC):
    """A block of rows at the bottom of a terminal.

    Args:
        block: where to draw.
        clock: seconds, rising.
    """

    def __init__(self, *, block: LiveBlock, clock: Callable[[], float] = time.monotonic) -> None:
        self.block = block
        self._clock = clock
        self._began: float | None = None
        self._drawn = -math.inf

    def begin(self) -> None:
        """Starts the clock and shows the block."""
        self._began = self._clock()
        self.refresh(now=True)

    def refresh(self, now: bool = False) -> None:
        """Draws the block if the last drawing is long enough ago, or in any case `now`; nothing before `begin`."""
        if self._began is not None and (now or self._clock() - self._drawn >= _REFRESH_S):
            self.block.draw(self.lines())
            self._drawn = self._clock()

    @property
    def seconds(self) -> float:
        """Seconds since `begin`."""
        return 0.0 if self._began is None else self._clock() - self._began

    @abc.abstractmethod
    def rows(self, with_bars: bool) -> Iterator[Row]:
        """Yields label and contents of each row.

        Args:
            with_bars: whether the terminal can show the characters of `sparkline`.
        """

    def lines(self) -> list[str]:
        """Returns the block as lines with colour codes, each no wider than the terminal."""
        from rich.console import Console
        from rich.table import Table

        width = self.block.size[0]
        console = Console(file=self.block.stream, force_terminal=True, width=width, highlight=False, markup=False)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True, min_width=10)  # the longest usual name
        table.add_column(no_wrap=True, overflow="ellipsis")
        for row in self.rows(with_bars=not console.options.ascii_only):
            table.add_row(*row)
        with console.capture() as captured:
            console.print(table, crop=True)
        return captured.get().splitlines()


def shows_progress() -> bool:
    """Whether stderr is a terminal on which text can be redrawn, and the log level lets information through."""
    return wants_live_text(sys.stderr) and get_logger().isEnabledFor(logging.INFO)


def heading(what: str, *parts: str) -> Row:
    """Returns the first row."""
    from rich.text import Text

    return Text(what, style="bold not dim"), Text("   ".join(parts))


def bar(done: float, total: float, *texts: str) -> Any:
    """Returns a bar that is filled as far as `done` of `total` says, and texts after it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(ProgressBar(total, min(done, total), width=24), *texts)
    return row


def trend(values: Sequence[float], of: str, with_bars: bool) -> str:
    """Returns the last value, these as a curve, and how much the newer half is above the older one.

    Args:
        values: at least one, the newest last.
        of: what they are values of, in the plural.
        with_bars: whether to draw the curve.
    """
    text = f"{number(values[-1]):>8}"
    if len(values) < 2:
        return text
    half = len(values) // 2
    change = sum(values[-half:]) / half - sum(values[:half]) / half
    curve = f"  {sparkline(values)}" if with_bars else ""
    return f"{text}{curve}  {'+' if change >= 0 else '-'}{number(abs(change))} in {len(values)} {of}"


def sparkline(values: Sequence[float]) -> str:
    """Draws numbers as bars of eight heights, the smallest number lowest; what is no number as a blank."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values)


def number(value: float) -> str:
    """Writes a number with four digits, or all digits before the point."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def most_important(metrics: Mapping[str, Any]) -> list[str]:
    """Returns which metrics there is room for: return, length and success, or the first few of others."""
    return [key for key in _SHOWN_FIRST if key in metrics] or sorted(metrics)[:3]


def with_prefix(means: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Returns the means whose tags begin with `prefix`, by the rest of the tag."""
    return {tag.removeprefix(prefix): value for tag, value in means.items() if tag.startswith(prefix)}
