"""Draws curves of runs: means over seeds with their intervals, and published results as points beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from allenact.utils.metrics_files import Series
from allenact.utils.statistics import student_interval

GRID_POINTS = 200
X_LABELS = {"steps": "environment steps", "seconds": "minutes of training"}


@dataclass(frozen=True)
class MeanCurve:
    """A mean over runs.

    Attributes:
        x: [P] environment steps or seconds.
        mean: [P]
        low: [P] lower end of the 95 % interval of the mean; None for one run.
        high: [P] upper end.
        runs: how many.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    runs: int


@dataclass(frozen=True)
class Published:
    """Results of somebody else.

    Attributes:
        label: who, and over how many runs.
        points: environment steps, and what was reached by then.
        errors: what the source gives after +-, one for each point; empty: it gives nothing.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[float, ...] = ()


def mean_curve(runs: Sequence[Series], x: str = "steps") -> MeanCurve:
    """Returns the mean over runs, and its interval by Student's t, where all of them have values.

    Args:
        runs: at least one, each with at least one value. One run keeps its own points; several are interpolated on
            a common grid.
        x: "steps" or "seconds".
    """
    positions = [np.asarray(getattr(run, x), dtype=np.float64) for run in runs]
    if len(runs) == 1:
        return MeanCurve(positions[0], np.asarray(runs[0].values, dtype=np.float64), None, None, 1)
    first, last = max(each[0] for each in positions), min(each[-1] for each in positions)
    grid = np.linspace(first, max(first, last), GRID_POINTS)  # [P]
    values = np.stack([np.interp(grid, each, run.values) for each, run in zip(positions, runs, strict=True)])
    low, high = np.array([student_interval(list(column)) for column in values.T]).T  # [P] each
    return MeanCurve(grid, values.mean(axis=0), low, high, len(runs))


def draw_curves(
    axes: Any, groups: Mapping[str, Sequence[Series]], *, x: str = "steps", published: Sequence[Published] = ()
) -> None:
    """Draws one mean curve with its interval for each group, a thin line for each of its runs, and published points.

    Args:
        axes: matplotlib's.
        groups: label -> runs.
        x: "steps" or "seconds"; seconds are shown as minutes.
        published: drawn where x is "steps".
    """
    unit = 60.0 if x == "seconds" else 1.0
    for index, (label, runs) in enumerate(groups.items()):
        colour = f"C{index}"
        curve = mean_curve(runs, x)
        name = f"{label} ({curve.runs} seeds)" if curve.runs > 1 else label
        axes.plot(curve.x / unit, curve.mean, color=colour, label=name)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x / unit, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
            for run in runs:
                axes.plot(np.asarray(getattr(run, x)) / unit, run.values, color=colour, alpha=0.5, linewidth=0.8)
    if x == "steps":
        for index, others in enumerate(published):
            steps, values = zip(*others.points, strict=True)
            marker = "ovs^DP*X"[index % 8]
            errors = others.errors or None
            axes.errorbar(steps, values, errors, fmt=marker, color="0.25", capsize=3, label=others.label)
        axes.xaxis.set_major_formatter(_in_millions)
    axes.set_xlabel(X_LABELS[x])
    axes.grid(alpha=0.3)


def _in_millions(value: float, position: int | None = None) -> str:
    """Formats a number of steps for an axis."""
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k" if value else "0"


def new_figure(columns: int = 1, title: str = "") -> tuple[Any, list[Any]]:
    """Returns a matplotlib figure that needs no display, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 5.5 * columns, 4.5), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title)
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure; the suffix says the format. The same figure gives the same bytes, whenever it is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
