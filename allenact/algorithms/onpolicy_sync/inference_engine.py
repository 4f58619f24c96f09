"""OnPolicyInference: the evaluation of checkpoints in a validation or test worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint, load_model_weights
from allenact.algorithms.onpolicy_sync.engine_base import TEST_MODE_STR, VALID_MODE_STR, OnPolicyRLEngine
from allenact.algorithms.onpolicy_sync.evaluation import EvaluationResult, evaluate, require_finite
from allenact.algorithms.onpolicy_sync.startup_messages import describe_evaluation
from allenact.algorithms.onpolicy_sync.storage import StreamingStorageMixin
from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, LogPackage, log_status
from allenact.algorithms.onpolicy_sync.update import PolicyUpdater
from allenact.utils.seeding import EVALUATION_SEED, set_seed, worker_seeds

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
    from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.pipeline.pipeline import TrainingPipeline
    from allenact.pipeline.stage import PipelineStage


class OnPolicyInference(OnPolicyRLEngine):
    """Evaluates checkpoints on the tasks of the experiment's "valid" or "test" mode.

    Args:
        config: the experiment.
        mode: "valid" or "test".
        enforce_expert: take the expert's actions.
        visualize: let the experiment's visualiser record.
        on_status: called with the progress of an evaluation.
        status_interval_s: seconds between two such calls.
        **engine_kwargs: see OnPolicyRLEngine.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        mode: str = TEST_MODE_STR,
        *,
        enforce_expert: bool = False,
        visualize: bool = True,
        on_status: Callable[[EvaluationStatus], None] = log_status,
        status_interval_s: float = 300.0,
        **engine_kwargs: Any,
    ) -> None:
        super().__init__(config, mode, **{"seed": EVALUATION_SEED, **engine_kwargs})
        self.enforce_expert = enforce_expert
        self.visualizer = self.machine_params.visualizer if visualize else None
        self.on_status = on_status
        self.status_interval_s = status_interval_s
        self.task_seeds: list[int] = []
        self.sampler_seeds: list[int] = []
        if self.visualizer is not None and self.num_samplers > 1:  # one alone finds out by itself, if it has to
            self.visualizer.prepare()
        self.actor_critic.eval()

    def check_tasks(self) -> None:
        """Starts the task samplers and checks that the evaluation can run and will end; logs what a test will do.

        Raises:
            UsageError: it cannot.
        """
        if self.training_pipeline.rollout_storage_uuid is not None and self.num_samplers > 0:
            number = require_finite(self.vector_tasks)
            if self.mode == TEST_MODE_STR:
                describe_evaluation(self, number)

    def _sampler_args(self) -> list[dict[str, Any]]:
        """Returns the arguments of the samplers, and remembers which seeds they fix."""
        args = super()._sampler_args()
        self.task_seeds = [seed for each in args for seed in fixed_task_seeds(each)]
        own = [each["seed"] if each.get("seed") is not None else each.get("framework_seed") for each in args]
        self.sampler_seeds = [
            default if seed is None else int(seed) for seed, default in zip(own, self._evaluation_seeds(), strict=True)
        ]
        return args

    def run_eval(self, checkpoint_file_path: str) -> LogPackage:
        """Evaluates the weights of a checkpoint on every task and returns what to log.

        Raises:
            CheckpointError: the file cannot be read or is of another model.
        """
        set_seed(self.seed)  # what a checkpoint achieves does not depend on those that were evaluated before it
        state = load_checkpoint(checkpoint_file_path)
        load_model_weights(self.actor_critic, state.model_state_dict, checkpoint_file_path)
        pipeline: TrainingPipeline = self.config.training_pipeline()
        if state.training_pipeline_state_dict:  # bare weights can be evaluated, too
            pipeline.load_state_dict(state.training_pipeline_state_dict)
        stage = pipeline.valid_pipeline_stage if self.mode == VALID_MODE_STR else pipeline.test_pipeline_stage
        updater = PolicyUpdater(self.actor_critic, pipeline, optimizer=None)

        result = EvaluationResult()
        rollout_storage = pipeline.rollout_storage
        if rollout_storage is not None and self.num_samplers > 0:
            result = self._evaluate_tasks(pipeline, stage, updater, rollout_storage)
        with torch.no_grad():
            self._offline_losses(pipeline, stage, updater)

        self.tracker.add_episodes(result.episodes)
        return self.tracker.pop(
            training_steps=state.total_steps,
            storage_experiences=pipeline.storage_uuid_to_total_experiences,
            component_storage={component.uuid: component.storage_uuid for component in stage.stage_components},
            checkpoint_file_name=checkpoint_file_path,
            seconds={"evaluate": result.seconds},
            viz_data=None if self.visualizer is None or self.visualizer.empty() else self.visualizer.read_and_reset(),
            task_seeds=self.task_seeds,
        )

    def _evaluate_tasks(
        self,
        pipeline: TrainingPipeline,
        stage: PipelineStage,
        updater: PolicyUpdater,
        rollout_storage: RolloutStorage,
    ) -> EvaluationResult:
        """Evaluates on the samplers' tasks, then resets the samplers for the next evaluation."""
        tasks = self.vector_tasks
        result = evaluate(
            self.actor_critic,
            tasks,
            rollout_storage,
            device=self.device,
            preprocessors=self.preprocessors,
            deterministic=self.deterministic_agents,
            expert_actions=self.enforce_expert,
            visualizer=self.visualizer,
            on_rollout_end=partial(self._rollout_losses, pipeline, stage, updater),
            on_status=self.on_status,
            status_interval_s=self.status_interval_s,
        )
        tasks.resume_all()
        tasks.set_seeds(self.sampler_seeds)
        tasks.reset_all()
        return result

    def _evaluation_seeds(self) -> list[int]:
        """Returns the seeds of those of this worker's samplers that are given none."""
        counts = [int(count) for count in self.machine_params.nprocesses]
        first = sum(counts[: self.worker_id])
        return worker_seeds(sum(counts), EVALUATION_SEED)[first : first + self.num_samplers]

    def _rollout_losses(
        self,
        pipeline: TrainingPipeline,
        stage: PipelineStage,
        updater: PolicyUpdater,
        collector: RolloutCollector,
    ) -> None:
        """Computes the stage's losses on what the rollout storage holds."""
        uuid, storage = pipeline.rollout_storage_uuid, pipeline.rollout_storage
        for component in stage.stage_components:
            if component.storage_uuid == uuid and component.loss_names and storage is not None:
                settings = stage.training_settings
                storage.before_updates(
                    next_value=collector.next_value(storage),
                    use_gae=settings.use_gae,
                    gamma=settings.gamma,
                    tau=settings.gae_lambda,
                    adv_stats_callback=self.workers.advantage_stats,
                )
                with torch.no_grad():
                    self.tracker.add_updates([updater.update_component(stage, component, {uuid: storage})])

    def _offline_losses(self, pipeline: TrainingPipeline, stage: PipelineStage, updater: PolicyUpdater) -> None:
        """Computes the stage's losses on a storage of its own, to the end of its data."""
        for component in stage.stage_components:
            if component.storage_uuid == pipeline.rollout_storage_uuid or not component.loss_names:
                continue
            storage = pipeline.get_storage(component.storage_uuid)
            storage.to(self.device)
            storage.set_partition(index=self.worker_id, num_parts=self.num_workers)
            self.initialize_without_tasks([storage])
            if isinstance(storage, StreamingStorageMixin):
                storage.reset_stream()  # an object that several pipelines share may have been read to its end
            try:
                while True:
                    storage.before_updates(
                        next_value=None,
                        use_gae=None,
                        gamma=None,
                        tau=None,
                        adv_stats_callback=self.workers.advantage_stats,
                    )
                    self.tracker.add_updates(
                        [updater.update_component(stage, component, {component.storage_uuid: storage})]
                    )
                    storage.after_updates()
                    if not isinstance(storage, StreamingStorageMixin):
                        break  # one pass has seen everything
            except EOFError:
                continue


def fixed_task_seeds(sampler_args: Mapping[str, Any]) -> list[int]:
    """Returns the seeds of the tasks that a sampler with these arguments hands out, in order; none if they vary."""
    seeds, count = sampler_args.get("task_seeds_list"), sampler_args.get("max_tasks")
    if seeds is None or len(seeds) == 0 or not count or not sampler_args.get("deterministic_sampling"):
        return []
    return [int(seeds[index % len(seeds)]) for index in range(count)]
