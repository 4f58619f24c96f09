"""What a terminal shows while training: one block with how far it is, how fast and how well, drawn again in place."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from allenact.algorithms.onpolicy_sync.checkpointing import step_from_checkpoint
from allenact.utils.system import get_logger
from allenact.utils.terminal import LiveBlock, wants_live_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from allenact.algorithms.onpolicy_sync.tracking import LogPackage
    from allenact.pipeline.pipeline import TrainingPipeline

_REFRESH_S = 0.25  # the block is drawn at most this often; a drawing takes about two milliseconds
_LOGS_OF_RATE = 10  # steps per second and the time left are means over so many logs
_LOGS_OF_TREND = 20
_SHOWN_FIRST = ("reward", "ep_length", "success")
_BARS = "▁▂▃▄▅▆▇█"


class Progress(Protocol):
    """What a log may be shown by, instead of a line with all its numbers."""

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Takes up a log: its package, of all workers, and every scalar by tag."""


class TrainingProgress:
    """Follows a training run and shows it as a block of lines.

    Args:
        name: of the experiment.
        stage_steps: environment steps of each stage at most; infinite or negative for a stage without such a limit.
        resumed: whether the run goes on from a checkpoint, so that its first step is not known before its first log.
        block: where to draw.
        clock: seconds, rising.
    """

    def __init__(
        self,
        name: str,
        stage_steps: Sequence[float],
        *,
        resumed: bool,
        block: LiveBlock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.stage_steps = [steps if 0 <= steps < math.inf else None for steps in stage_steps]
        self.block = block
        self._clock = clock
        self._began: float | None = None
        self._drawn = -math.inf
        self._stage = 0
        self._stage_start: int | None = None if resumed else 0  # environment steps when the stage began
        self._logs: deque[tuple[float, int]] = deque(maxlen=_LOGS_OF_RATE + 1)  # time, environment steps
        self._means: dict[str, deque[float]] = {}
        self._shares: dict[str, float] = {}
        self._valid: dict[str, float] = {}
        self._valid_steps = 0
        self._best: tuple[float, int] | None = None  # validation reward, environment steps
        self._checkpoint: tuple[int, str] | None = None  # environment steps, file name

    # What happens

    def begin(self) -> None:
        """Starts the clock and shows the block: training begins."""
        self._began = self._clock()
        if self._stage_start is not None:
            self._logs.append((self._began, 0))
        self.refresh(now=True)

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Takes up a log.

        Args:
            package: of all workers.
            means: every scalar by tag.
        """
        metrics = _with_prefix(means, f"{package.mode}-metrics/")
        if package.mode == "train":
            self._enter_stage(package)
            self._logs.append((self._clock(), package.training_steps))
            for key, value in metrics.items():
                self._means.setdefault(key, deque(maxlen=_LOGS_OF_TREND)).append(value)
            self._shares = _with_prefix(means, "train-misc/time_share_")
        else:
            self._valid, self._valid_steps = metrics, package.training_steps
            reward = metrics.get("reward")
            if reward is not None and (self._best is None or reward > self._best[0]):
                self._best = reward, package.training_steps
        self.refresh()

    def saved(self, checkpoint: Path) -> None:
        """Takes up that a checkpoint has been written."""
        self._checkpoint = step_from_checkpoint(str(checkpoint)), checkpoint.name
        self.refresh()

    def refresh(self, now: bool = False) -> None:
        """Draws the block if the last drawing is long enough ago, or in any case `now`; nothing before `begin`."""
        if self._began is not None and (now or self._clock() - self._drawn >= _REFRESH_S):
            self.block.draw(self.lines())
            self._drawn = self._clock()

    def close(self) -> None:
        """Leaves the last state on the terminal, if training has begun. Calling it again does nothing."""
        if self._began is not None:
            self.block.leave(self.lines())
            self._began = None

    def _enter_stage(self, package: LogPackage) -> None:
        stage = package.pipeline_stage or 0
        if stage != self._stage or self._stage_start is None:
            before = self.stage_steps[:stage]
            # Stages may end early, so the steps at which the last one did count for more than the settings.
            known = self._logs[-1][1] if self._logs else int(sum(steps or 0 for steps in before))
            self._stage, self._stage_start = stage, min(known, package.training_steps)

    # What can be said

    @property
    def steps(self) -> int | None:
        """Environment steps at the last log; None before the first log of a resumed run."""
        return self._logs[-1][1] if self._logs else None

    @property
    def total_steps(self) -> int | None:
        """Environment steps at the end of training, None where a stage has no limit."""
        left = self.stage_steps[self._stage :]
        if self._stage_start is None:
            left, start = self.stage_steps, 0
        else:
            start = self._stage_start
        return None if None in left else start + int(sum(steps or 0 for steps in left))

    @property
    def rate(self) -> float | None:
        """Environment steps per second over the last logs, None before there is a log."""
        (then, before), (now, steps) = (self._logs[0], self._logs[-1]) if self._logs else ((0.0, 0), (0.0, 0))
        return (steps - before) / (now - then) if now > then else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at this rate, None where it is not known."""
        steps, total, rate = self.steps, self.total_steps, self.rate
        if steps is None or total is None or not rate:
            return None
        return max((total - steps) / rate - (self._clock() - self._logs[-1][0]), 0.0)

    def lines(self) -> list[str]:
        """Returns the block as lines with colour codes, each no wider than the terminal."""
        from rich.table import Table

        console = self._console()
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True, min_width=10)  # the longest usual name
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(*self._heading())
        table.add_row("steps", self._bar())
        table.add_row("speed", self._speed())
        for key in _shown(self._means):
            table.add_row(key, self._trend(self._means[key], with_bars=not console.options.ascii_only))
        if self._valid:
            table.add_row("validation", self._validation())
        if self._shares:
            shares = ((phase, share) for phase, share in self._shares.items() if share >= 0.005)
            table.add_row("time", "  ".join(f"{phase} {share:.0%}" for phase, share in shares))
        if self._checkpoint is not None:
            steps, file_name = self._checkpoint
            table.add_row("checkpoint", f"at {steps:,} steps: {file_name}")
        with console.capture() as captured:
            console.print(table, crop=True)
        return captured.get().splitlines()

    def _console(self) -> Console:
        from rich.console import Console

        return Console(
            file=self.block.stream, force_terminal=True, width=self.block.size[0], highlight=False, markup=False
        )

    def _heading(self) -> tuple[RenderableType, RenderableType]:
        from rich.text import Text

        parts = [self.name]
        if more := len(self.stage_steps) - 1:
            later = more - self._stage
            parts.append(f"stage {self._stage}, {f'{later} more to come' if later else 'the last'}")
        return Text("training", style="bold not dim"), Text("   ".join(parts))

    def _bar(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        steps, total = self.steps, self.total_steps
        if steps is None:
            return "waiting for the first log"
        if not total:
            return f"{steps:,}"
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(ProgressBar(total, min(steps, total), width=24), f"{steps / total:.1%}", f"{steps:,} of {total:,}")
        return row

    def _speed(self) -> str:
        rate, left = self.rate, self.seconds_left
        parts = [] if rate is None else [f"{rate:,.0f} steps/s"]
        parts.append(f"{duration(self._clock() - (self._began or 0.0))} so far")
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "   ".join(parts)

    @staticmethod
    def _trend(values: Sequence[float], with_bars: bool) -> str:
        """Returns the last value, how it has changed over the logs shown, and these as a curve."""
        text = f"{number(values[-1]):>8}"
        if len(values) < 2:
            return text
        half = len(values) // 2
        recent = list(values)
        change = sum(recent[-half:]) / half - sum(recent[:half]) / half
        curve = f"  {sparkline(recent)}" if with_bars else ""
        return f"{text}{curve}  {'+' if change >= 0 else '-'}{number(abs(change))} in {len(values)} logs"

    def _validation(self) -> str:
        text = "  ".join(f"{key} {number(self._valid[key])}" for key in _shown(self._valid))
        text += f"  at {self._valid_steps:,} steps"
        if self._best is not None and self._best[0] > self._valid.get("reward", math.inf):
            text += f"; best reward {number(self._best[0])} at {self._best[1]:,}"
        return text


class EvaluationProgress:
    """Says in a short line what came of each checkpoint, for terminals; the table at the end has the rest.

    Args:
        number: of checkpoints.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._done = 0

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Says what came of the next checkpoint; arguments as for `TrainingProgress.logged`."""
        self._done += 1
        metrics = _with_prefix(means, f"{package.mode}-metrics/")
        shown = ", ".join(f"{key} {number(metrics[key])}" for key in _shown(metrics))
        name = Path(package.checkpoint_file_name or "").name
        get_logger().info(f"checkpoint {self._done} of {self.number}, {name}: {shown or 'no episodes'}")


def shows_progress() -> bool:
    """Whether stderr is a terminal on which text may be drawn again in place, and its user wants to be told."""
    return wants_live_text(sys.stderr) and get_logger().isEnabledFor(logging.INFO)


def progress_on_terminal(name: str, pipeline: TrainingPipeline, *, resumed: bool) -> TrainingProgress | None:
    """Returns what shows training on stderr, None where `shows_progress` says no.

    Args:
        name: of the experiment.
        pipeline: what is trained.
        resumed: whether it goes on from a checkpoint.
    """
    if not shows_progress():
        return None
    limits = (stage.max_stage_steps for stage in pipeline.pipeline_stages)
    steps = [float(limit() if callable(limit) else limit) for limit in limits]
    return TrainingProgress(name, steps, resumed=resumed, block=LiveBlock(sys.stderr))


def sparkline(values: Sequence[float]) -> str:
    """Draws numbers as bars of eight heights, the smallest number lowest; what is no number as a blank."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values)


def number(value: float) -> str:
    """Writes a number with four digits, or all digits before the point."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Writes seconds in the two largest units that they fill: 1 h 20 min, 3 min 5 s, 8 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _shown(metrics: Mapping[str, Any]) -> list[str]:
    """Returns which metrics there is room for: return, length and success, or the first few of others."""
    return [key for key in _SHOWN_FIRST if key in metrics] or sorted(metrics)[:3]


def _with_prefix(means: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {tag.removeprefix(prefix): value for tag, value in means.items() if tag.startswith(prefix)}
