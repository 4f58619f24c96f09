"""Tensors of the rollout storage over the course of an episode, as curves or as a matrix."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.viz.base import AbstractViz, Recording, RolloutSource, as_path, recorded, rollout_datum
from allenact.viz.trajectory import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from allenact.utils.summary_writer import SummaryWriter


class AbstractTensorViz(AbstractViz):
    """One figure per episode of one tensor of the rollout storage.

    Args:
        rollout_source: attribute of the storage, or the path to a tensor in it.
        label: name in the tags of TensorBoard; None: the source.
        figsize: width and height of a figure, in inches (100 pixels each).
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        rollout_source: RolloutSource,
        label: str | None = None,
        figsize: tuple[float, float] = (3, 3),
        **base_kwargs: Any,
    ) -> None:
        label = label or "/".join(as_path(rollout_source))
        super().__init__(label, rollout_sources=[rollout_source], **base_kwargs)
        self.figsize = figsize

    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Draws and writes one picture for each page."""
        values = recorded(render, rollout_datum(self.rollout_sources[0]))
        for page, episodes in self.pages(self.ids_of(task_outputs) or list(values), values):
            figures = [self.make_fig(values[episode], episode) for episode in episodes]
            self.log_figures(log_writer, page, figures, num_steps)

    @abc.abstractmethod
    def make_fig(self, episode_src: Sequence[np.ndarray], episode_id: str) -> Figure:
        """Draws one episode, given the tensor's value at each of its steps."""


class TensorViz1D(AbstractTensorViz):
    """A curve over the steps of the episode; one for each entry if the tensor is not a scalar.

    Args:
        rollout_source: attribute of the storage, or the path to a tensor in it.
        label: name in the tags of TensorBoard; None: the source.
        figsize: width and height of a figure, in inches (100 pixels each).
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        rollout_source: RolloutSource = "action_log_probs",
        label: str | None = None,
        figsize: tuple[float, float] = (3, 3),
        **base_kwargs: Any,
    ) -> None:
        super().__init__(rollout_source, label, figsize, **base_kwargs)

    def make_fig(self, episode_src: Sequence[np.ndarray], episode_id: str) -> Figure:
        """Draws one episode, given the tensor's value at each of its steps."""
        figure, axes = new_figure(self.figsize, 5, str(episode_id))
        axes.plot(as_rows(episode_src))
        axes.set_xlabel("step", fontsize=5)
        return figure


class TensorViz2D(AbstractTensorViz):
    """A matrix with a row for each step of the episode and a column for each entry of the tensor.

    Args:
        rollout_source: attribute of the storage, or the path to a tensor in it.
        label: name in the tags of TensorBoard; None: the source.
        figsize: width and height of a figure, in inches (100 pixels each).
        fontsize: of all text, in points.
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        rollout_source: RolloutSource = ("memory_first_last", "rnn"),
        label: str | None = None,
        figsize: tuple[float, float] = (10, 10),
        fontsize: float = 5,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(rollout_source, label, figsize, **base_kwargs)
        self.fontsize = fontsize

    def make_fig(self, episode_src: Sequence[np.ndarray], episode_id: str) -> Figure:
        """Draws one episode, given the tensor's value at each of its steps."""
        return matrix_figure(as_rows(episode_src), self.figsize, self.fontsize, str(episode_id))


def as_rows(values: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the values of T steps as a matrix, [T, entries]."""
    return np.stack([np.asarray(value).reshape(-1) for value in values])


def matrix_figure(
    matrix: np.ndarray,
    figsize: tuple[float, float],
    fontsize: float,
    title: str,
    column_names: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draws a matrix with a row for each step, and a scale of its colours unless their `limits` are given."""
    figure, axes = new_figure(figsize, fontsize, title)
    smallest, largest = limits or (None, None)
    image = axes.imshow(matrix, aspect="auto", interpolation="nearest", vmin=smallest, vmax=largest)
    if limits is None:
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=fontsize)
    axes.set_ylabel("step", fontsize=fontsize)
    if column_names is not None and len(column_names) == matrix.shape[1]:
        axes.set_xticks(range(len(column_names)), labels=list(column_names), rotation=90, fontsize=fontsize)
    return figure
