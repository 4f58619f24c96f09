"""Summary statistics of samples, with confidence intervals for their means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
_MOST_DRAWS_AT_ONCE = 1_000_000  # bounds the memory of resampling to a few MB
# 97.5 % quantiles of Student's t distribution with 1, 2, ... 30 degrees of freedom.
_STUDENT = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


@dataclass(frozen=True)
class Summary:
    """What is worth knowing about a sample.

    Attributes:
        n: number of values.
        mean: their mean.
        std: their standard deviation (of a sample: divided by n - 1); None for fewer than two values, or where one is
            not finite: then there is only a mean.
        median: the middle one.
        min: the smallest.
        max: the largest.
        low: lower end of the 95 % interval of the mean; None for fewer than two values.
        high: its upper end.
    """

    n: int
    mean: float
    std: float | None
    median: float
    min: float
    max: float
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Returns a summary whose interval is that of `bootstrap_interval`; the same values always give the same one.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("an empty sample has no summary")
    if not all(map(math.isfinite, values)):
        mean, nan = sum(values) / len(values), math.nan  # fmean refuses infinities of both signs
        return Summary(len(values), mean=mean, std=None, median=nan, min=nan, max=nan, low=None, high=None)
    several = len(values) > 1
    low, high = bootstrap_interval(values) if several else (None, None)
    return Summary(
        n=len(values),
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if several else None,
        median=statistics.median(values),
        min=min(values),
        max=max(values),
        low=low,
        high=high,
    )


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the mean (Efron and Tibshirani, 1993, chapter 13).

    It assumes nothing about the distribution, so it suits returns of episodes, many of which are alike while a few
    are far off. With a handful of values it is too narrow; `student_interval` is for those.

    Args:
        values: at least two.
        seed: of the resampling.
    """
    sample = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    at_once = max(1, _MOST_DRAWS_AT_ONCE // len(sample))
    means: list[np.ndarray] = []
    for first in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - first)
        means.append(sample[generator.integers(len(sample), size=(rows, len(sample)))].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean by Student's t, which suits a few values such as one per seed.

    Args:
        values: at least two. It is wide for two or three, because that little is known.
    """
    n = len(values)
    quantile = _STUDENT[n - 2] if n - 2 < len(_STUDENT) else 1.96 + 2.5 / (n - 1)  # within 0.002 of the quantile
    half = quantile * statistics.stdev(values) / math.sqrt(n)
    mean = statistics.fmean(values)
    return mean - half, mean + half
