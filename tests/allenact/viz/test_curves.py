"""Mean curves over seeds, and the figures made of them."""

import numpy as np
import pytest

from allenact.utils.metrics_files import Series
from allenact.viz.curves import Published, draw_curves, mean_curve, new_figure, save_figure


def test_one_run_keeps_its_points():
    curve = mean_curve([Series([10, 20, 40], [1.0, 2.0, 4.0], [0.0, 1.0, 2.0])])
    assert curve.x.tolist() == [10, 20, 40]
    assert curve.mean.tolist() == [0, 1, 2]
    assert curve.low is None


def test_the_mean_of_runs_is_taken_where_all_of_them_are():
    runs = [Series([0, 100], [0.0, 50.0], [0.0, 100.0]), Series([10, 50], [1.0, 5.0], [30.0, 70.0])]
    curve = mean_curve(runs)
    assert (curve.x[0], curve.x[-1], curve.runs) == (10, 50, 2)
    np.testing.assert_allclose(curve.mean, curve.x + 10)
    # Two values 20 apart: 10 sqrt(2) is their standard deviation, 12.706 the quantile for one degree of freedom.
    np.testing.assert_allclose(curve.high - curve.mean, 12.7062 * 10)
    assert mean_curve(runs, "seconds").x[-1] == 5.0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure(suffix, tmp_path):
    runs = [Series([0, 2_000_000], [0.0, 60.0], [0.0, float(seed)]) for seed in (1, 2, 3)]
    path = tmp_path / "new" / f"figure.{suffix}"
    figure, (steps, minutes) = new_figure(columns=2, title="Ant")
    draw_curves(steps, {"ours": runs, "one": runs[:1]}, published=[Published("theirs", ((1e6, 2.0),))])
    draw_curves(minutes, {"ours": runs}, x="seconds")
    assert steps.get_legend_handles_labels()[1] == ["ours (3 seeds)", "one", "theirs"]
    assert minutes.get_xlabel() == "minutes of training"
    assert minutes.lines[0].get_xdata()[-1] == 1.0
    save_figure(figure, path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_published_errors_are_drawn():
    _, (axes,) = new_figure()
    draw_curves(axes, {}, published=[Published("sure", ((1e6, 2.0),)), Published("unsure", ((1e6, 2.0),), (0.5,))])
    bars = [container[2] for container in axes.containers]  # the third of a container's parts are the bars
    assert bars[0] == ()
    np.testing.assert_allclose(bars[1][0].get_segments(), [[[1e6, 1.5], [1e6, 2.5]]])
