"""Checks that a training pipeline can run, before a process or an environment is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.storage import (
    MiniBatchStorageMixin,
    RolloutBlockStorage,
    StreamingStorageMixin,
)
from allenact.errors import ExperimentConfigError
from allenact.pipeline.settings import TrainingSettings
from allenact.pipeline.stage import NeverEarlyStoppingCriterion, PipelineStage, StageComponent

if TYPE_CHECKING:
    from allenact.pipeline.pipeline import TrainingPipeline


def check_pipeline(pipeline: TrainingPipeline, num_samplers: int, num_workers: int) -> None:
    """Checks every stage; see `TrainingPipeline.validate`."""
    if not pipeline.pipeline_stages:
        raise ExperimentConfigError(
            "the training pipeline has no stages.",
            given="pipeline_stages=[]",
            do="add a PipelineStage(loss_names=[...], max_stage_steps=...).",
        )
    for index, stage in enumerate(pipeline.pipeline_stages):
        _check_stage(pipeline, stage, f"stage {index}", num_samplers, num_workers)
    check_evaluation_stages(pipeline)


def check_evaluation_stages(pipeline: TrainingPipeline) -> None:
    """Checks the stages that say which losses validation and test compute.

    Raises:
        ExperimentConfigError: a stage names an unknown loss or storage, or has more than one component.
    """
    for stage, name in ((pipeline.valid_pipeline_stage, "valid"), (pipeline.test_pipeline_stage, "test")):
        _check_names(pipeline, stage)
        if len(stage.stage_components) > 1:
            raise ExperimentConfigError(
                f"the {name} pipeline stage has more than one component.",
                given=", ".join(component.uuid for component in stage.stage_components),
                do="keep one: evaluation computes losses on one storage.",
            )


def _check_stage(
    pipeline: TrainingPipeline, stage: PipelineStage, where: str, num_samplers: int, num_workers: int
) -> None:
    _check_names(pipeline, stage)
    if num_workers > 1 and not isinstance(stage.early_stopping_criterion, NeverEarlyStoppingCriterion):
        raise ExperimentConfigError(
            "early stopping works with one training worker only.",
            given=f"{type(stage.early_stopping_criterion).__name__} ({where}), {num_workers} training workers",
            do="train with one worker, or end the stage with max_stage_steps.",
        )
    settings = stage.training_settings
    _require(settings, "metric_accumulate_interval", where)
    if pipeline.rollout_storage_uuid is not None:
        for name in ("num_steps", "gamma", "use_gae"):
            _require(settings, name, where)
        if settings.use_gae:
            _require(settings, "gae_lambda", where)
    for component in stage.stage_components:
        _check_component(pipeline, component, f'{where}, component "{component.uuid}"', num_samplers)


def _check_names(pipeline: TrainingPipeline, stage: PipelineStage) -> None:
    for name in stage.loss_names:
        pipeline.get_loss(name)
    for component in stage.stage_components:
        pipeline.storage_type(component.storage_uuid)
    if stage.loss_names and not stage.stage_components:
        raise ExperimentConfigError(
            "a pipeline stage has losses, but no storage to compute them on.",
            given=f"loss_names={stage.loss_names}, named_storages: {', '.join(pipeline.named_storages)}",
            do="add stage_components=[StageComponent(...)] or a rollout storage.",
        )


def _check_component(pipeline: TrainingPipeline, component: StageComponent, where: str, num_samplers: int) -> None:
    settings = component.training_settings
    if not component.loss_names:
        return
    _require(settings, "update_repeats", where)
    _require(settings, "max_grad_norm", where)
    if settings.kl_target is not None and pipeline.lr_scheduler_builder is not None:
        raise ExperimentConfigError(
            "two rules want to set the learning rate.",
            given=f"kl_target={settings.kl_target} ({where}) and a learning rate schedule",
            do="leave out kl_target or lr_scheduler_builder.",
        )
    repeats = settings.update_repeats
    if isinstance(repeats, tuple) and len(repeats) != len(component.loss_names):
        raise ExperimentConfigError(
            "update_repeats needs one number for each loss.",
            given=f"update_repeats={repeats}, loss_names={component.loss_names} ({where})",
            do=f"give {len(component.loss_names)} numbers, or one for all losses.",
        )
    storage_type = pipeline.storage_type(component.storage_uuid)
    if issubclass(storage_type, MiniBatchStorageMixin):
        _require(settings, "num_mini_batch", where)
        cut_by_us = getattr(storage_type, "batched_experience_generator", None) is (
            RolloutBlockStorage.batched_experience_generator
        )
        if component.storage_uuid == pipeline.rollout_storage_uuid and cut_by_us:
            _check_mini_batches(settings, where, num_samplers)
    elif issubclass(storage_type, StreamingStorageMixin) and settings.num_mini_batch not in (None, 1):
        raise ExperimentConfigError(
            "a streaming storage cannot be cut into mini-batches.",
            given=f"num_mini_batch={settings.num_mini_batch} ({where})",
            do="set num_mini_batch=1 in the training settings of the component.",
        )


def _check_mini_batches(settings: TrainingSettings, where: str, num_samplers: int) -> None:
    """A rollout has as many pieces as there are samplers, or rows."""
    count = settings.num_mini_batch
    if settings.mini_batches_over == "samplers" and count > num_samplers:
        raise ExperimentConfigError(
            f"{count} mini-batches cannot be cut from {num_samplers} task samplers.",
            given=f"num_mini_batch={count} ({where}), {num_samplers} task samplers in a training worker",
            do=f'use num_mini_batch <= {num_samplers}, nprocesses >= {count}, or mini_batches_over="steps" '
            "for a model without memory.",
        )
    rows = settings.num_steps * num_samplers
    if count > rows:
        raise ExperimentConfigError(
            f"{count} mini-batches cannot be cut from {rows} steps.",
            given=f"num_mini_batch={count}, num_steps={settings.num_steps} ({where}), {num_samplers} samplers",
            do=f"use num_mini_batch <= {rows}.",
        )


def _require(settings: TrainingSettings, name: str, where: str) -> None:
    if getattr(settings, name) is None:
        raise ExperimentConfigError(
            f"the training setting {name} is missing.",
            given=f"{name}=None in {where} and in the pipeline",
            do=f"pass {name}=... to TrainingPipeline or PipelineStage.",
        )
