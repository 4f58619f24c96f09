"""The visualisers of a run, and how the evaluation and the runner use them together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from allenact.pipeline.builder import Builder
from allenact.utils.rendering import RenderingUnavailable, choose_gl_backend
from allenact.utils.system import get_logger
from allenact.viz.base import DEFAULT_EPISODES_IN_GROUP, AbstractViz, Recording, as_pages
from allenact.viz.recorder import EpisodeRecorder

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.base_abstractions.misc import ActorCriticOutput
    from allenact.utils.summary_writer import SummaryWriter


class VizSuite:
    """Visualisers that share which episodes of an evaluation they show; training episodes are never drawn.

    An experiment gives one to `MachineParams` for mode "valid" or "test"::

        VizSuite(mode="test", video=AgentViewViz(fps=30), paths=TrajectoryViz())

    Two copies of a suite work together. The one of the evaluation process records::

        suite.collect(vector_task=tasks, alive=active)   # after the storage's initialisation
        while active:
            ...                                          # act, step, drop exhausted samplers, store
            suite.collect(rollout=storage, alive=active, actor_critic=output)
            suite.collect(vector_task=tasks, alive=active)
            ...                                          # only now roll the storage over
        data = suite.read_and_reset()                    # picklable, to be sent to the runner

    and the one of the runner draws, also if `data` is empty (paths come from the metrics)::

        suite.log(writer, task_outputs=metrics, render=data, num_steps=training_steps)

    `alive` lists the indices of the active samplers, ascending, counted from the start of the evaluation (so
    they do not move when others are paused). Neither side ever raises because of a visualiser: what fails is
    reported in the log, once, and left out.

    Args:
        episode_ids: ids of the episodes to show: a list makes one page, a list of lists makes pages; None
            shows all, in the order of the tasks (a 1000-step episode with pictures takes some 30 MB until it is drawn).
            Ids must be unique within an evaluation.
        path_to_id: where the metrics of a task hold the episode's id; tasks return their `task_info` in
            `metrics()`.
        mode: first part of the tags of what is drawn.
        force_episodes_and_max_episodes_in_group: `episode_ids` and `max_episodes_in_group` also replace what
            visualisers set for themselves.
        max_episodes_in_group: episodes on one page where `episode_ids` does not make the pages.
        viz: visualisers or Builders of visualisers; anything else is ignored.
        kw_viz: likewise, under names of your choice.
    """

    def __init__(
        self,
        episode_ids: Sequence[str] | Sequence[Sequence[str]] | None = None,
        path_to_id: Sequence[str] = ("task_info", "id"),
        mode: str = "valid",
        force_episodes_and_max_episodes_in_group: bool = False,
        max_episodes_in_group: int = DEFAULT_EPISODES_IN_GROUP,
        *viz: AbstractViz | Builder[AbstractViz],
        **kw_viz: AbstractViz | Builder[AbstractViz],
    ) -> None:
        self.mode = mode
        self.path_to_id = path_to_id
        built = [item() if isinstance(item, Builder) else item for item in (*viz, *kw_viz.values())]
        self.viz = [item for item in built if isinstance(item, AbstractViz)]
        for item in self.viz:
            item.configure(
                mode=mode,
                path_to_id=path_to_id,
                episode_ids=as_pages(episode_ids),
                max_episodes_in_group=max_episodes_in_group,
                force=force_episodes_and_max_episodes_in_group,
            )
        self._recorder = EpisodeRecorder(self.viz, path_to_id)
        self._recording_failed = False

    def prepare(self) -> None:
        """Finds out how this machine draws, if tasks are to be drawn.

        Sampler processes that are started afterwards know the answer, so that not each of them has to find out.
        """
        if any(view.source[0] == "render" for view in self._recorder.views.values()):
            with contextlib.suppress(RenderingUnavailable):  # said when a task that needs it is to be drawn
                choose_gl_backend()

    def collect(
        self,
        vector_task: VectorTasks | None = None,
        alive: Sequence[int] | None = None,
        rollout: RolloutStorage | None = None,
        actor_critic: ActorCriticOutput | None = None,
    ) -> None:
        """Records what the visualisers want; see the class for when to call it with what.

        Args:
            vector_task: the tasks, before their next step.
            alive: indices of the active samplers; None: all of them.
            rollout: the rollout storage, after the last step was added.
            actor_critic: the model's output for that step.
        """
        if self._recording_failed:
            return
        try:
            if rollout is not None or actor_critic is not None:
                self._recorder.record_decisions(rollout, alive, actor_critic)
            if vector_task is not None:
                active = range(vector_task.num_unpaused_tasks) if alive is None else alive
                self._recorder.record_views(vector_task, active)
        except Exception:
            if vector_task is not None and vector_task.is_closed:
                raise  # a worker process died: the evaluation cannot go on, and this says why
            self._recording_failed = True
            get_logger().exception("Recording the episodes failed; from here on there are no visualisations.")

    def empty(self) -> bool:
        """Whether nothing has been recorded."""
        return len(self._recorder) == 0

    def read_and_reset(self) -> dict[str, list[dict[str, Any]]]:
        """Returns what has been recorded, {episode id: [{datum id: value} for each step]}, and forgets it."""
        return self._recorder.pop()

    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Draws the episodes of one evaluation.

        Args:
            log_writer: where to write.
            task_outputs: metrics of the evaluated tasks, in order.
            render: what `read_and_reset` returned.
            num_steps: environment steps the evaluated policy was trained for.
        """
        for viz in self.viz:
            try:
                viz.log(log_writer, task_outputs, render, num_steps)
            except Exception:
                get_logger().exception(f'Drawing "{viz.label}" failed; the other visualisations go on.')
