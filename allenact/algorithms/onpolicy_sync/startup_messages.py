"""What is said before training, or a test, begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import ProcessVectorTasks
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer


def describe_training(trainer: OnPolicyTrainer) -> None:
    """Logs what is going to happen: stages, sizes, samplers, model, where it continues."""
    pipeline, params = trainer.training_pipeline, trainer.machine_params
    logger = get_logger()
    parameters = sum(p.numel() for p in trainer.actor_critic.parameters() if p.requires_grad)
    logger.info(
        f"{type(trainer.actor_critic).__name__} with {parameters:,} trainable parameters on {trainer.device},"
        f" seed {trainer.seed}, starting at {pipeline.total_steps:,} environment steps"
    )
    if pipeline.rollout_storage is not None:
        logger.info(f"{trainer.num_samplers} task samplers, {trainer.vector_tasks.description}")
        if trainer.restarts_samplers and not isinstance(trainer.vector_tasks, ProcessVectorTasks):
            logger.warning(
                "--enable_crash_recovery has no effect on these task samplers, stepped in the training process:"
                " --sampler_backend process steps them in others."
            )
    for index, stage in enumerate(pipeline.pipeline_stages):
        limit = stage.max_stage_steps() if callable(stage.max_stage_steps) else stage.max_stage_steps
        line = f"stage {index}: {limit:,} environment steps, losses {', '.join(stage.loss_names) or 'none'}"
        settings = stage.training_settings
        if pipeline.rollout_storage is not None and settings.num_steps:
            samplers = sum(int(count) for count in params.nprocesses)
            rollout = settings.num_steps * samplers
            line += f"; rollouts of {settings.num_steps} x {samplers} = {rollout:,} steps"
            if settings.num_mini_batch and settings.update_repeats:
                line += (
                    f", {settings.update_repeats} passes over {settings.num_mini_batch} mini-batches"
                    f" of about {rollout // settings.num_mini_batch:,}"
                )
        line += f"; a log every {settings.metric_accumulate_interval:,} steps"
        if settings.save_interval and settings.save_interval > 0:
            line += f", a checkpoint every {settings.save_interval:,}"
        logger.info(line)


def describe_evaluation(engine: OnPolicyInference, number: int) -> None:
    """Logs how this worker will test each checkpoint: model, tasks, samplers, pictures.

    Args:
        engine: whose task samplers have been started.
        number: of tasks.
    """
    pictures = "" if engine.visualizer is None else "; with pictures"
    get_logger().info(
        f"{type(engine.actor_critic).__name__} on {engine.device}; {number} tasks for each checkpoint from"
        f" {engine.num_samplers} task samplers, {engine.vector_tasks.description}{pictures}"
    )
