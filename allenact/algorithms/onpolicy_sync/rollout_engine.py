"""RolloutEngine: the storages of the current stage, and the rollouts that are played into them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector, StopRequested, sample_actions
from allenact.algorithms.onpolicy_sync.engine_base import TRAIN_MODE_STR, OnPolicyRLEngine
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.teacher import Teacher
from allenact.errors import TaskWorkerError
from allenact.utils.seeding import worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.resume import Boundary
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.pipeline.stage import PipelineStage

MOST_SAMPLER_RESTARTS = 10
"""Crashes of task samplers that a run survives, if it is to survive them; the next one ends it."""


class RolloutEngine(OnPolicyRLEngine):
    """What a training worker plays: it brings storages into use, and fills them; samplers that crash are replaced.

    Args:
        config: the experiment.
        try_restart_after_task_error: restart crashed samplers, once in each rollout and `MOST_SAMPLER_RESTARTS` times.
        **engine_kwargs: see OnPolicyRLEngine.

    Attributes:
        stop_requested: whether collecting is to be broken off.
        stage_index: of the stage that was entered last, None before the first one.
        storages_in_use: of that stage, by uuid.
        steps_in_rollout: environment steps of this worker since the rollout began.
        boundary: what to go back to if the current rollout or update is broken off, None between two rollouts.
        restarts: crashes of samplers that the run has survived.
        dropped_episodes: which ended with these crashes.
        experiences_seen: by storage uuid, of this worker, already in the pipeline's counters.
    """

    def __init__(
        self, config: ExperimentConfig, *, try_restart_after_task_error: bool = False, **engine_kwargs: Any
    ) -> None:
        super().__init__(config, TRAIN_MODE_STR, **engine_kwargs)
        self.try_restart_after_task_error = try_restart_after_task_error
        self.stop_requested = False
        self.stage_index: int | None = None
        self.storages_in_use: dict[str, ExperienceStorage] = {}
        self.steps_in_rollout = 0
        self.boundary: Boundary | None = None
        self.restarts = self.dropped_episodes = 0
        self.experiences_seen: dict[str, int] = {}
        self._collector: RolloutCollector | None = None

    @property
    def collector(self) -> RolloutCollector:
        """Plays the tasks; starts the samplers when first asked for."""
        if self._collector is None:
            self._collector = RolloutCollector(
                self.actor_critic,
                self.vector_tasks,
                self.device,
                self.preprocessors,
                stop_requested=lambda: self.stop_requested,
            )
            self._choose_sampling()
        return self._collector

    def enter_stage(self, stage: PipelineStage) -> dict[str, ExperienceStorage]:
        """Returns the storages of `stage`; those that enter use begin with the current observations."""
        pipeline = self.training_pipeline
        if pipeline.current_stage_index != self.stage_index:
            self.stage_index = pipeline.current_stage_index
            storages = pipeline.get_stage_storage(stage)
            self.initialize_storages({k: v for k, v in storages.items() if k not in self.storages_in_use})
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
        """Brings storages into use; if a rollout storage is among them, with the tasks' current observations."""
        for storage in storages.values():
            self.prepare_storage(storage)
        if self.training_pipeline.rollout_storage_uuid in storages:
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
        play = partial(
            RolloutCollector.collect,
            rollout_storage=rollout_storage,
            storages=list(storages.values()),
            num_steps=settings.num_steps,
            bootstrap_truncated=bool(settings.bootstrap_truncated),
            on_step=self._count_step,
        )
        try:
            return play(self.collector)
        except TaskWorkerError as error:
            if not self.try_restart_after_task_error or self.restarts >= MOST_SAMPLER_RESTARTS:
                raise
            get_logger().warning(f"Task samplers are restarted and this rollout begins anew: {error}")
        self._restart_samplers(storages)
        return play(self.collector)

    def _restart_samplers(self, storages: dict[str, ExperienceStorage]) -> None:
        """Replaces the task samplers by new ones, on new tasks; what the rollout had gathered is dropped."""
        self.restarts += 1
        self.dropped_episodes += self.num_samplers
        self.vector_tasks.close()
        self._vector_tasks = self._collector = None
        self.vector_tasks.set_seeds(worker_seeds(self.num_samplers, None))
        self.vector_tasks.next_task()  # the first tasks were those that the run began with
        if self.boundary is not None:
            self.tracker.load_state_dict(self.boundary.tracker_state)
        self.steps_in_rollout = 0
        self.initialize_storages(storages)

    def _count_step(self, steps: int) -> None:
        self.steps_in_rollout += steps

    def advance_scenes(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Every `advance_scene_rollout_period` rollouts, drops the running episodes and draws new tasks."""
        period = stage.training_settings.advance_scene_rollout_period
        if period and self.training_pipeline.rollout_count % period == 0:
            self.vector_tasks.next_task(force_advance_scene=True)
            self.initialize_storages(storages)
