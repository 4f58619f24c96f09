"""Figures: what the marks on them stand for, read from the matplotlib objects."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from allenact.viz import ActorViz, MultiTrajectoryViz, TensorViz1D, TensorViz2D, TrajectoryViz, VizSuite
from allenact.viz.base import figure_to_image

PATH = [{"x": float(step), "z": float(step * step), "rotation": {"y": 90.0}} for step in range(4)]


def task(name, **info):
    return {"ep_length": 4, "task_info": {"id": name, **info}}


def marks(figure):
    """Returns the coordinates of each group of markers, in order of drawing."""
    groups = [group for group in figure.axes[0].collections if isinstance(group, PathCollection)]
    return [np.asarray(group.get_offsets()).tolist() for group in groups]


def test_trajectory_marks_start_end_and_target():
    metrics = task("e", followed_path=PATH, target_position={"x": 5.0, "z": -1.0})
    figure = TrajectoryViz().make_fig(metrics, "e")
    line, *_ = figure.axes[0].collections
    np.testing.assert_array_equal(
        [segment.tolist() for segment in line.get_segments()],
        [[[0, 0], [1, 1]], [[1, 1], [2, 4]], [[2, 4], [3, 9]]],
    )
    np.testing.assert_array_equal(line.get_array(), [0, 1, 2])  # the colour is the time
    assert marks(figure) == [[[0, 0]], [[3, 9]], [[5, -1]]]
    assert figure.axes[0].get_title() == "e"


def test_trajectory_without_target_or_rotation():
    metrics = {"path": [(1, 2), (3, 4)]}
    viz = TrajectoryViz(
        path_to_trajectory=("path",),
        path_to_target_location=None,
        path_to_x=(0,),
        path_to_y=(1,),
        path_to_rot_degrees=None,
    )
    assert marks(viz.make_fig(metrics, "e")) == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(("adapt", "degrees"), [(None, 90.0), (lambda angle: -angle + 45, -45.0)])
def test_start_marker_is_turned(adapt, degrees):
    assert TrajectoryViz(adapt_rotation=adapt).rotation(PATH[0]) == degrees


def test_path_of_a_single_pose():
    figure = TrajectoryViz().make_fig(task("e", followed_path=PATH[:1]), "e")
    assert marks(figure) == [[[0, 0]], [[0, 0]]]
    assert figure_to_image(figure).shape == (200, 200, 3)


def test_trajectories_make_pages(pages, caplog):
    tasks = [task("a", followed_path=PATH), task("b"), task("c", followed_path=PATH), task("d", followed_path=PATH)]
    suite = VizSuite(mode="test", max_episodes_in_group=2, paths=TrajectoryViz())
    suite.log(pages, tasks, None, num_steps=5)
    assert {tag: image.shape for tag, (image, _) in pages.images.items()} == {
        "test/trajectory_group0": (200, 200, 3),  # b has no path
        "test/trajectory_group1": (200, 400, 3),
    }
    assert "of episodes b;" in caplog.text


def test_paths_of_several_agents():
    metrics = task("e", followed_path1=PATH, followed_path2=PATH[::-1])
    figure = MultiTrajectoryViz().make_fig(metrics, "e")
    assert marks(figure) == [[[0, 0]], [[3, 9]], [[3, 9]], [[0, 0]]]


def test_agents_without_a_path_are_left_out(pages):
    tasks = [task("a", followed_path2=PATH), task("b")]
    VizSuite(paths=MultiTrajectoryViz(axes_equal=False)).log(pages, tasks, None, num_steps=0)
    image, _ = pages.images["valid/trajectories_group0"]
    assert image.shape == (200, 200, 3)


def test_curve_of_a_scalar_and_of_a_vector():
    figure = TensorViz1D().make_fig([np.array(0.5), np.array([1.5]), np.array([[2.5]])], "e")
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 1.5, 2.5])
    assert len(TensorViz1D().make_fig([np.zeros(4), np.ones(4)], "e").axes[0].lines) == 4


def test_matrix_has_a_row_for_each_step():
    figure = TensorViz2D(figsize=(2, 2)).make_fig([np.full((1, 3), step) for step in range(5)], "e")
    (image,) = figure.axes[0].images
    np.testing.assert_array_equal(image.get_array(), np.arange(5)[:, None] * np.ones((1, 3)))


def test_labels_default_to_the_source():
    assert TensorViz1D().label == "action_log_probs"
    assert TensorViz2D().label == "memory_first_last/rnn"


def test_action_probabilities_are_drawn_with_the_names_of_the_actions(pages, monkeypatch):
    drawn = []
    monkeypatch.setattr(ActorViz, "log_figures", lambda self, writer, page, figures, steps: drawn.extend(figures))
    render = {"e": [{"actor_probs": np.array([0.2, 0.8])}, {"actor_probs": np.array([0.5, 0.5])}]}
    VizSuite(probs=ActorViz()).log(pages, [task("e", action_names=("up", "down"))], render, num_steps=0)
    axes = drawn[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.2, 0.8], [0.5, 0.5]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["up", "down"]
    assert figure_to_image(drawn[0]).shape == (500, 100, 3)
