"""TrainingPipeline: the stages of a training run in order, with their losses, storages and counters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutBlockStorage, RolloutStorage
from allenact.base_abstractions.misc import Loss
from allenact.errors import CheckpointError, ExperimentConfigError, did_you_mean
from allenact.pipeline.builder import Builder
from allenact.pipeline.settings import TrainingSettings, settings_from
from allenact.pipeline.stage import PipelineStage, StageComponent
from allenact.pipeline.validation import check_pipeline

if TYPE_CHECKING:
    from allenact.utils.metrics import ScalarMeanTracker

DEFAULT_STORAGE_UUID = "onpolicy"
EVALUATION_SUFFIXES = ("__valid", "__test")


class TrainingPipeline:
    """What to train: losses, storages, stages and optimiser, and how far the training has come.

    Args:
        named_losses: name -> loss, or a Builder of one; built when first used.
        pipeline_stages: the stages in order; each object once.
        optimizer_builder: called as `optimizer_builder(params=[parameters that require gradients])`.
        named_storages: uuid -> storage, or a Builder of one; built when first used. Default: one
            RolloutBlockStorage called "onpolicy". Storages called `<x>__valid` and `<x>__test` belong to
            evaluation and gain no experience.
        rollout_storage_uuid: which storage collects rollouts; found by its type if there is only one. Without
            any, nothing is collected and training is off-policy only.
        should_log: kept for old experiment files, ignored.
        lr_scheduler_builder: called as `lr_scheduler_builder(optimizer=optimizer)`.
        training_settings: settings of all stages. Not together with loose keywords.
        valid_pipeline_stage: losses to compute during validation; default none.
        test_pipeline_stage: losses to compute during tests; default none.
        **training_settings_kwargs: the same settings as loose keywords, `num_steps=128`.

    Attributes:
        rollout_count: rollouts collected so far.
        current_stage_index: position of the current stage, None when training is complete.

    Raises:
        ExperimentConfigError: settings that are unknown, out of range or given twice; stages or storages that
            clash.
    """

    def __init__(
        self,
        *,
        named_losses: Mapping[str, Loss | Builder[Any]],
        pipeline_stages: Sequence[PipelineStage],
        optimizer_builder: Builder[Any] | Callable[..., torch.optim.Optimizer],
        named_storages: Mapping[str, ExperienceStorage | Builder[Any]] | None = None,
        rollout_storage_uuid: str | None = None,
        should_log: bool = True,
        lr_scheduler_builder: Builder[Any] | Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        training_settings: TrainingSettings | None = None,
        valid_pipeline_stage: PipelineStage | None = None,
        test_pipeline_stage: PipelineStage | None = None,
        **training_settings_kwargs: Any,
    ) -> None:
        self.training_settings = settings_from(training_settings, training_settings_kwargs, TrainingPipeline)
        self.optimizer_builder = optimizer_builder
        self.lr_scheduler_builder = lr_scheduler_builder
        self.should_log = should_log

        self.named_losses = dict(named_losses)
        self.named_storages = dict(named_storages or {DEFAULT_STORAGE_UUID: Builder(RolloutBlockStorage)})
        self.rollout_storage_uuid = self._find_rollout_storage(rollout_storage_uuid)

        self.pipeline_stages = list(pipeline_stages)
        self.valid_pipeline_stage = valid_pipeline_stage or PipelineStage(max_stage_steps=-1, loss_names=[])
        self.test_pipeline_stage = test_pipeline_stage or PipelineStage(max_stage_steps=-1, loss_names=[])
        if len({id(stage) for stage in self.pipeline_stages}) < len(self.pipeline_stages):
            raise ExperimentConfigError(
                "a PipelineStage object is used more than once in the pipeline.",
                given=f"{len(self.pipeline_stages)} pipeline_stages, some of them the same object",
                do="construct a new PipelineStage for each entry.",
            )
        for stage in (*self.pipeline_stages, self.valid_pipeline_stage, self.test_pipeline_stage):
            self._adopt(stage)

        self.rollout_count = 0
        self.current_stage_index = self._first_incomplete_stage(start=0)

    # Construction

    def _find_rollout_storage(self, uuid: str | None) -> str | None:
        """Returns the uuid of the storage that collects rollouts, None if there is none."""
        if uuid is not None:
            self._require_storage(uuid)
            return uuid
        found = [name for name in self.named_storages if issubclass(self.storage_type(name), RolloutStorage)]
        if len(found) > 1:
            raise ExperimentConfigError(
                "more than one storage could collect the rollouts.",
                given=f"named_storages: {', '.join(found)}",
                do="say which with rollout_storage_uuid=...",
            )
        if not found:
            warnings.warn(
                "the pipeline has no rollout storage: training is off-policy only, without environments",
                stacklevel=3,
            )
        return found[0] if found else None

    def _adopt(self, stage: PipelineStage) -> None:
        """Lets a stage take the settings that it lacks from the pipeline, and gives it a component."""
        stage.training_settings.set_defaults(self.training_settings)
        if not stage.stage_components and self.rollout_storage_uuid is not None:
            uuid = self.rollout_storage_uuid
            stage.add_stage_component(StageComponent(uuid=uuid, storage_uuid=uuid, loss_names=stage.loss_names))

    def validate(self, num_samplers: int, num_workers: int = 1) -> None:
        """Checks that training can run, before anything is started.

        Args:
            num_samplers: task samplers of the training worker that has the fewest.
            num_workers: training workers.

        Raises:
            ExperimentConfigError: a setting is missing, a loss or storage is unknown, or the rollout cannot
                be cut as the settings say.
        """
        check_pipeline(self, num_samplers, num_workers)

    # Losses and storages

    def get_loss(self, name: str) -> Loss:
        """Returns a loss, built when first asked for.

        Raises:
            ExperimentConfigError: there is no loss of that name.
        """
        if name not in self.named_losses:
            raise ExperimentConfigError(
                f'a pipeline stage names a loss that does not exist: "{name}".',
                given=f"named_losses: {', '.join(self.named_losses) or 'none'}",
                do=did_you_mean(name, self.named_losses) or "add it to named_losses of the pipeline.",
            )
        loss = self.named_losses[name]
        if isinstance(loss, Builder):
            loss = self.named_losses[name] = loss()
        return loss

    def _require_storage(self, uuid: str) -> None:
        if uuid not in self.named_storages:
            raise ExperimentConfigError(
                f'the pipeline has no storage called "{uuid}".',
                given=f"named_storages: {', '.join(self.named_storages)}",
                do=did_you_mean(uuid, self.named_storages) or "add it to named_storages of the pipeline.",
            )

    def get_storage(self, uuid: str) -> ExperienceStorage:
        """Returns a storage, built when first asked for.

        Raises:
            ExperimentConfigError: there is no storage of that name.
        """
        self._require_storage(uuid)
        storage = self.named_storages[uuid]
        if isinstance(storage, Builder):
            storage = self.named_storages[uuid] = storage()
        return storage

    def storage_type(self, uuid: str) -> type:
        """Returns the class of a storage, without building it where its Builder names the class."""
        self._require_storage(uuid)
        storage = self.named_storages[uuid]
        if isinstance(storage, Builder) and isinstance(storage.class_type, type):
            return storage.class_type
        return type(self.get_storage(uuid))

    def get_stage_storage(self, stage: PipelineStage) -> dict[str, ExperienceStorage]:
        """Returns uuid -> storage of a stage in order of uuid, always with the rollout storage if there is one."""
        uuids = {component.storage_uuid for component in stage.stage_components}
        if self.rollout_storage_uuid is not None:
            uuids.add(self.rollout_storage_uuid)
        return {uuid: self.get_storage(uuid) for uuid in sorted(uuids)}

    @property
    def rollout_storage(self) -> RolloutStorage | None:
        """The storage that collects rollouts, None if there is none."""
        if self.rollout_storage_uuid is None:
            return None
        storage = self.get_storage(self.rollout_storage_uuid)
        if not isinstance(storage, RolloutStorage):
            raise ExperimentConfigError(
                f'the storage "{self.rollout_storage_uuid}" cannot collect rollouts.',
                given=f"rollout_storage_uuid names a {type(storage).__name__}",
                do="name a RolloutStorage, for example a RolloutBlockStorage.",
            )
        return storage

    # Progress

    @property
    def current_stage(self) -> PipelineStage | None:
        """The stage being trained, None when training is complete."""
        return None if self.current_stage_index is None else self.pipeline_stages[self.current_stage_index]

    @property
    def current_stage_losses(self) -> dict[str, Loss]:
        """Loss name -> loss of the current stage; empty when training is complete."""
        stage = self.current_stage
        return {} if stage is None else {name: self.get_loss(name) for name in stage.loss_names}

    @property
    def current_stage_storage(self) -> dict[str, ExperienceStorage]:
        """Uuid -> storage of the current stage; empty when training is complete."""
        stage = self.current_stage
        return {} if stage is None else self.get_stage_storage(stage)

    @property
    def total_steps(self) -> int:
        """Environment steps taken in all stages, summed over samplers and workers."""
        return sum(stage.steps_taken_in_stage for stage in self.pipeline_stages)

    @property
    def storage_uuid_to_total_experiences(self) -> dict[str, int]:
        """Storage uuid -> rows of experience gained in all stages, summed over workers.

        An evaluation storage reports the number of the training storage that it belongs to, or the total
        steps if there is none.
        """
        totals = dict.fromkeys(self.named_storages, 0)
        for stage in self.pipeline_stages:
            for uuid, count in stage.storage_uuid_to_steps_taken_in_stage.items():
                totals[uuid] = totals.get(uuid, 0) + count
        for uuid in totals:
            for suffix in EVALUATION_SUFFIXES:
                if uuid.endswith(suffix):
                    totals[uuid] = totals.get(uuid.removesuffix(suffix), self.total_steps)
        return totals

    def before_rollout(self, train_metrics: ScalarMeanTracker | None = None) -> bool:
        """Moves to the next incomplete stage if the current one is complete; called before each rollout.

        Args:
            train_metrics: metrics of the episodes that ended since they were last passed; None: the early stopping
                criterion of the current stage is not asked.

        Returns:
            Whether the current stage changed.
        """
        stage = self.current_stage
        if stage is None or self.current_stage_index is None:
            return False
        if train_metrics is not None and stage.early_stopping_criterion(
            stage_steps=stage.steps_taken_in_stage,
            total_steps=self.total_steps,
            training_metrics=train_metrics,
        ):
            stage.early_stopping_criterion_met = True
        before = self.current_stage_index
        self.current_stage_index = self._first_incomplete_stage(start=before)
        return self.current_stage_index != before

    def _first_incomplete_stage(self, start: int) -> int | None:
        for index in range(start, len(self.pipeline_stages)):
            if not self.pipeline_stages[index].is_complete:
                return index
        return None

    def restart_pipeline(self) -> None:
        """Forgets all progress and starts at the first stage."""
        for stage in (*self.pipeline_stages, self.valid_pipeline_stage, self.test_pipeline_stage):
            stage.reset()
        self.rollout_count = 0
        self.current_stage_index = self._first_incomplete_stage(start=0)

    def state_dict(self) -> dict[str, Any]:
        """Returns all counters, for the checkpoint."""
        return {
            "stage_info_list": [stage.state_dict() for stage in self.pipeline_stages],
            "rollout_count": self.rollout_count,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over all counters, also from checkpoints of older versions.

        Raises:
            CheckpointError: the checkpoint has another number of stages.
        """
        infos = state_dict["stage_info_list"]
        if len(infos) != len(self.pipeline_stages):
            raise CheckpointError(
                "the checkpoint belongs to a training pipeline with another number of stages.",
                given=f"{len(infos)} stages in the checkpoint, {len(self.pipeline_stages)} in the experiment",
                do="use the experiment it was written by, or restart the pipeline with its weights (-r).",
            )
        if "off_policy_epochs" in state_dict:
            warnings.warn("the checkpoint's off_policy_epochs are ignored", stacklevel=2)
        for stage, info in zip(self.pipeline_stages, infos, strict=True):
            stage.load_state_dict(info)
        self.rollout_count = int(state_dict["rollout_count"])
        self.current_stage_index = self._first_incomplete_stage(start=0)
