"""Paths in the plane: where the agent went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.viz.base import AbstractViz, Recording, follow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from allenact.utils.summary_writer import SummaryWriter

Path = Sequence[str | int]
"""Names or positions on the way into nested mappings and sequences."""


class TrajectoryViz(AbstractViz):
    """One figure per episode: the path coloured by time, its start, its end (square), and the target (star).

    Everything comes from the metrics that the task returns at its end, so nothing is recorded on the way.

    Args:
        path_to_trajectory: where the metrics hold the path, a sequence of poses.
        path_to_target_location: where they hold the target, if they do.
        path_to_x: where a pose holds what is drawn to the right.
        path_to_y: where a pose holds what is drawn upwards.
        path_to_rot_degrees: where a pose holds the direction the agent looks in, in degrees; None: not drawn.
        adapt_rotation: turns that direction into the counter-clockwise rotation of the start marker, in
            degrees.
        label: name in the tags of TensorBoard.
        figsize: width and height of a figure, in inches (100 pixels each).
        fontsize: of all text, in points.
        start_marker_shape: a matplotlib marker.
        start_marker_scale: its area, in square points.
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        path_to_trajectory: Path = ("task_info", "followed_path"),
        path_to_target_location: Path | None = ("task_info", "target_position"),
        path_to_x: Path = ("x",),
        path_to_y: Path = ("z",),
        path_to_rot_degrees: Path | None = ("rotation", "y"),
        adapt_rotation: Callable[[float], float] | None = None,
        label: str = "trajectory",
        figsize: tuple[float, float] = (2, 2),
        fontsize: float = 5,
        start_marker_shape: str = r"$\spadesuit$",
        start_marker_scale: float = 100,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(label, **base_kwargs)
        self.path_to_trajectory = path_to_trajectory
        self.path_to_target_location = path_to_target_location
        self.path_to_x = path_to_x
        self.path_to_y = path_to_y
        self.path_to_rot_degrees = path_to_rot_degrees
        self.adapt_rotation = adapt_rotation
        self.figsize = figsize
        self.fontsize = fontsize
        self.start_marker_shape = start_marker_shape
        self.start_marker_scale = start_marker_scale

    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Draws and writes one picture for each page."""
        metrics = {follow(task, self.path_to_id): task for task in task_outputs or () if self.has_path(task)}
        for page, episodes in self.pages(self.ids_of(task_outputs), metrics):
            figures = [self.make_fig(metrics[episode], episode) for episode in episodes]
            self.log_figures(log_writer, page, figures, num_steps)

    def has_path(self, metrics: Mapping[str, Any]) -> bool:
        """Whether there is something to draw in the metrics of a task."""
        trajectory = follow(metrics, self.path_to_trajectory)
        return trajectory is not None and len(trajectory) > 0

    def make_fig(self, episode: Mapping[str, Any], episode_id: str) -> Figure:
        """Draws one episode, given the metrics of its task."""
        figure, axes = new_figure(self.figsize, self.fontsize, str(episode_id))
        axes.set_aspect("equal", "datalim")
        self.draw_trajectory(axes, follow(episode, self.path_to_trajectory))
        target = None
        if self.path_to_target_location is not None:
            target = follow(episode, self.path_to_target_location)
        if target is not None:
            x, y = self.positions([target])[0]
            axes.scatter([x], [y], s=40, marker="*", color="red", zorder=4)
        return figure

    def positions(self, poses: Sequence[Any]) -> np.ndarray:
        """Returns where poses are in the plane, [T, 2]."""
        return np.array([[float(follow(pose, path)) for path in (self.path_to_x, self.path_to_y)] for pose in poses])

    def rotation(self, pose: Any) -> float:
        """Returns the counter-clockwise rotation of the start marker, in degrees."""
        degrees = None if self.path_to_rot_degrees is None else follow(pose, self.path_to_rot_degrees)
        if degrees is None:
            return 0.0
        return float(degrees if self.adapt_rotation is None else self.adapt_rotation(degrees))

    def draw_trajectory(self, axes: Axes, poses: Sequence[Any], colours: str = "cool", marker: str = "black") -> None:
        """Draws a path.

        Args:
            axes: where to draw.
            poses: at least one.
            colours: matplotlib colour map for the time that passed.
            marker: matplotlib colour of the start and the end.
        """
        from matplotlib.collections import LineCollection
        from matplotlib.markers import MarkerStyle
        from matplotlib.transforms import Affine2D

        points = self.positions(poses)  # [T, 2]
        segments = np.stack((points[:-1], points[1:]), axis=1)  # [T-1, 2, 2]
        time_passed = np.arange(len(segments))
        axes.add_collection(LineCollection(list(segments), array=time_passed, cmap=colours, linewidths=1))
        axes.update_datalim(points)
        rotation = Affine2D().rotate_deg(self.rotation(poses[0]))
        start = MarkerStyle(self.start_marker_shape, transform=rotation)
        axes.scatter(points[:1, 0], points[:1, 1], s=self.start_marker_scale, marker=start, color=marker, zorder=3)
        axes.scatter(points[-1:, 0], points[-1:, 1], s=15, marker="s", color=marker, zorder=3)
        axes.margins(0.1)
        axes.autoscale_view()


def new_figure(figsize: tuple[float, float], fontsize: float, title: str) -> tuple[Figure, Axes]:
    """Returns a figure with one set of axes, belonging to no window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=fontsize)
    axes.set_title(title, fontsize=fontsize)
    return figure, axes
