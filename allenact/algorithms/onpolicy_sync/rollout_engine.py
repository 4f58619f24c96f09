"""RolloutEngine: collects rollouts into the storages of the current stage, and replaces samplers that crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector, StopRequested, sample_actions
from allenact.algorithms.onpolicy_sync.engine_base import TRAIN_MODE_STR, OnPolicyRLEngine
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage, RolloutStorage
from allenact.algorithms.onpolicy_sync.teacher import Teacher
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import ProcessVectorTasks
from allenact.errors import TaskWorkerError
from allenact.utils.seeding import restore_rng_state, worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.resume import Snapshot
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.base_abstractions.task_batch import FinishedEpisode
    from allenact.pipeline.stage import PipelineStage

Answer = TypeVar("Answer")
MOST_SAMPLER_RESTARTS = 10
"""Crashes of task samplers that a run survives, if it is to survive them; the next one ends it."""


class RolloutEngine(OnPolicyRLEngine):
    """The collecting half of a training worker: brings storages into use, fills them, replaces samplers that crash.

    Args:
        config: the experiment.
        try_restart_after_task_error: replace sampler processes that are lost, once in each rollout and
            `MOST_SAMPLER_RESTARTS` times.
        **engine_kwargs: see OnPolicyRLEngine.

    Attributes:
        stop_requested: whether collecting is to stop.
        stage_index: of the stage that was entered last, None before the first one.
        storages_in_use: of that stage, by uuid.
        steps_in_rollout: environment steps of this worker since the rollout began.
        snapshot: what to go back to if the current rollout or update is interrupted, None between two rollouts.
        restarts: crashes of samplers that the run has survived.
        dropped_episodes: which ended with these crashes.
        experiences_seen: by storage uuid, of this worker, already in the pipeline's counters.
    """

    def __init__(
        self, config: ExperimentConfig, *, try_restart_after_task_error: bool = False, **engine_kwargs: Any
    ) -> None:
        super().__init__(config, TRAIN_MODE_STR, **engine_kwargs)
        self.restarts_samplers = try_restart_after_task_error
        self.stop_requested = False
        self.stage_index: int | None = None
        self.storages_in_use: dict[str, ExperienceStorage] = {}
        self.steps_in_rollout = 0
        self.snapshot: Snapshot | None = None
        self.restarts = self.dropped_episodes = 0
        self.experiences_seen: dict[str, int] = {}
        self._collector: RolloutCollector | None = None

    @property
    def collector(self) -> RolloutCollector:
        """Steps the tasks; the samplers are started when it is first asked for."""
        if self._collector is None:
            self._collector = RolloutCollector(
                self.actor_critic,
                self.vector_tasks,
                self.device,
                self.preprocessors,
                stop_requested=lambda: self.stop_requested,
                num_workers=self.num_workers,
            )
            self._choose_sampling()
        return self._collector

    def pop_episodes(self) -> list[FinishedEpisode]:
        """Returns the episodes that ended since the last call; none without task samplers."""
        return [] if self._collector is None else self._collector.pop_episodes()

    def enter_stage(self, stage: PipelineStage) -> dict[str, ExperienceStorage]:
        """Returns the storages of `stage`; those that enter use begin with the current observations."""
        pipeline = self.training_pipeline
        if pipeline.current_stage_index != self.stage_index:
            self.stage_index = pipeline.current_stage_index
            storages = pipeline.get_stage_storage(stage)
            new = {uuid: storage for uuid, storage in storages.items() if uuid not in self.storages_in_use}
            self.retry_after_crash(partial(self.initialize_storages, new))
            self.storages_in_use = storages
            self._choose_sampling()
            stage.change_engine_attributes(self)
        return self.storages_in_use

    def _choose_sampling(self) -> None:
        """Lets the collector sample from the model alone, or with the expert where the stage asks for it."""
        stage = self.training_pipeline.current_stage
        if self._collector is None or stage is None:
            return
        self._collector.choose_actions = sample_actions
        if stage.teacher_forcing is not None:
            self._collector.choose_actions = Teacher(
                stage.teacher_forcing,
                self.actor_critic.action_space,
                stage_steps=lambda: stage.steps_taken_in_stage + self.steps_in_rollout * self.num_workers,
                tracker=self.tracker,
            )

    def prepare_storage(self, storage: ExperienceStorage) -> None:
        """Tells a storage where it lives, which part of the data is this worker's, and how long rollouts are."""
        storage.to(self.device)
        storage.set_partition(index=self.worker_id, num_parts=self.num_workers)
        stage = self.training_pipeline.current_stage
        if isinstance(storage, RolloutBlockStorage) and stage is not None:
            storage.reserve(stage.training_settings.num_steps)

    def initialize_storages(self, storages: dict[str, ExperienceStorage]) -> None:
        """Brings storages into use; if any of them takes rollouts, with the tasks' current observations."""
        for storage in storages.values():
            self.prepare_storage(storage)
        take_rollouts = any(isinstance(storage, RolloutStorage) for storage in storages.values())
        if self.training_pipeline.rollout_storage_uuid is not None and take_rollouts:
            self.collector.initialize(storages.values())
        else:
            self.initialize_without_tasks(storages.values())
        self.experiences_seen.update({uuid: storage.total_experiences for uuid, storage in storages.items()})

    def collect(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> int:
        """Collects one rollout; returns the environment steps that this worker took."""
        self.steps_in_rollout = 0
        rollout_storage = self.training_pipeline.rollout_storage
        if rollout_storage is None:
            if self.stop_requested:
                raise StopRequested
            return 1  # without environments a step is one iteration of updates
        settings = stage.training_settings
        collect = partial(
            RolloutCollector.collect,
            rollout_storage=rollout_storage,
            storages=list(storages.values()),
            num_steps=settings.num_steps,
            bootstrap_truncated=bool(settings.bootstrap_truncated),
            on_step=self._count_step,
        )
        return self.retry_after_crash(lambda: collect(self.collector), self.snapshot)

    def retry_after_crash(self, act: Callable[[], Answer], snapshot: Snapshot | None = None) -> Answer:
        """Calls `act`; if it loses a sampler process, replaces that process and calls `act` once more.

        Args:
            act: does something with the task samplers.
            snapshot: what to restore before the second call; None between two rollouts, when nothing has to be undone.

        Raises:
            TaskWorkerError: a process is lost and is not to be replaced, or one is lost again.
        """
        try:
            return act()
        except TaskWorkerError as error:
            if not self.restarts_samplers or self.restarts >= MOST_SAMPLER_RESTARTS:
                raise
            again = "" if snapshot is None else " and this rollout begins anew"
            get_logger().warning(f"Lost task samplers are restarted{again}: {error}")
        self._replace_lost_samplers(snapshot)
        return act()

    def _replace_lost_samplers(self, snapshot: Snapshot | None) -> None:
        """Lets lost samplers begin new tasks; all else goes back to `snapshot`, unless that is None.

        Samplers that are alive but have no saved state continue their episodes, with a recurrent memory of zeros.
        """
        tasks, count = self.vector_tasks, self.num_samplers
        if not isinstance(tasks, ProcessVectorTasks):
            raise TypeError(f"{type(tasks).__name__} has no processes that could be lost")
        self.restarts += 1
        seeds = worker_seeds(count, None)
        if snapshot is None:
            saved = {uuid: storage.state_dict() for uuid, storage in self.storages_in_use.items()}
            restarted, _ = tasks.restart_lost([None] * count, seeds)
            anew = restarted  # the others are where they were
        else:
            saved = snapshot.storage_states
            restarted, continuing = tasks.restart_lost(snapshot.sampler_states, seeds)
            anew = sorted([*restarted, *continuing])
            self.collector.pop_episodes()
            self.tracker.load_state_dict(snapshot.tracker_state)
            self.steps_in_rollout = 0
        self.dropped_episodes += len(restarted)
        self.initialize_storages(self.storages_in_use)
        self.load_storages({uuid: state for uuid, state in saved.items() if state is not None}, anew)
        if snapshot is not None:
            restore_rng_state(snapshot.rng_state)

    def load_storages(self, saved: Mapping[str, Any], restarted: Sequence[int]) -> None:
        """Restores storages that `initialize_storages` has brought into use.

        Args:
            saved: uuid -> what the storage's `state_dict` returned.
            restarted: samplers that begin a new episode instead.
        """
        for uuid, state in saved.items():
            storage = self.training_pipeline.get_storage(uuid)
            if isinstance(storage, RolloutStorage) and restarted:
                storage.load_state_dict(state, restarted=restarted)
            else:
                storage.load_state_dict(state)
            self.experiences_seen[uuid] = storage.total_experiences  # which loading has changed

    def _count_step(self, steps: int) -> None:
        self.steps_in_rollout += steps

    def advance_scenes(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Every `advance_scene_rollout_period` rollouts, drops the running episodes and draws new tasks."""
        period = stage.training_settings.advance_scene_rollout_period
        if period and self.training_pipeline.rollout_count % period == 0:
            self.retry_after_crash(partial(self._draw_new_tasks, storages))

    def _draw_new_tasks(self, storages: dict[str, ExperienceStorage]) -> None:
        self.vector_tasks.next_task(force_advance_scene=True)
        self.initialize_storages(storages)
