"""What every visualiser is: the data it wants of an episode, and how it draws episodes, page by page."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.errors import did_you_mean
from allenact.utils.system import get_logger
from allenact.viz.frames import tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from allenact.utils.summary_writer import SummaryWriter

VectorTaskSource = tuple[str, dict[str, Any]]
"""Name of a method of the vectorised tasks, and its keyword arguments."""

RolloutSource = str | Sequence[str]
"""Attribute of the rollout storage, or the path to a tensor in it."""

Recording = Mapping[str, Sequence[Mapping[str, Any]]]
"""Episode id -> for each step of that episode, datum id -> value."""

ACTOR_DATUM = "actor_probs"
CRITIC_DATUM = "critic_value"

DEFAULT_EPISODES_IN_GROUP = 8


def vector_task_datum(source: VectorTaskSource) -> str:
    """Returns the datum id under which what a vector task source gives is recorded."""
    method, kwargs = source
    return f"vector_task__{method}__vector_task_sep__{kwargs}"


def rollout_datum(source: RolloutSource) -> str:
    """Returns the datum id under which what a rollout source gives is recorded."""
    return "rollout_or_actor_critic__" + "__rollout_or_actor_critic_sep__".join(as_path(source))


def as_path(source: RolloutSource) -> tuple[str, ...]:
    """Returns a rollout source as a path of at least one name."""
    return (source,) if isinstance(source, str) else tuple(source)


def follow(data: Any, path: Sequence[Any]) -> Any:
    """Returns what lies in nested mappings or sequences at the end of `path`, None where the path breaks off."""
    for name in path:
        try:
            data = data[name]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def as_pages(episode_ids: Sequence[str] | Sequence[Sequence[str]] | None) -> list[list[str]] | None:
    """Returns episode ids, given as one page or as several, as a list of pages; None stands for all episodes."""
    if episode_ids is None:
        return None
    one_page = [episode for episode in episode_ids if isinstance(episode, str)]
    return [one_page] if len(one_page) == len(episode_ids) else [list(page) for page in episode_ids]


class AbstractViz(abc.ABC):
    """Draws episodes of an evaluation.

    A visualiser says which data it needs; the suite records them while the episodes run (`VizSuite.collect`)
    and hands them back for drawing (`log`).

    Args:
        label: name in the tags of TensorBoard; None: the class's name.
        vector_task_sources: methods of the vectorised tasks to call at every step, with their keywords, for
            instance `("render", {"mode": "raw_rgb_list"})`: one image for each active sampler.
        rollout_sources: what to take from the newest row of the rollout storage, for instance
            `"action_log_probs"` or `("memory_first_last", "rnn")`.
        actor_critic_source: whether to record the probabilities of all actions, and the value.
        max_episodes_in_group: episodes on one page; None: what the suite says.
        kwargs: not used; reported, so that a misspelt name is noticed.

    Attributes:
        max_render_size: longest side, in pixels, of the images this visualiser needs; None: as they are.
        max_recorded_steps: steps of an episode whose vector task sources this visualiser needs; None: all.
        mode: first part of the tags, set by the suite.
        path_to_id: where the metrics of a task hold the episode's id, set by the suite.
        episode_ids: pages of ids to draw, None: all episodes in the order of the tasks.
    """

    def __init__(
        self,
        label: str | None = None,
        vector_task_sources: Sequence[VectorTaskSource] = (),
        rollout_sources: Sequence[RolloutSource] = (),
        actor_critic_source: bool = False,
        max_episodes_in_group: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.label = label or type(self).__name__
        self.vector_task_sources = list(vector_task_sources)
        self.rollout_sources = list(rollout_sources)
        self.actor_critic_source = actor_critic_source
        self.max_episodes_in_group = max_episodes_in_group
        self.max_render_size: int | None = None
        self.max_recorded_steps: int | None = None
        self.mode = "valid"
        self.path_to_id: Sequence[str] = ("task_info", "id")
        self.episode_ids: list[list[str]] | None = None
        known = [
            "label",
            "max_episodes_in_group",
            "vector_task_sources",
            "rollout_sources",
            "actor_critic_source",
        ]
        for name in kwargs:
            get_logger().warning(f'{type(self).__name__}: unused argument "{name}". {did_you_mean(name, known)}')

    def configure(
        self,
        *,
        mode: str,
        path_to_id: Sequence[str],
        episode_ids: list[list[str]] | None,
        max_episodes_in_group: int,
        force: bool,
    ) -> None:
        """Takes over the suite's settings; own episodes and page size win unless `force`."""
        self.mode = mode
        self.path_to_id = path_to_id
        if force or self.episode_ids is None:
            self.episode_ids = episode_ids
        if force or self.max_episodes_in_group is None:
            self.max_episodes_in_group = max_episodes_in_group

    @property
    def wanted_ids(self) -> set[str] | None:
        """Ids of the episodes that will be drawn, None: all."""
        return None if self.episode_ids is None else {episode for page in self.episode_ids for episode in page}

    @abc.abstractmethod
    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Draws and writes the episodes of one evaluation.

        Args:
            log_writer: where to write.
            task_outputs: metrics of the evaluated tasks, in order.
            render: what was recorded of the episodes.
            num_steps: environment steps the evaluated policy was trained for.
        """

    def tag(self, page: int) -> str:
        """Returns the tag of a page."""
        return f"{self.mode}/{self.label}_group{page}"

    def ids_of(self, task_outputs: Sequence[Mapping[str, Any]] | None) -> list[str]:
        """Returns the ids of evaluated tasks, in order, without those that have none."""
        ids = [follow(metrics, self.path_to_id) for metrics in task_outputs or ()]
        return list(dict.fromkeys(episode for episode in ids if episode is not None))

    def pages(self, in_order: Sequence[str], available: Collection[str]) -> Iterator[tuple[int, list[str]]]:
        """Yields number and episode ids of each page that has something to show.

        Ids without data are left out, and named in one warning.

        Args:
            in_order: ids of all evaluated tasks; they make the pages unless certain episodes were asked for.
            available: the ids there are data for.
        """
        pages = self.episode_ids
        if pages is None:
            size = self.max_episodes_in_group or DEFAULT_EPISODES_IN_GROUP
            pages = [list(in_order[start : start + size]) for start in range(0, len(in_order), size)]
        missing = [episode for page in pages for episode in page if episode not in available]
        if missing:
            names = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            get_logger().warning(f'No data to draw "{self.label}" of episodes {names}; they are left out.')
        for number, page in enumerate(pages):
            present = [episode for episode in page if episode in available]
            if present:
                yield number, present

    def log_figures(self, log_writer: SummaryWriter, page: int, figures: Sequence[Figure], num_steps: int) -> None:
        """Writes the figures of a page as one picture."""
        grid = tile([figure_to_image(figure) for figure in figures])
        log_writer.add_image(self.tag(page), grid, global_step=num_steps, dataformats="HWC")


def figure_to_image(figure: Figure) -> np.ndarray:
    """Draws a matplotlib figure without any window system. [H, W, 3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # [H, W, 3]


def recorded(render: Recording | None, datum: str) -> dict[str, list[Any]]:
    """Returns for each episode the values of one datum, step by step; episodes without any are left out."""
    values = {episode: [step[datum] for step in steps if datum in step] for episode, steps in (render or {}).items()}
    return {episode: sequence for episode, sequence in values.items() if sequence}
