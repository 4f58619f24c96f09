"""Evaluates a policy: acts in every task of finite samplers once, and collects the metrics of the episodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector, notify_model, sample_actions
from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, mean_metrics
from allenact.errors import ExperimentConfigError
from allenact.utils import spaces_utils

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph
    from allenact.base_abstractions.task_batch import FinishedEpisode, StepBatch
    from allenact.viz import VizSuite

ROLLOUT_STEPS = 100  # steps between two roll-overs of the storage, so that memory stays bounded


@dataclass
class EvaluationResult:
    """The episodes of an evaluation, and what they took."""

    episodes: list[FinishedEpisode] = field(default_factory=list)
    steps: int = 0
    """Environment steps taken."""
    seconds: float = 0.0

    @property
    def means(self) -> dict[str, float]:
        """The mean of every metric over the episodes."""
        return mean_metrics(episode.metrics for episode in self.episodes)


def evaluate(
    actor_critic: ActorCriticModel[Any],
    vector_tasks: VectorTasks,
    rollout_storage: RolloutStorage,
    *,
    device: torch.device | None = None,
    preprocessors: SensorPreprocessorGraph | None = None,
    deterministic: bool = False,
    expert_actions: bool = False,
    visualizer: VizSuite | None = None,
    on_rollout_end: Callable[[RolloutCollector], None] = lambda collector: None,
    on_status: Callable[[EvaluationStatus], None] = lambda status: None,
    status_interval_s: float = math.inf,
) -> EvaluationResult:
    """Acts until every sampler has run out of tasks; each task counts exactly once.

    Args:
        actor_critic: the policy; put into evaluation mode by the caller.
        vector_tasks: finite samplers, on their first tasks. They are left exhausted (paused).
        rollout_storage: gives the model its inputs; filled and rolled over every 100 steps.
        device: where the model lives; default CPU.
        preprocessors: applied to the observations of every step.
        deterministic: take the mode of the action distribution instead of a sample.
        expert_actions: take the action that the `expert_action` sensor gives.
        visualizer: records the episodes, after every step.
        on_rollout_end: called before the storage is rolled over, for losses on its data.
        on_status: called with the progress of the evaluation.
        status_interval_s: seconds between two such calls.

    Raises:
        ExperimentConfigError: a sampler has no end.
    """
    total = require_finite(vector_tasks)
    collector = RolloutCollector(
        actor_critic,
        vector_tasks,
        device or torch.device("cpu"),
        preprocessors,
        choose_actions=_action_choice(actor_critic, deterministic, expert_actions),
    )
    started = last_status = time.monotonic()
    evaluation = _Evaluation(collector, rollout_storage, visualizer)
    while evaluation.active:
        evaluation.step()
        if evaluation.rows >= ROLLOUT_STEPS or (evaluation.rows and not evaluation.active):
            on_rollout_end(collector)
            rollout_storage.after_updates()
            evaluation.rows = 0
        if time.monotonic() - last_status > status_interval_s:
            last_status = time.monotonic()
            on_status(evaluation.status(total, last_status - started))
    evaluation.result.seconds = time.monotonic() - started
    return evaluation.result


class _Evaluation:
    """The state of an evaluation.

    Attributes:
        result: the episodes so far.
        active: the samplers that still have tasks, as indices among all.
        rows: steps in the storage.
    """

    def __init__(self, collector: RolloutCollector, storage: RolloutStorage, visualizer: VizSuite | None) -> None:
        self.collector = collector
        self.storage = storage
        self.visualizer = visualizer
        self.result = EvaluationResult()
        self.active = list(range(collector.vector_tasks.num_unpaused_tasks))
        self.rows = 0
        collector.initialize([storage])
        self._show_tasks()

    def status(self, total: int, seconds: float) -> EvaluationStatus:
        """Returns the progress, given the number of tasks and the seconds since the beginning."""
        return EvaluationStatus(len(self.result.episodes), total, self.result.steps, seconds, self.result.means)

    def step(self) -> None:
        """Takes one step in every active task and pauses the samplers that have no next one."""
        tasks = self.collector.vector_tasks
        decision = self.collector.act(self.storage)
        batch = tasks.step_batch(decision.flat_actions)
        self.result.episodes.extend(batch.episodes)
        self.result.steps += len(self.active)
        keep = [i for i in range(len(self.active)) if i not in batch.exhausted]
        for position in reversed(batch.exhausted):
            tasks.pause_at(position)
        if batch.exhausted:
            self.active = [self.active[i] for i in keep]
            if self.active:
                self.storage.sampler_select(keep)
                decision, batch = decision.select(keep), _select(batch, keep)
        notify_model(self.collector.actor_critic, keep)
        if self.active:
            self.collector.store([self.storage], decision, batch)
            self.rows += 1
        if self.visualizer is not None:
            self.visualizer.collect(rollout=self.storage, alive=self.active, actor_critic=decision.output)
            self._show_tasks()

    def _show_tasks(self) -> None:
        if self.visualizer is not None:
            self.visualizer.collect(vector_task=self.collector.vector_tasks, alive=self.active)


def require_finite(vector_tasks: VectorTasks) -> int:
    """Returns the number of tasks of all samplers, those already begun included.

    Raises:
        ExperimentConfigError: a sampler has no end.
    """
    lengths = vector_tasks.lengths()
    total = sum(lengths) + len(lengths)  # the first task of each sampler is already drawn
    if not math.isfinite(total):
        raise ExperimentConfigError(
            "evaluation would never end: a task sampler has no last task.",
            f"remaining tasks per sampler: {lengths}",
            "set max_tasks in valid_task_sampler_args and test_task_sampler_args.",
        )
    return int(total)


def _action_choice(
    actor_critic: ActorCriticModel[Any], deterministic: bool, expert_actions: bool
) -> Callable[[Any, dict[str, Any]], Any]:
    """Returns a function that picks actions from the model's distributions and the observations it saw."""
    if expert_actions:
        from allenact.base_abstractions.sensor import AbstractExpertActionSensor

        space = actor_critic.action_space
        flagged = AbstractExpertActionSensor.flagged_space(space)

        def expert(distributions: Any, observations: dict[str, Any]) -> Any:
            if "expert_action" not in observations:
                raise ExperimentConfigError(
                    "there are no expert actions to take.",
                    f"--test_expert, with sensors {', '.join(observations)}",
                    'give the test tasks an ExpertActionSensor with uuid "expert_action".',
                )
            return _expert_actions(spaces_utils.unflatten(flagged, observations["expert_action"]))

        return expert
    if deterministic:
        return lambda distributions, observations: distributions.mode()
    return sample_actions


def _expert_actions(flagged: Any) -> Any:
    """Drops the success flags of an unflattened expert observation."""
    from allenact.base_abstractions.sensor import AbstractExpertActionSensor as Expert

    if Expert.ACTION_POLICY_LABEL in flagged:
        return flagged[Expert.ACTION_POLICY_LABEL]
    return type(flagged)((group, _expert_actions(value)) for group, value in flagged.items())


def _select(batch: StepBatch, keep: list[int]) -> StepBatch:
    """Returns the rows of the samplers in `keep`, without what refers to positions."""

    def rows(value: Any) -> Any:
        return {key: rows(item) for key, item in value.items()} if isinstance(value, dict) else value[keep]

    return replace(
        batch,
        observations=rows(batch.observations),
        rewards=batch.rewards[keep],
        dones=batch.dones[keep],
        truncated=batch.truncated[keep],
        final_observations={},
        episodes=[],
        exhausted=[],
    )
