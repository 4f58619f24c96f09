"""Progress of training on a terminal: one live block with steps, speed, returns and the last checkpoint."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.checkpointing import step_from_checkpoint
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
from allenact.utils.terminal import LiveBlock
from allenact.utils.timing import duration

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.tracking import LogPackage
    from allenact.pipeline.pipeline import TrainingPipeline

_LOGS_OF_RATE = 10  # steps per second and the time left are means over so many logs
_LOGS_OF_TREND = 20


class TrainingProgress(LiveProgress):
    """Shows a training run as a live block of lines.

    Args:
        name: of the experiment.
        stage_steps: environment steps of each stage at most; infinite or negative for a stage without such a limit.
        resumed: whether the run goes on from a checkpoint, so that its first step is not known before its first log.
        kwargs: see `LiveProgress`.
    """

    def __init__(self, name: str, stage_steps: Sequence[float], *, resumed: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.stage_steps = [steps if 0 <= steps < math.inf else None for steps in stage_steps]
        self._stage = 0
        self._stage_start: int | None = None if resumed else 0  # environment steps when the stage began
        self._logs: deque[tuple[float, int]] = deque(maxlen=_LOGS_OF_RATE + 1)  # time, environment steps
        self._means: dict[str, deque[float]] = {}
        self._shares: dict[str, float] = {}
        self._valid: dict[str, float] = {}
        self._valid_steps = 0
        self._best: tuple[float, int] | None = None  # validation reward, environment steps
        self._checkpoint: tuple[int, str] | None = None  # environment steps, file name

    # Events

    def begin(self) -> None:
        """Starts the clock and shows the block: training begins."""
        if self._stage_start is not None:
            self._logs.append((self._clock(), 0))
        super().begin()

    def logged(self, package: LogPackage, means: Mapping[str, float]) -> None:
        """Called with each log.

        Args:
            package: of all workers.
            means: every scalar by tag.
        """
        metrics = with_prefix(means, f"{package.mode}-metrics/")
        if package.mode == "train":
            self._enter_stage(package)
            self._logs.append((self._clock(), package.training_steps))
            for key, value in metrics.items():
                self._means.setdefault(key, deque(maxlen=_LOGS_OF_TREND)).append(value)
            self._shares = with_prefix(means, "train-misc/time_share_")
        else:
            self._valid, self._valid_steps = metrics, package.training_steps
            reward = metrics.get("reward")
            if reward is not None and (self._best is None or reward > self._best[0]):
                self._best = reward, package.training_steps
        self.refresh()

    def saved(self, checkpoint: Path) -> None:
        """Called when a checkpoint has been written."""
        self._checkpoint = step_from_checkpoint(str(checkpoint)), checkpoint.name
        self.refresh()

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

    # Contents of the block

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

    def rows(self, with_bars: bool) -> Iterator[Row]:
        """Yields progress, speed, returns, validation, shares of time and the last checkpoint."""
        yield heading("training", *self._heading())
        yield "steps", self._bar()
        yield "speed", self._speed()
        for key in most_important(self._means):
            yield key, trend(list(self._means[key]), of="logs", with_bars=with_bars)
        if self._valid:
            yield "validation", self._validation()
        if self._shares:
            shares = ((phase, share) for phase, share in self._shares.items() if share >= 0.005)
            yield "time", "  ".join(f"{phase} {share:.0%}" for phase, share in shares)
        if self._checkpoint is not None:
            steps, file_name = self._checkpoint
            yield "checkpoint", f"at {steps:,} steps: {file_name}"

    def _heading(self) -> Iterator[str]:
        yield self.name
        if more := len(self.stage_steps) - 1:
            later = more - self._stage
            yield f"stage {self._stage}, {f'{later} more to come' if later else 'the last'}"

    def _bar(self) -> Any:
        steps, total = self.steps, self.total_steps
        if steps is None:
            return "waiting for the first log"
        if not total:
            return f"{steps:,}"
        return bar(steps, total, f"{steps / total:.1%}", f"{steps:,} of {total:,}")

    def _speed(self) -> str:
        rate, left = self.rate, self.seconds_left
        parts = [] if rate is None else [f"{rate:,.0f} steps/s"]
        parts.append(f"{duration(self.seconds)} so far")
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "   ".join(parts)

    def _validation(self) -> str:
        text = "  ".join(f"{key} {number(self._valid[key])}" for key in most_important(self._valid))
        text += f"  at {self._valid_steps:,} steps"
        if self._best is not None and self._best[0] > self._valid.get("reward", math.inf):
            text += f"; best reward {number(self._best[0])} at {self._best[1]:,}"
        return text


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
