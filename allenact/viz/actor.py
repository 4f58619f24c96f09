"""Action probabilities of a policy with discrete actions, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.viz.base import ACTOR_DATUM, AbstractViz, Recording, follow, recorded
from allenact.viz.tensor import as_rows, matrix_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from allenact.utils.summary_writer import SummaryWriter


class ActorViz(AbstractViz):
    """One figure per episode: the probability of each action (columns) at each step (rows), dark for 0, bright for 1.

    Args:
        label: name in the tags of TensorBoard.
        action_names_path: where the metrics of a task hold the names of the actions, if they do.
        figsize: width and height of a figure, in inches (100 pixels each).
        fontsize: of all text, in points.
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        label: str = "action_probs",
        action_names_path: Sequence[str] = ("task_info", "action_names"),
        figsize: tuple[float, float] = (1, 5),
        fontsize: float = 5,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(label, actor_critic_source=True, **base_kwargs)
        self.action_names_path = action_names_path
        self.figsize = figsize
        self.fontsize = fontsize

    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Draws and writes one picture for each page."""
        probabilities = recorded(render, ACTOR_DATUM)
        names = {follow(task, self.path_to_id): follow(task, self.action_names_path) for task in task_outputs or ()}
        in_order = self.ids_of(task_outputs) or list(probabilities)
        for page, episodes in self.pages(in_order, probabilities):
            figures = [self.make_fig(probabilities[episode], episode, names.get(episode)) for episode in episodes]
            self.log_figures(log_writer, page, figures, num_steps)

    def make_fig(
        self, episode_src: Sequence[np.ndarray], episode_id: str, action_names: Sequence[str] | None
    ) -> Figure:
        """Draws one episode, given the probabilities at each of its steps."""
        matrix = as_rows(episode_src)  # [T, actions]
        return matrix_figure(
            matrix, self.figsize, self.fontsize, str(episode_id), column_names=action_names, limits=(0.0, 1.0)
        )
