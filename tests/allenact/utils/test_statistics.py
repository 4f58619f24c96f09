"""Summaries and intervals of means."""

import math

import numpy as np
import pytest

from allenact.utils.statistics import bootstrap_interval, student_interval, summarise


def test_a_summary_of_five_values():
    summary = summarise([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (summary.n, summary.mean, summary.median, summary.min, summary.max) == (5, 4.0, 3.0, 1.0, 10.0)
    assert summary.std == pytest.approx(math.sqrt((9 + 4 + 1 + 0 + 36) / 4))
    assert 1.0 < summary.low < 4.0 < summary.high < 10.0


def test_one_value_has_neither_spread_nor_interval():
    summary = summarise([7.0])
    assert (summary.mean, summary.std, summary.low, summary.high) == (7.0, None, None, None)


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="empty"):
        summarise([])


def test_the_same_values_give_the_same_interval():
    values = list(range(20))
    assert summarise(values) == summarise(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_equal_values_have_an_interval_without_width():
    assert bootstrap_interval([1.0] * 20) == (1.0, 1.0)
    assert student_interval([1.0] * 3) == (1.0, 1.0)


def test_a_large_sample_is_resampled_in_pieces_and_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = bootstrap_interval(list(values))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize(("n", "interval"), [(3, student_interval), (40, student_interval), (40, bootstrap_interval)])
def test_intervals_hold_the_mean_as_often_as_they_say(n, interval, monkeypatch):
    monkeypatch.setattr("allenact.utils.statistics.RESAMPLES", 500)
    generator = np.random.default_rng(5)
    trials = 400
    hits = 0
    for _ in range(trials):
        low, high = interval(list(generator.normal(3.0, 2.0, size=n)))
        hits += low <= 3.0 <= high
    assert 0.91 < hits / trials < 0.98


def test_of_values_that_are_not_finite_there_is_only_a_mean():
    summary = summarise([1.0, math.nan, 3.0])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.median)
    assert (summary.n, summary.std, summary.low, summary.high) == (3, None, None, None)
    assert summarise([1.0, math.inf]).mean == math.inf
    assert math.isnan(summarise([math.inf, -math.inf]).mean)
