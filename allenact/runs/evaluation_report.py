"""The report of an evaluation: statistics of every metric of every checkpoint, as JSON, as CSV and as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from allenact.runs.log_sink import write_json
from allenact.utils.statistics import CONFIDENCE, RESAMPLES, Summary, summarise

INTERVAL = f"{CONFIDENCE:.0%} percentile bootstrap interval of the mean, {RESAMPLES:,} resamples"


@dataclass(frozen=True)
class CheckpointReport:
    """What one checkpoint achieved.

    Attributes:
        checkpoint: its file.
        training_steps: environment steps it was trained for.
        metrics: name -> statistics over the episodes that have that metric.
    """

    checkpoint: str
    training_steps: int
    metrics: dict[str, Summary]


@dataclass
class EvaluationReport:
    """What an evaluation found, and how it was done.

    Attributes:
        experiment: tag of the experiment.
        actions: "deterministic" (the mode of the policy), "sampled" from it, or the "expert"'s.
        seed: of the sampled actions and of the task samplers.
        task_seeds: seeds that the episodes began with, sampler by sampler, as far as the experiment fixes them.
        checkpoints: in the order in which they were evaluated.
    """

    experiment: str
    actions: str
    seed: int
    task_seeds: list[int] = field(default_factory=list)
    checkpoints: list[CheckpointReport] = field(default_factory=list)

    def add(self, checkpoint: str, result: Mapping[str, Any], task_seeds: Sequence[int]) -> None:
        """Adds what came of a checkpoint.

        Args:
            checkpoint: its file.
            result: an entry of the metrics file: `training_steps`, and the metrics of each episode in `tasks`.
            task_seeds: those that its episodes began with; the same for every checkpoint.
        """
        self.task_seeds = list(task_seeds)
        names = sorted({name for task in result["tasks"] for name in task if name != "task_info"})
        metrics = {name: summarise([float(task[name]) for task in result["tasks"] if name in task]) for name in names}
        self.checkpoints.append(CheckpointReport(checkpoint, result["training_steps"], metrics))

    def write(self, folder: Path) -> None:
        """Writes `evaluation.json`, and `evaluation.csv` with one row for each metric of each checkpoint."""
        write_json(folder / "evaluation.json", {**asdict(self), "interval": INTERVAL})
        statistics = [each.name for each in fields(Summary)]
        with open(folder / "evaluation.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["checkpoint", "training_steps", "actions", "metric", *statistics])
            for report in self.checkpoints:
                for name, summary in report.metrics.items():
                    numbers = asdict(summary).values()
                    table.writerow([report.checkpoint, report.training_steps, self.actions, name, *numbers])

    def print(self) -> None:
        """Prints the table: of one checkpoint all statistics, of several the means with their intervals."""
        from rich.console import Console

        number = len(self.checkpoints)
        seeds = f", episodes with seeds {_ranges(self.task_seeds)}" if self.task_seeds else ""
        title = f"{number} checkpoint{'s' if number != 1 else ''} tested, {self.actions} actions{seeds}"
        if number == 1:
            only = self.checkpoints[0]
            title += f": {os.path.basename(only.checkpoint)}, {only.training_steps:,} environment steps of training"
        make = _all_statistics if number == 1 else _means
        # As wide as the table needs it where output goes to a file, which has no width of its own.
        console = Console(stderr=True) if os.isatty(2) else Console(stderr=True, width=200)
        console.print(title, markup=False, soft_wrap=True)
        console.print(make(self.checkpoints))
        console.print(f"Intervals: {INTERVAL}.", markup=False, soft_wrap=True)


def _all_statistics(reports: Sequence[CheckpointReport]) -> Any:
    from rich.table import Table

    (report,) = reports
    table = Table()
    for heading in ("metric", "n", "mean", "95% interval", "std", "median", "min", "max"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, summary in report.metrics.items():
        numbers = [_short(value) for value in (summary.std, summary.median, summary.min, summary.max)]
        table.add_row(name, str(summary.n), _short(summary.mean), _interval(summary), *numbers)
    return table


def _means(reports: Sequence[CheckpointReport]) -> Any:
    from rich.table import Table

    names = sorted({name for report in reports for name in report.metrics})
    table = Table()
    for heading in ("steps", "tasks", *names):
        table.add_column(heading, justify="right")
    table.add_column("checkpoint", overflow="fold")
    for report in reports:
        cells = [f"{report.training_steps:,}", str(max((each.n for each in report.metrics.values()), default=0))]
        for name in names:
            summary = report.metrics.get(name)
            cells.append(f"{_short(summary.mean)} {_interval(summary)}".rstrip() if summary else "")
        table.add_row(*cells, os.path.basename(report.checkpoint))
    return table


def _interval(summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        return ""
    return f"[{_short(summary.low)}, {_short(summary.high)}]"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _ranges(seeds: Sequence[int]) -> str:
    """Writes seeds so that people can read them: 0 to 3, 10, 12."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], seed]
        else:
            parts.append([seed])
    return ", ".join(" to ".join(map(str, part)) for part in parts)
