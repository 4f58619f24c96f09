"""The training loop, `OnPolicyTrainer.run_pipeline`, and the wiring of its parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore, load_checkpoint, load_model_weights
from allenact.algorithms.onpolicy_sync.collection import RolloutCollector, StopRequested, sample_actions
from allenact.algorithms.onpolicy_sync.engine_base import (
    TEST_MODE_STR,
    TRAIN_MODE_STR,
    VALID_MODE_STR,
    OnPolicyRLEngine,
)
from allenact.algorithms.onpolicy_sync.inference_engine import OnPolicyInference
from allenact.algorithms.onpolicy_sync.resume import Boundary, capture_state, reseed, restore_state
from allenact.algorithms.onpolicy_sync.startup_checks import describe_training
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.algorithms.onpolicy_sync.update import PolicyUpdater, use_fused_kernels
from allenact.base_abstractions.distributions import TeacherForcingDistr
from allenact.errors import TaskWorkerError
from allenact.utils.metrics import ScalarMeanTracker
from allenact.utils.system import get_logger
from allenact.utils.timing import Timer

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.pipeline.stage import PipelineStage

__all__ = [
    "TEST_MODE_STR",
    "TRAIN_MODE_STR",
    "VALID_MODE_STR",
    "OnPolicyInference",
    "OnPolicyRLEngine",
    "OnPolicyTrainer",
]


class OnPolicyTrainer(OnPolicyRLEngine):
    """Trains the model as the experiment's pipeline says.

    Args:
        config: the experiment.
        checkpoints: where checkpoints are written, None to write none.
        send: takes a LogPackage, or the path of a checkpoint that was just written.
        save_ckpt_after_every_pipeline_stage: also save at the end of each stage.
        try_restart_after_task_error: restart crashed samplers once in each rollout.
        **engine_kwargs: see OnPolicyRLEngine.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        checkpoints: CheckpointStore | None = None,
        send: Callable[[LogPackage | Path], None] = lambda message: None,
        save_ckpt_after_every_pipeline_stage: bool = True,
        try_restart_after_task_error: bool = False,
        **engine_kwargs: Any,
    ) -> None:
        super().__init__(config, TRAIN_MODE_STR, **engine_kwargs)
        self.checkpoints = checkpoints
        self.send = send
        self.save_after_stages = save_ckpt_after_every_pipeline_stage
        self.try_restart_after_task_error = try_restart_after_task_error

        self.actor_critic.train()
        parameters = [parameter for parameter in self.actor_critic.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = self.training_pipeline.optimizer_builder(params=parameters)
        scheduler_builder = self.training_pipeline.lr_scheduler_builder
        self.lr_scheduler: Any = None if scheduler_builder is None else scheduler_builder(optimizer=self.optimizer)
        use_fused_kernels(self.optimizer)
        self.updater = PolicyUpdater(
            self.actor_critic, self.training_pipeline, self.optimizer, self.workers, self.num_samplers
        )
        torch.set_num_threads(1)  # acting for a few samplers is too little work to share; updates ask for more

        self.timer = Timer()
        self.stop_requested = False
        self.last_save = self.last_log = 0  # environment steps at which a checkpoint or a package was last written
        self.steps_in_rollout = 0  # environment steps of this worker since the rollout began
        self.stage_index: int | None = None
        self.storages_in_use: dict[str, ExperienceStorage] = {}
        self.boundary: Boundary | None = None
        self.warned_about_unsaved_samplers = False
        self.experiences_seen: dict[
            str, int
        ] = {}  # by storage uuid, of this worker, already in the pipeline's counters
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
        return self._collector

    def train(
        self,
        checkpoint_file_name: str | None = None,
        restart_pipeline: bool = False,
        valid_on_initial_weights: bool = False,
    ) -> bool:
        """Trains to the end of the pipeline, or until asked to stop.

        Args:
            checkpoint_file_name: what to start from, None for the initial weights.
            restart_pipeline: take only the weights of the checkpoint.
            valid_on_initial_weights: save a checkpoint before training begins.

        Returns:
            Whether training came to its end (False: it was asked to stop, and saved where it was).
        """
        if checkpoint_file_name is not None:
            self.load_checkpoint(checkpoint_file_name, restart_pipeline)
        self.training_pipeline.before_rollout()
        if self.training_pipeline.current_stage is None:
            get_logger().info(f"Training is already complete at {self.training_pipeline.total_steps:,} steps.")
            return True
        if self.worker_id == 0:
            describe_training(self)
        try:
            self.run_pipeline(valid_on_initial_weights)
        except StopRequested:
            self.save_checkpoint()
            return False
        return True

    def run_pipeline(self, valid_on_initial_weights: bool = False) -> None:
        """Collects, updates, repeats, until every stage of the pipeline is complete."""
        pipeline = self.training_pipeline
        if valid_on_initial_weights:
            self.save_checkpoint()

        while (stage := pipeline.current_stage) is not None:
            storages = self.enter_stage(stage)
            self.boundary = Boundary.of(self)  # what a rollout that is cut short goes back to

            with self.timer("collect"):
                steps = self.collect(stage, storages)
            with self.timer("returns"):
                self.prepare_updates(stage, storages)
            with self.timer("update"):
                updates = self.updater.update(stage, storages)
            for storage in storages.values():
                storage.after_updates()

            self.count(stage, storages, steps)
            self.set_learning_rate()
            self.tracker.add_updates(updates)
            if self._collector is not None:
                self.tracker.add_episodes(self._collector.pop_episodes())
            self.advance_scenes(stage, storages)

            will_log = self.should_log(stage)
            stage_ended = pipeline.before_rollout(self._early_stopping_metrics() if will_log else None)
            will_save = self.should_save(stage, stage_ended)
            if will_log or stage_ended:
                self.log(with_checkpoint=will_save)
            if will_save:  # after the log, so that a resumed run does not log the same again
                with self.timer("save"):
                    self.save_checkpoint()

    def enter_stage(self, stage: PipelineStage) -> dict[str, ExperienceStorage]:
        """Returns the storages of `stage`; those that enter use begin with the current observations."""
        pipeline = self.training_pipeline
        if pipeline.current_stage_index != self.stage_index:
            self.stage_index = pipeline.current_stage_index
            storages = pipeline.get_stage_storage(stage)
            self.initialize_storages({k: v for k, v in storages.items() if k not in self.storages_in_use})
            self.storages_in_use = storages
            if pipeline.rollout_storage is not None:
                forced = stage.teacher_forcing is not None
                self.collector.choose_actions = self._choose_with_teacher if forced else sample_actions
            stage.change_engine_attributes(self)
        return self.storages_in_use

    def prepare_storage(self, storage: ExperienceStorage) -> None:
        """Tells a storage where it lives, which part of the data is this worker's, and how long rollouts are."""
        storage.to(self.device)
        storage.set_partition(index=self.worker_id, num_parts=self.num_workers)
        stage = self.training_pipeline.current_stage
        if isinstance(storage, RolloutBlockStorage) and stage is not None:
            storage.reserve(stage.training_settings.num_steps)

    def initialize_storages(self, storages: dict[str, ExperienceStorage]) -> None:
        """Brings storages into use, with the tasks' current observations as their first row."""
        for storage in storages.values():
            self.prepare_storage(storage)
        if self.training_pipeline.rollout_storage is not None and storages:
            self.collector.initialize(storages.values())
        else:
            for storage in storages.values():
                storage.initialize(
                    observations={},
                    num_samplers=0,
                    recurrent_memory_specification=self.actor_critic.recurrent_memory_specification,
                    action_space=self.actor_critic.action_space,
                )

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
            if not self.try_restart_after_task_error:
                raise
            get_logger().warning(f"Task samplers are restarted and this rollout begins anew: {error}")
        self._restart_samplers(storages)
        return play(self.collector)

    def _restart_samplers(self, storages: dict[str, ExperienceStorage]) -> None:
        """Replaces the task samplers by new ones, on new tasks; what the rollout had gathered is dropped."""
        self.vector_tasks.close()
        self._vector_tasks = self._collector = None
        self.steps_in_rollout = 0
        self.initialize_storages(storages)

    def _count_step(self, steps: int) -> None:
        self.steps_in_rollout += steps

    def _choose_with_teacher(self, distributions: Any, observations: dict[str, Any]) -> Any:
        """Samples from the model, and takes the expert's actions instead as often as the stage says."""
        stage = self.training_pipeline.current_stage
        if stage is not None and stage.teacher_forcing is not None:
            distributions = TeacherForcingDistr(
                distr=distributions,
                obs=observations,
                action_space=self.actor_critic.action_space,
                num_active_samplers=self.vector_tasks.num_unpaused_tasks,
                approx_steps=stage.steps_taken_in_stage + self.steps_in_rollout * self.num_workers,
                teacher_forcing=stage.teacher_forcing,
                tracking_callback=self._track_teacher_forcing,
            )
        return distributions.sample()

    def _track_teacher_forcing(self, *, info: dict[str, float], n: int, **kwargs: Any) -> None:
        for key, value in info.items():
            self.tracker.add_scalar(f"{self.mode}-misc/{key}", float(value), n)

    def prepare_updates(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Lets every storage compute its targets."""
        settings = stage.training_settings
        rollout_storage = self.training_pipeline.rollout_storage
        next_value = None if rollout_storage is None else self.collector.next_value(rollout_storage)  # [N, 1]
        for storage in storages.values():
            storage.before_updates(
                next_value=next_value,
                use_gae=settings.use_gae,
                gamma=settings.gamma,
                tau=settings.gae_lambda,
                adv_stats_callback=self.workers.advantage_stats,
            )

    def count(self, stage: PipelineStage, storages: dict[str, ExperienceStorage], steps: int) -> None:
        """Adds what all workers did in this rollout to the counters of pipeline and stage."""
        self.training_pipeline.rollout_count += 1
        stage.rollout_count += 1
        stage.steps_taken_in_stage += self.workers.sum_int(steps) if self.training_pipeline.rollout_storage else steps
        gained = stage.storage_uuid_to_steps_taken_in_stage
        for uuid, storage in storages.items():
            new = storage.total_experiences - self.experiences_seen.get(uuid, 0)
            self.experiences_seen[uuid] = storage.total_experiences
            gained[uuid] = gained.get(uuid, 0) + self.workers.sum_int(new)
        self.steps_in_rollout = 0

    def set_learning_rate(self) -> None:
        """Sets the learning rate that the schedule has at the total number of environment steps."""
        if self.lr_scheduler is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns that schedules of a given step are out of fashion
                self.lr_scheduler.step(self.training_pipeline.total_steps)

    def advance_scenes(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Every `advance_scene_rollout_period` rollouts, drops the running episodes and draws new tasks."""
        period = stage.training_settings.advance_scene_rollout_period
        if period and self.training_pipeline.rollout_count % period == 0:
            self.vector_tasks.next_task(force_advance_scene=True)
            self.initialize_storages(storages)

    # Logs

    def should_log(self, stage: PipelineStage) -> bool:
        """Whether `metric_accumulate_interval` environment steps have passed, or the stage is complete."""
        interval = stage.training_settings.metric_accumulate_interval
        return stage.is_complete or self.training_pipeline.total_steps - self.last_log >= interval

    def log(self, with_checkpoint: bool) -> None:
        """Sends what was gathered since the last log.

        Args:
            with_checkpoint: whether a checkpoint is about to be written at this step.
        """
        pipeline = self.training_pipeline
        checkpoint = self.checkpoint_path() if with_checkpoint else None
        self.last_log = pipeline.total_steps
        self.send(
            self.tracker.pop(
                training_steps=pipeline.total_steps,
                storage_experiences=pipeline.storage_uuid_to_total_experiences,
                pipeline_stage=self.stage_index,
                checkpoint_file_name=None if checkpoint is None else str(checkpoint),
                seconds=self.timer.pop(),
            )
        )

    def _early_stopping_metrics(self) -> ScalarMeanTracker:
        metrics = ScalarMeanTracker()
        for episode in self.tracker.metrics:
            metrics.add_scalars({key: value for key, value in episode.items() if key != "task_info"})
        return metrics

    # Checkpoints

    def should_save(self, stage: PipelineStage, stage_ended: bool) -> bool:
        """Whether `save_interval` environment steps have passed since the last checkpoint, or `stage` has ended."""
        interval = stage.training_settings.save_interval
        if self.checkpoints is None or self.worker_id != 0 or interval is None:
            return False
        if stage_ended and self.save_after_stages:
            return True
        return interval > 0 and self.training_pipeline.total_steps - self.last_save >= interval

    def checkpoint_path(self) -> Path | None:
        """Returns the file that a checkpoint written now gets, None if this worker writes none."""
        if self.checkpoints is None or self.worker_id != 0:
            return None
        return self.checkpoints.path(self.stage_index or 0, self.training_pipeline.total_steps)

    def save_checkpoint(self) -> None:
        """Writes a checkpoint and announces it."""
        path = self.checkpoint_path()
        if self.checkpoints is not None and path is not None:
            self.last_save = self.training_pipeline.total_steps
            self.checkpoints.save(capture_state(self), path)
            self.send(path)

    def load_checkpoint(self, path: str, restart_pipeline: bool = False) -> None:
        """Continues from a checkpoint, exactly if it holds all that is needed.

        Args:
            path: the file.
            restart_pipeline: take only the weights.

        Raises:
            CheckpointError: the file cannot be read, or is of another model or pipeline.
        """
        state = load_checkpoint(path)
        load_model_weights(self.actor_critic, state, path)
        if restart_pipeline:
            self.training_pipeline.restart_pipeline()
            reseed(self)
        else:
            restore_state(self, state)
