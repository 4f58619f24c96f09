"""The training loop, `OnPolicyTrainer.run_pipeline`, and the wiring of its parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore, load_checkpoint, load_model_weights
from allenact.algorithms.onpolicy_sync.collection import StopRequested
from allenact.algorithms.onpolicy_sync.engine_base import (
    TEST_MODE_STR,
    TRAIN_MODE_STR,
    VALID_MODE_STR,
    OnPolicyRLEngine,
)
from allenact.algorithms.onpolicy_sync.inference_engine import OnPolicyInference
from allenact.algorithms.onpolicy_sync.non_finite import require_finite_observations
from allenact.algorithms.onpolicy_sync.policy import keeps_statistics
from allenact.algorithms.onpolicy_sync.resume import Snapshot, reseed, restore_state, save_snapshot
from allenact.algorithms.onpolicy_sync.rollout_engine import RolloutEngine
from allenact.algorithms.onpolicy_sync.startup_messages import describe_training
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage, RolloutStorage
from allenact.algorithms.onpolicy_sync.tracking import LogPackage, metric_means
from allenact.algorithms.onpolicy_sync.update import PolicyUpdater, set_learning_rate, use_fused_kernels
from allenact.errors import TaskWorkerError
from allenact.pipeline.builder import built
from allenact.utils.system import get_logger
from allenact.utils.timing import Timer

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.algorithms.onpolicy_sync.update import ComponentUpdate
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

# Updates longer than this are interrupted when the run is to stop; the weights are then those from before the update.
_LONG_UPDATE_S = 2.0


class OnPolicyTrainer(RolloutEngine):
    """Trains the model as the experiment's pipeline says.

    Args:
        config: the experiment.
        checkpoints: where checkpoints are written, None to write none.
        send: takes a LogPackage, or the path of a checkpoint that was just written.
        save_ckpt_after_every_pipeline_stage: also save at the end of each stage.
        **engine_kwargs: see RolloutEngine.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        checkpoints: CheckpointStore | None = None,
        send: Callable[[LogPackage | Path], None] = lambda message: None,
        save_ckpt_after_every_pipeline_stage: bool = True,
        **engine_kwargs: Any,
    ) -> None:
        super().__init__(config, **engine_kwargs)
        self.checkpoints = checkpoints
        self.send = send
        self.save_after_stages = save_ckpt_after_every_pipeline_stage

        self.actor_critic.train()
        parameters = [parameter for parameter in self.actor_critic.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = built(
            "optimizer", self.training_pipeline.optimizer_builder, params=parameters
        )
        scheduler_builder = self.training_pipeline.lr_scheduler_builder
        self.lr_scheduler: Any = (
            None if scheduler_builder is None else built("lr_scheduler", scheduler_builder, optimizer=self.optimizer)
        )
        use_fused_kernels(self.optimizer)
        self.updater = PolicyUpdater(
            self.actor_critic,
            self.training_pipeline,
            self.optimizer,
            self.workers,
            self.num_samplers,
            stop_requested=self._interrupts_update,
        )
        torch.set_num_threads(1)  # acting for a few samplers is too little work to share; updates ask for more

        self.timer = Timer()
        self.prepared = self._reported = False
        self.last_save = self.last_log = 0  # environment steps at which a checkpoint or a package was last written
        self.warned_about_unsaved_state = self.warned_about_statistics = False

    def prepare(self, checkpoint_file_name: str | None = None, restart_pipeline: bool = False) -> None:
        """Loads a checkpoint, if there is one, and starts the task samplers.

        Args:
            checkpoint_file_name: what to start from, None for the initial weights.
            restart_pipeline: take only the weights of the checkpoint.

        Raises:
            UsageError: checkpoint, model and tasks do not fit together.
        """
        if checkpoint_file_name is not None:
            self.load_checkpoint(checkpoint_file_name, restart_pipeline)
        self.training_pipeline.before_rollout()
        if self.training_pipeline.current_stage is not None and self.training_pipeline.rollout_storage is not None:
            _ = self.vector_tasks  # which starts them
        self.prepared = True

    def train(
        self,
        checkpoint_file_name: str | None = None,
        restart_pipeline: bool = False,
        valid_on_initial_weights: bool = False,
    ) -> bool:
        """Trains to the end of the pipeline, or until asked to stop.

        Args:
            checkpoint_file_name: what to start from; None to go on from `prepare` or the initial weights.
            restart_pipeline: take only the weights of the checkpoint.
            valid_on_initial_weights: save a checkpoint before training begins.

        Returns:
            Whether training came to its end (False: it was asked to stop, and saved where it was).
        """
        if checkpoint_file_name is not None or not self.prepared:
            self.prepare(checkpoint_file_name, restart_pipeline)
        if self.training_pipeline.current_stage is None:
            get_logger().info(f"Training is already complete at {self.training_pipeline.total_steps:,} steps.")
            return True
        if self.worker_id == 0:
            describe_training(self)
        try:
            self.run_pipeline(valid_on_initial_weights)
        except StopRequested:
            self.save_checkpoint(is_last=True)
            return False
        except Exception as error:
            self.save_after_failure(error)
            raise
        return True

    def run_pipeline(self, valid_on_initial_weights: bool = False) -> None:
        """Collects, updates, repeats, until every stage of the pipeline is complete."""
        pipeline = self.training_pipeline
        if valid_on_initial_weights:
            self.save_checkpoint()

        while (stage := pipeline.current_stage) is not None:
            storages = self.enter_stage(stage)
            self.take_snapshot()

            with self.timer("collect"):
                steps = self.collect(stage, storages)
                self.count_steps(stage, steps)
            with self.timer("returns"):
                self.prepare_updates(stage, storages)
            with self.timer("update"):
                updates = self.update(stage, storages)
            for storage in storages.values():
                storage.after_updates()

            self.count_experiences(stage, storages)
            self.report_first_rollout(steps)
            set_learning_rate(self.lr_scheduler, pipeline.total_steps)
            episodes = self.pop_episodes()
            self.tracker.add_updates(updates)
            self.tracker.add_episodes(episodes)
            self.advance_scenes(stage, storages)
            self.snapshot = None

            will_log = self.should_log(stage)
            stage_ended = pipeline.before_rollout(metric_means(episodes))
            will_save = self.should_save(stage, stage_ended)
            if will_log or stage_ended:
                self.log(with_checkpoint=will_save)
            if will_save:  # after the log, so that a resumed run does not log the same again
                with self.timer("save"):
                    self.save_checkpoint(is_last=pipeline.current_stage is None)

    def take_snapshot(self) -> None:
        """Takes the snapshot to go back to if this iteration is interrupted; with weights only if updates take long.

        Raises:
            StopRequested: somebody asked to stop before anything was begun.
        """
        if self.stop_requested:
            raise StopRequested
        if self.checkpoints is not None or self.restarts_samplers:
            is_long = self.timer.last("update", default=inf) > _LONG_UPDATE_S
            self.snapshot = self.retry_after_crash(partial(Snapshot.of, self, with_weights=is_long))

    def prepare_updates(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Lets every storage compute its targets, after checking that what was observed is finite."""
        settings = stage.training_settings
        rollout_storage = self.training_pipeline.rollout_storage
        next_value = None if rollout_storage is None else self.collector.next_value(rollout_storage)  # [1, N, 1]
        for storage in storages.values():
            if isinstance(storage, RolloutBlockStorage):
                require_finite_observations(storage.rows_for_model()["observations"])
            storage.before_updates(
                next_value=next_value,
                use_gae=settings.use_gae,
                gamma=settings.gamma,
                tau=settings.gae_lambda,
                adv_stats_callback=self.workers.advantage_stats,
            )

    def _interrupts_update(self) -> bool:
        """Whether the current update is to stop: somebody asked for it, and the weights from before it are kept."""
        return self.stop_requested and self.snapshot is not None and self.snapshot.weights is not None

    def update(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> list[ComponentUpdate]:
        """Learns from the rollout."""
        if self.snapshot is not None and self.snapshot.weights is None:
            self.snapshot = None  # the update overwrites the weights that it would need
        updates = self.updater.update(stage, storages)
        self.update_statistics(storages)
        return updates

    def update_statistics(self, storages: dict[str, ExperienceStorage]) -> None:
        """Gives the model the whole rollout, for the running statistics that it may keep."""
        storage = storages.get(self.training_pipeline.rollout_storage_uuid or "")
        if not isinstance(storage, RolloutStorage) or not keeps_statistics(self.actor_critic):
            return
        rollout = storage.observations_and_returns()
        if rollout is not None:
            self.actor_critic.update_statistics(*rollout, self.workers.sum)
        elif not self.warned_about_statistics:
            self.warned_about_statistics = True
            get_logger().warning(
                f"{type(self.actor_critic).__name__} keeps running statistics, but {type(storage).__name__} does not"
                " say what was collected: they stay as they are. Implement its observations_and_returns()."
            )

    def count_steps(self, stage: PipelineStage, steps: int) -> None:
        """Adds the steps that all workers took in this rollout to the counters of pipeline and stage."""
        self.training_pipeline.rollout_count += 1
        stage.rollout_count += 1
        samples = self.training_pipeline.rollout_storage is not None
        stage.steps_taken_in_stage += self.workers.sum_int(steps) if samples else steps
        self.steps_in_rollout = 0

    def count_experiences(self, stage: PipelineStage, storages: dict[str, ExperienceStorage]) -> None:
        """Adds what the storages of all workers gained in this rollout to the counters of the stage."""
        gained = stage.storage_uuid_to_steps_taken_in_stage
        for uuid, storage in storages.items():
            new = storage.total_experiences - self.experiences_seen.get(uuid, 0)
            self.experiences_seen[uuid] = storage.total_experiences
            gained[uuid] = gained.get(uuid, 0) + self.workers.sum_int(new)

    def report_first_rollout(self, steps: int) -> None:
        """Logs the speed of the first rollout, because the first regular log may be a long time away."""
        if self._reported or self.worker_id != 0:
            return
        self._reported = True
        collect, update = self.timer.last("collect", 0.0), self.timer.last("update", 0.0)
        get_logger().info(
            f"first rollout: {steps:,} steps collected in {collect:.1f} s, learned from in {update:.1f} s;"
            f" about {steps / max(collect + update, 1e-9):,.0f} steps/s"
        )

    # Logs

    def should_log(self, stage: PipelineStage) -> bool:
        """Whether `metric_accumulate_interval` environment steps have passed, or the stage is complete."""
        interval = stage.training_settings.metric_accumulate_interval
        return stage.is_complete or self.training_pipeline.total_steps - self.last_log >= interval

    def log(self, with_checkpoint: bool) -> None:
        """Sends what was tracked since the last log to the runner.

        Args:
            with_checkpoint: whether a checkpoint is about to be written at this step.
        """
        pipeline = self.training_pipeline
        checkpoint = self.checkpoint_path() if with_checkpoint else None
        self.last_log = pipeline.total_steps
        if self.updater.skipped:
            self.tracker.add_scalar("train-misc/skipped_mini_batches", self.updater.skipped)
        if self.restarts:
            self.tracker.add_scalar("train-misc/sampler_restarts", self.restarts)
            self.tracker.add_scalar("train-misc/dropped_episodes", self.dropped_episodes)
        self.send(
            self.tracker.pop(
                training_steps=pipeline.total_steps,
                storage_experiences=pipeline.storage_uuid_to_total_experiences,
                pipeline_stage=self.stage_index,
                component_storage={
                    component.uuid: component.storage_uuid
                    for component in pipeline.pipeline_stages[self.stage_index or 0].stage_components
                },
                checkpoint_file_name=None if checkpoint is None else str(checkpoint),
                seconds=self.timer.pop(),
            )
        )

    # Checkpoints

    def should_save(self, stage: PipelineStage, stage_ended: bool) -> bool:
        """Whether `save_interval` environment steps have passed since the last checkpoint, or `stage` has ended."""
        interval = stage.training_settings.save_interval
        if self.checkpoints is None or interval is None:
            return False
        if stage_ended and (self.save_after_stages or self.training_pipeline.current_stage is None):
            return True
        return interval > 0 and self.training_pipeline.total_steps - self.last_save >= interval

    def checkpoint_path(self) -> Path | None:
        """Returns the file that a checkpoint written now gets, None if this worker writes none."""
        if self.checkpoints is None:
            return None
        return self.checkpoints.path(self.stage_index or 0, self.training_pipeline.total_steps)

    def save_checkpoint(self, is_last: bool = False) -> None:
        """Writes a checkpoint of the last snapshot and announces it; see `save_snapshot`."""
        if self.checkpoints is not None:
            path = save_snapshot(self, self.checkpoints, is_last)
            if path is not None:
                self.send(path)

    def save_after_failure(self, failure: Exception) -> None:
        """Saves the last snapshot, if it is newer than the last checkpoint; a warning says so if that fails, too."""
        if self.snapshot is None and isinstance(failure, TaskWorkerError):  # a sampler was lost between two rollouts
            self.snapshot = Snapshot.of(self, with_samplers=False)
        if self.snapshot is None or self.snapshot.total_steps <= self.last_save:
            return
        try:
            self.save_checkpoint(is_last=True)
        except Exception as error:  # the failure that led here is what has to be reported
            get_logger().warning(f"Nothing could be saved after the failure: {error}")

    def load_checkpoint(self, path: str, restart_pipeline: bool = False) -> None:
        """Continues from a checkpoint, exactly if it holds all that is needed.

        Args:
            path: the file.
            restart_pipeline: take only the weights.

        Raises:
            CheckpointError: the file cannot be read, or is of another model or pipeline.
        """
        state = load_checkpoint(path)
        load_model_weights(self.actor_critic, state.model_state_dict, path)
        if restart_pipeline:
            self.training_pipeline.restart_pipeline()
            reseed(self)
        else:
            restore_state(self, state)
