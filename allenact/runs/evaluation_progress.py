"""Progress of a test of checkpoints: a live block on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, log_status
from allenact.runs.live_progress import (
    LiveProgress,
    Row,
    bar,
    heading,
    most_important,
    number,
    shows_progress,
    trend,
    with_prefix,
)
from allenact.utils.system import get_logger
from allenact.utils.terminal import LiveBlock
from allenact.utils.timing import duration

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.tracking import LogPackage

_LINE_EVERY_S = 20.0
_CHECKPOINTS_OF_TREND = 20


class EvaluationLines:
    """Logs the progress of each evaluation, a line every 20 seconds.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_line = clock()

    def begin_checkpoint(self, checkpoint: str) -> None:
        """Called when the evaluation of a checkpoint begins."""
        self._last_line = self._clock()

    def update_status(self, status: EvaluationStatus) -> None:
        """Called with the progress of all workers together."""
        if self._clock() - self._last_line >= _LINE_EVERY_S:
            log_status(status)
            self._last_line = self._clock()

    def refresh(self) -> None:
        """Does nothing: lines stay."""

    def close(self) -> None:
        """Does nothing: lines stay."""


class EvaluationProgress(LiveProgress):
    """Shows a test of checkpoints as a live block, with a line above it for the results of each checkpoint.

    Args:
        name: of the experiment.
        checkpoints: number of them.
        actions: how they are chosen: "deterministic", "sampled" or "expert".
        kwargs: see `LiveProgress`.
    """

    def __init__(self, name: str, checkpoints: int, actions: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.checkpoints = checkpoints
        self.actions = actions
        self._done = 0
        self._doing = "starting"
        self._current = ""  # checkpoint file
        self._status: EvaluationStatus | None = None  # of the current checkpoint; None while no episode is running
        self._means: dict[str, list[float]] = {}  # of the checkpoints done

    # Events

    def begin_checkpoint(self, checkpoint: str) -> None:
        """Called when the evaluation of a checkpoint begins."""
        self._current, self._doing = Path(checkpoint).name, "loading"
        self._status = None
        if self._began is None:
            self.begin()
        self.refresh(now=True)

    def update_status(self, status: EvaluationStatus) -> None:
        """Called with the progress of all workers together."""
        self._status = status
        self.refresh()

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Called with the results of a checkpoint, which are logged in a line.

        Args:
            package: of all workers.
            means: every scalar by tag.
        """
        self._done += 1
        self._status = None
        self._doing = "writing results and pictures"
        metrics = with_prefix(means, f"{package.mode}-metrics/")
        for key, value in metrics.items():
            self._means.setdefault(key, []).append(value)
        shown = ", ".join(f"{key} {number(metrics[key])}" for key in most_important(metrics))
        name = Path(package.checkpoint_file_name or "").name
        get_logger().info(f"checkpoint {self._done} of {self.checkpoints}, {name}: {shown or 'no episodes'}")
        self.refresh(now=True)

    def close(self) -> None:
        """Removes the block: the table that follows has more. Calling it again does nothing."""
        if self._began is not None:
            self.block.draw([])
            self._began = None

    # Contents of the block

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end if it goes on like this, None where that is not known."""
        status = self._status
        done = self._done + (status.episodes / max(status.total, 1) if status else 0.0)
        return self.seconds * (self.checkpoints - done) / done if done else None

    def rows(self, with_bars: bool) -> Iterator[Row]:
        """Yields the progress of the test and of the current checkpoint, and the results of those before it."""
        status, left = self._status, self.seconds_left
        yield heading("testing", self.name, f"{self.actions} actions")
        of = f"{self._done} of {self.checkpoints}"
        yield "checkpoints", bar(self._done, self.checkpoints, of, self._current)
        if status is None:
            yield "episodes", self._doing
        else:
            yield "episodes", bar(status.episodes, status.total, f"{status.episodes} of {status.total}")
        speed = [] if status is None else [f"{status.steps / status.seconds:,.0f} steps/s"]
        speed.append(f"{duration(self.seconds)} so far")
        yield "speed", "   ".join(speed if left is None else [*speed, f"{duration(left)} left"])
        if status is not None and status.means:
            yield "so far", "  ".join(f"{key} {number(status.means[key])}" for key in most_important(status.means))
        for key in most_important(self._means):
            values: Sequence[float] = self._means[key][-_CHECKPOINTS_OF_TREND:]
            yield key, trend(values, of="checkpoints", with_bars=with_bars)


def evaluation_progress(
    name: str, checkpoints: int, actions: str, *, live: bool
) -> EvaluationProgress | EvaluationLines:
    """Returns what shows the progress of a test: a block on stderr if that is wanted (`live`) and possible, else lines.

    Args:
        name: of the experiment.
        checkpoints: number of them.
        actions: how they are chosen: "deterministic", "sampled" or "expert".
        live: whether a block is wanted.
    """
    if live and shows_progress():
        return EvaluationProgress(name, checkpoints, actions, block=LiveBlock(sys.stderr))
    return EvaluationLines()
