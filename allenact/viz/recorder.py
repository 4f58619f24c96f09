"""Evaluation side of the visualisation: records what the visualisers want of each episode, step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allenact.errors import ExperimentConfigError
from allenact.utils.rendering import DEBIAN_PACKAGES, RenderingUnavailable
from allenact.utils.system import get_logger
from allenact.viz.base import (
    ACTOR_DATUM,
    CRITIC_DATUM,
    AbstractViz,
    RolloutSource,
    VectorTaskSource,
    as_path,
    follow,
    rollout_datum,
    vector_task_datum,
)
from allenact.viz.frames import CompressedImage

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.base_abstractions.misc import ActorCriticOutput


@dataclass
class _View:
    """A vector task source, and what the visualisers that share it need of it."""

    source: VectorTaskSource
    ids: set[str] | None  # None: all episodes
    max_side: int | None  # pixels; None: the full size
    max_steps: int | None  # None: all
    works: bool = True
    without_opengl: bool = False  # whether to ask for drawings, because OpenGL has been found missing

    def wants(self, episode: str, steps_recorded: int) -> bool:
        return (
            self.works
            and (self.ids is None or episode in self.ids)
            and (self.max_steps is None or steps_recorded < self.max_steps)
        )


class EpisodeRecorder:
    """Records episodes while they run; memory stays small because images are kept compressed.

    Step k of an episode holds the views before its action k and, from the storage, the row of action k. The
    view after the last action is not recorded, nor are the storage's data of the last action of a sampler's
    last episode.

    A source that fails is reported once and not asked again: no visualisation is worth an evaluation. Where OpenGL is
    missing, tasks are asked for a drawing that does without (`task.render("rgb", without_opengl=True)`).

    Args:
        visualizers: what will draw the episodes.
        path_to_id: where the metrics of a task hold the episode's id; the first name is an attribute of
            tasks.
    """

    def __init__(self, visualizers: Sequence[AbstractViz], path_to_id: Sequence[str]) -> None:
        self.path_to_id = path_to_id
        self.views = _shared_views(visualizers)
        self.rollout_sources = {rollout_datum(source): source for viz in visualizers for source in viz.rollout_sources}
        self.wants_actor_critic = any(viz.actor_critic_source for viz in visualizers)
        self.ids = _union(viz.wanted_ids for viz in visualizers)
        self.records_nothing = not (self.views or self.rollout_sources or self.wants_actor_critic)
        self._reported: set[str] = set()
        self._steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._running: dict[int, str | None] = {}  # sampler -> id of the episode it is playing

    def __len__(self) -> int:
        """Number of episodes something has been recorded of."""
        return len(self._steps)

    def pop(self) -> dict[str, list[dict[str, Any]]]:
        """Returns what has been recorded, by episode id, and forgets it."""
        steps, self._steps, self._running = dict(self._steps), defaultdict(list), {}
        return steps

    def record_views(self, vector_tasks: VectorTasks, alive: Sequence[int]) -> None:
        """Begins the next step of the episodes that the samplers `alive` are playing now."""
        if self.records_nothing:
            return
        infos = vector_tasks.attr(self.path_to_id[0]) if len(alive) else []
        self._running = {
            sampler: self._checked_id(follow(info, self.path_to_id[1:]))
            for sampler, info in zip(alive, infos, strict=True)
        }
        for episode in self._running.values():
            if episode is not None:
                self._steps[episode].append({})
        for view in self.views.values():
            try:
                self._record_view(view, vector_tasks)
            except Exception as error:
                if vector_tasks.is_closed:
                    raise  # there is nothing left to go on with
                view.works = False
                self._report(_explain(view.source, error))

    def _record_view(self, view: _View, vector_tasks: VectorTasks) -> None:
        wanted = {
            position: episode
            for position, episode in enumerate(self._running.values())
            if episode is not None and view.wants(episode, len(self._steps[episode]) - 1)
        }
        if not wanted:
            return
        values = self._ask(view, vector_tasks, list(wanted))
        for episode, value in zip(wanted.values(), values, strict=True):
            if view.source[0] == "render":
                value = CompressedImage.from_array(value, view.max_side)
            self._steps[episode][-1][vector_task_datum(view.source)] = value

    def _ask(self, view: _View, vector_tasks: VectorTasks, positions: list[int]) -> list[Any]:
        """Returns what the active samplers at `positions` show."""
        num_active = len(self._running)
        try:
            return _ask(view.source, vector_tasks, positions, num_active, view.without_opengl)
        except RenderingUnavailable as error:
            if view.without_opengl:
                raise
            values = _ask(view.source, vector_tasks, positions, num_active, without_opengl=True)
            view.without_opengl = True
            self._report(f"The videos of this evaluation are drawings of paths and joints: {error}")
            return values

    def record_decisions(
        self,
        rollout: RolloutStorage | None,
        alive: Sequence[int] | None,
        actor_critic: ActorCriticOutput | None,
    ) -> None:
        """Adds to the current step what the storage and the model say about its action.

        Args:
            rollout: the storage, after the step was added and before it is rolled over.
            alive: the samplers the storage has columns for; None: those that were playing.
            actor_critic: the model's output, with one column for each of them or for each that was playing.
        """
        alive = list(self._running) if alive is None else list(alive)
        for datum, source in list(self.rollout_sources.items()) if rollout is not None else ():
            try:
                values = newest_row(rollout, source)
            except Exception as error:
                del self.rollout_sources[datum]
                self._report(f"Cannot record {'/'.join(as_path(source))} of the rollout storage: {error}")
            else:
                if len(values) == len(alive):
                    self._add(datum, alive, values)
        if actor_critic is not None and self.wants_actor_critic:
            probabilities = getattr(actor_critic.distributions, "probs", None)
            if probabilities is None:
                self.wants_actor_critic = False
                self._report("Only a policy with discrete actions has probabilities to draw.")
                return
            samplers = alive if probabilities.shape[1] == len(alive) else list(self._running)
            self._add(ACTOR_DATUM, samplers, _to_numpy(probabilities[0]))
            self._add(CRITIC_DATUM, samplers, _to_numpy(actor_critic.values[0]))

    def _add(self, datum: str, samplers: Sequence[int], values: np.ndarray) -> None:
        """Adds one row of `values`, [N, ...], to the running episode of each sampler."""
        for sampler, value in zip(samplers, values, strict=True):
            episode = self._running.get(sampler)
            if episode is not None:
                self._steps[episode][-1][datum] = value

    def _checked_id(self, episode: Any) -> str | None:
        """Returns the id of an episode that will be drawn, else None."""
        if episode is None:
            self._report(f"Tasks without {'/'.join(self.path_to_id)} cannot be visualised: they have no episode id.")
        return episode if episode is not None and (self.ids is None or episode in self.ids) else None

    def _report(self, message: str) -> None:
        """Warns, once for each message."""
        if message not in self._reported:
            self._reported.add(message)
            get_logger().warning(message)


def newest_row(rollout: Any, source: RolloutSource) -> np.ndarray:
    """Returns what a rollout storage holds at the row of the newest action, sampler first: [N, ...]."""
    name, *path = as_path(source)
    value = getattr(rollout, name)
    row = -1 if name == "memory_first_last" else rollout.step - 1  # the memory after that action
    if isinstance(value, torch.Tensor):
        return _to_numpy(value[row])  # [N, ...]
    key = path[0] if len(path) == 1 else getattr(rollout, "FLATTEN_SEPARATOR", "/").join(path)
    tensor, sampler_dim = value[key]
    return np.moveaxis(_to_numpy(tensor[row]), sampler_dim - 1, 0)  # [N, ...]


def _ask(
    source: VectorTaskSource, vector_tasks: VectorTasks, positions: list[int], num_active: int, without_opengl: bool
) -> list[Any]:
    """Returns what a source gives for the active samplers at `positions`, without rendering the others."""
    method, kwargs = source
    drawn = {"without_opengl": True} if without_opengl else {}
    if method == "render" and kwargs.get("mode") == "rgb_array" and num_active > 1:
        raise ExperimentConfigError(
            'mode "rgb_array" draws all task samplers into one picture.',
            given=f"{source} with {num_active} active samplers",
            do='use ("render", {"mode": "raw_rgb_list"}), or one sampler (nprocesses=1).',
        )
    if method == "render" and kwargs == {"mode": "raw_rgb_list"} and len(positions) < num_active:
        from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import RENDER_COMMAND

        return [vector_tasks.command_at(position, RENDER_COMMAND, ((), drawn)) for position in positions]
    values = getattr(vector_tasks, method)(**kwargs, **drawn)
    if method == "render" and kwargs.get("mode") == "rgb_array":
        return [values]
    return [values[position] for position in positions]


def _explain(source: VectorTaskSource, error: Exception) -> str:
    """Returns the warning about a source that failed."""
    if source[0] != "render":
        return f"Cannot record {source}: {error!r}. The evaluation goes on without."
    message = f"No pictures of this evaluation, which goes on without: {error!s} ({type(error).__name__})"
    if DEBIAN_PACKAGES not in message and not isinstance(error, ExperimentConfigError):
        message += f"\nIf drawing is what failed: apt-get install -y {DEBIAN_PACKAGES} (needs no display)."
    return message


def _shared_views(visualizers: Sequence[AbstractViz]) -> dict[str, _View]:
    """Returns the vector task sources of all visualisers, each with the most that any of them needs."""
    users: dict[str, list[AbstractViz]] = defaultdict(list)
    sources: dict[str, VectorTaskSource] = {}
    for viz in visualizers:
        for source in viz.vector_task_sources:
            sources[vector_task_datum(source)] = source
            users[vector_task_datum(source)].append(viz)
    return {
        datum: _View(
            source,
            ids=_union(viz.wanted_ids for viz in users[datum]),
            max_side=_largest(viz.max_render_size for viz in users[datum]),
            max_steps=_largest(viz.max_recorded_steps for viz in users[datum]),
        )
        for datum, source in sources.items()
    }


def _union(sets: Iterable[set[str] | None]) -> set[str] | None:
    """Returns the union of sets of ids, where None stands for all of them."""
    union: set[str] = set()
    for ids in sets:
        if ids is None:
            return None
        union |= ids
    return union


def _largest(limits: Iterable[int | None]) -> int | None:
    """Returns the largest limit, where None stands for no limit."""
    limits = list(limits)
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Returns a copy, since the storage reuses its memory."""
    return tensor.detach().cpu().numpy().copy()
