"""Paths of several agents in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from allenact.viz.base import follow
from allenact.viz.trajectory import Path, TrajectoryViz, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MultiTrajectoryViz(TrajectoryViz):
    """One figure per episode with the paths of all its agents.

    Args:
        path_to_trajectory_prefix: where the metrics hold the agents' paths; an agent's suffix is appended to
            the last name, so that the default finds `metrics["task_info"]["followed_path1"]`.
        agent_suffixes: one for each agent.
        label: name in the tags of TensorBoard.
        trajectory_plt_colormaps: a matplotlib colour map for each agent, used again from the start if too
            few.
        marker_plt_colors: a matplotlib colour for the start and end of each agent's path, likewise.
        axes_equal: whether a metre is as long in both directions.
        base_kwargs: see `TrajectoryViz`.
    """

    def __init__(
        self,
        path_to_trajectory_prefix: Path = ("task_info", "followed_path"),
        agent_suffixes: Sequence[str] = ("1", "2"),
        label: str = "trajectories",
        trajectory_plt_colormaps: Sequence[str] = ("cool", "spring"),
        marker_plt_colors: Sequence[str] = ("blue", "orange"),
        axes_equal: bool = True,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(label=label, **base_kwargs)
        *parents, name = path_to_trajectory_prefix
        self.agent_paths: list[Path] = [(*parents, f"{name}{suffix}") for suffix in agent_suffixes]
        self.trajectory_plt_colormaps = trajectory_plt_colormaps
        self.marker_plt_colors = marker_plt_colors
        self.axes_equal = axes_equal

    def has_path(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the metrics of a task hold the path of at least one agent."""
        return any(follow(metrics, path) for path in self.agent_paths)

    def make_fig(self, episode: Mapping[str, Any], episode_id: str) -> Figure:
        """Draws one episode, given the metrics of its task."""
        figure, axes = new_figure(self.figsize, self.fontsize, str(episode_id))
        if self.axes_equal:
            axes.set_aspect("equal", "datalim")
        for agent, path in enumerate(self.agent_paths):
            poses = follow(episode, path)
            if poses:
                colours = self.trajectory_plt_colormaps[agent % len(self.trajectory_plt_colormaps)]
                marker = self.marker_plt_colors[agent % len(self.marker_plt_colors)]
                self.draw_trajectory(axes, poses, colours, marker)
        return figure
