"""What must survive a restart: from a trainer to a TrainingState and back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.checkpointing import (
    CheckpointStore,
    TrainingState,
    library_versions,
    load_scheduler_state,
    scheduler_state,
)
from allenact.algorithms.onpolicy_sync.non_finite import require_finite_model
from allenact.algorithms.onpolicy_sync.storage import StreamingStorageMixin
from allenact.base_abstractions.memory import Memory
from allenact.errors import CheckpointError, RunError
from allenact.utils.seeding import capture_rng_state, checkpoint_seed, restore_rng_state, set_seed, worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
    from allenact.pipeline.pipeline import TrainingPipeline


@dataclass(frozen=True)
class Snapshot:
    """A trainer between two rollouts: all that collecting changes and, with `weights`, all that an update changes."""

    total_steps: int
    stage_index: int
    pipeline_state: dict[str, Any]
    stream_memory: dict[str, Any]
    rng_state: dict[str, Any]
    sampler_states: list[dict[str, Any] | None]
    storage_states: dict[str, Any]
    tracker_state: dict[str, Any]
    weights: dict[str, Any] | None
    """Copies of model and optimiser states, None if they were not wanted."""

    @classmethod
    def of(cls, trainer: OnPolicyTrainer, with_weights: bool = False, with_samplers: bool = True) -> Snapshot:
        """Takes a snapshot of `trainer`, which is between two rollouts.

        Args:
            trainer: whose state.
            with_weights: whether the model and the optimiser are copied.
            with_samplers: whether the task samplers are asked; False if they are lost.

        Raises:
            TaskWorkerError: a task sampler is lost.
        """
        pipeline = trainer.training_pipeline
        samples = pipeline.rollout_storage is not None
        storages = {uuid: storage.state_dict() for uuid, storage in trainer.storages_in_use.items()}
        weights = None
        if with_weights:
            weights = {"model": trainer.actor_critic.state_dict(), "optimizer": trainer.optimizer.state_dict()}
        return cls(
            total_steps=pipeline.total_steps,
            stage_index=trainer.stage_index if trainer.stage_index is not None else pipeline.current_stage_index or 0,
            pipeline_state=copy.deepcopy(pipeline.state_dict()),
            stream_memory=_stream_memory(pipeline),
            rng_state=capture_rng_state(),
            sampler_states=_sampler_states(trainer, with_samplers) if samples else [],
            storage_states={uuid: state for uuid, state in storages.items() if state is not None},
            tracker_state={**trainer.tracker.state_dict(), "last_log": trainer.last_log},
            weights=copy.deepcopy(weights),
        )


def _sampler_states(trainer: OnPolicyTrainer, alive: bool) -> list[dict[str, Any] | None]:
    return trainer.vector_tasks.state_dict() if alive else [None] * trainer.num_samplers


def _stream_memory(pipeline: TrainingPipeline) -> dict[str, Any]:
    """Returns the recurrent state of streamed data: "stage component" -> key -> (tensor, sampler dimension)."""
    return {
        f"{index} {uuid}": {key: (tensor.clone(), dim) for key, (tensor, dim) in memory.items()}
        for index, stage in enumerate(pipeline.pipeline_stages)
        for uuid, memory in stage.stage_component_uuid_to_stream_memory.items()
        if memory
    }


def capture_state(trainer: OnPolicyTrainer, snapshot: Snapshot) -> TrainingState:
    """Returns the contents of a checkpoint that continues from `snapshot`, the last one of `trainer`."""
    _warn_about_unsaved_state(trainer, snapshot)
    weights = snapshot.weights
    if trainer.snapshot is None or weights is None:  # not within an update, so the weights are those of the snapshot
        weights = {"model": trainer.actor_critic.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    return TrainingState(
        model_state_dict=weights["model"],
        total_steps=snapshot.total_steps,
        optimizer_state_dict=weights["optimizer"],
        training_pipeline_state_dict=snapshot.pipeline_state,
        trainer_seed=trainer.seed,
        scheduler_state=None if trainer.lr_scheduler is None else scheduler_state(trainer.lr_scheduler),
        rng_state=snapshot.rng_state,
        sampler_states=snapshot.sampler_states,
        storage_states=snapshot.storage_states,
        stream_memory=snapshot.stream_memory,
        tracker_state=snapshot.tracker_state,
    )


def save_snapshot(trainer: OnPolicyTrainer, store: CheckpointStore, is_last: bool) -> Path | None:
    """Writes a checkpoint of the trainer's last snapshot, or of its present state between two rollouts.

    Where it cannot be written, training goes on, and the next one is due `save_interval` steps later.

    Args:
        trainer: what to save.
        store: where.
        is_last: whether training ends with it, so that nothing may be lost.

    Returns:
        The file, None if it could not be written.

    Raises:
        NonFiniteError: the model's parameters or buffers are NaN or infinite.
        RunError: the last checkpoint cannot be written.
    """
    snapshot = trainer.snapshot or Snapshot.of(trainer)
    path = store.path(snapshot.stage_index, snapshot.total_steps)
    copies = None if snapshot.weights is None else snapshot.weights["model"]
    require_finite_model(trainer.actor_critic, f"after {snapshot.total_steps:,} environment steps", copies)
    trainer.last_save = snapshot.total_steps
    try:
        store.save(capture_state(trainer, snapshot), path)
    except OSError as error:
        reason = f"{path}: {error.strerror or error}"
        if is_last:
            raise RunError(
                "the last checkpoint cannot be written.",
                reason,
                "make room; --resume goes on from the newest checkpoint that was written.",
            ) from error
        get_logger().warning(f"A checkpoint cannot be written, training goes on without it: {reason}")
        return None
    return path


def _warn_about_unsaved_state(trainer: OnPolicyTrainer, snapshot: Snapshot) -> None:
    """Logs, once per run, what a run resumed from this checkpoint has to start anew."""
    if trainer.warned_about_unsaved_state:
        return
    trainer.warned_about_unsaved_state = True
    unsaved = [index for index, state in enumerate(snapshot.sampler_states) if state is None]
    if unsaved:
        get_logger().info(
            f"{len(unsaved)} of {len(snapshot.sampler_states)} task samplers cannot be saved. A run resumed from"
            " this checkpoint starts their episodes anew."
        )
    for uuid, storage in trainer.storages_in_use.items():
        if isinstance(storage, StreamingStorageMixin) and uuid not in snapshot.storage_states:
            get_logger().warning(
                f'Storage "{uuid}" cannot be saved. A run resumed from this checkpoint reads its data from the start.'
            )


def restore_state(trainer: OnPolicyTrainer, state: TrainingState) -> None:
    """Continues from `state`: exactly if it holds all that is needed, else with new episodes and new seeds.

    Raises:
        CheckpointError: it holds only weights, or belongs to other stages or another optimiser.
    """
    pipeline = trainer.training_pipeline
    if not state.training_pipeline_state_dict:
        raise CheckpointError(
            "the checkpoint holds weights but not how far the training had come.",
            f"entries it lacks: training_pipeline_state_dict, in a file of {state.total_steps:,} steps",
            "start a new training from its weights: --restart_pipeline.",
        )
    pipeline.load_state_dict(state.training_pipeline_state_dict)
    try:
        trainer.optimizer.load_state_dict(state.optimizer_state_dict)
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            "the checkpoint's optimiser does not fit the experiment's.",
            f"{type(error).__name__}: {error}",
            "resume with the experiment that wrote it, or start anew from its weights: --restart_pipeline.",
        ) from error
    _restore_stream_memory(pipeline, state.stream_memory or {})
    if trainer.lr_scheduler is not None and state.scheduler_state is not None:
        load_scheduler_state(trainer.lr_scheduler, state.scheduler_state)
    if state.trainer_seed is not None:
        trainer.seed = state.trainer_seed
    trainer.last_save = trainer.last_log = pipeline.total_steps
    if pipeline.current_stage is None:
        return
    _warn_about_other_versions(state)
    exact = state.is_exact and trainer.num_workers == 1
    if not exact:
        lacks = "is of several training workers" if state.is_exact else "holds no states of generators and samplers"
        get_logger().warning(
            f"The checkpoint {lacks}: episodes start anew with seeds of their own, and the run is not exactly the one"
            " that was interrupted."
        )
    restarted = _restore_samplers(trainer, state.sampler_states or []) if exact else None
    if restarted is None:
        reseed(trainer)
    else:
        _restore_storages_and_rng(trainer, state, restarted)


def _warn_about_other_versions(state: TrainingState) -> None:
    here, saved = library_versions(), state.library_versions or {}
    others = [name for name, version in saved.items() if here.get(name) != version]
    if others:
        get_logger().warning(
            f"The checkpoint was written with {', '.join(f'{name} {saved[name]}' for name in others)}, this is"
            f" {', '.join(f'{name} {here.get(name)}' for name in others)}: the run may differ in rounding, or in its"
            " episodes, from an uninterrupted one."
        )


def _restore_stream_memory(pipeline: TrainingPipeline, saved: dict[str, Any]) -> None:
    for name, entries in saved.items():
        index, uuid = name.split(" ", 1)
        memory = Memory({key: (tensor, dim) for key, (tensor, dim) in entries.items()})
        pipeline.pipeline_stages[int(index)].stage_component_uuid_to_stream_memory[uuid] = memory


def _restore_samplers(trainer: OnPolicyTrainer, states: list[dict[str, Any] | None]) -> list[int] | None:
    """Restores the task samplers; returns those that had to start anew, None if the states do not fit at all."""
    if trainer.training_pipeline.rollout_storage is None:
        return []
    if len(states) != trainer.num_samplers:
        get_logger().warning(
            f"The checkpoint has {len(states)} task samplers and the experiment {trainer.num_samplers}: all episodes"
            " start anew, and the run is not exactly the one that was interrupted."
        )
        return None
    if None in states:  # they begin new episodes, not once more the first ones of the run
        trainer.vector_tasks.set_seeds(worker_seeds(trainer.num_samplers, _seed_at(trainer)))
    restarted = trainer.vector_tasks.load_state_dict(states)
    if restarted:
        get_logger().warning(
            f"Task samplers {restarted} could not be saved: their episodes start anew, and the run is not exactly"
            " the one that was interrupted."
        )
    return restarted


def _restore_storages_and_rng(trainer: OnPolicyTrainer, state: TrainingState, restarted: list[int]) -> None:
    """Restores storages, tracked metrics and, last, the random generators."""
    pipeline = trainer.training_pipeline
    saved = {uuid: item for uuid, item in (state.storage_states or {}).items() if uuid in pipeline.named_storages}
    storages = {uuid: pipeline.get_storage(uuid) for uuid in saved}
    trainer.initialize_storages(storages)
    trainer.load_storages(saved, restarted)
    trainer.storages_in_use = storages
    if state.tracker_state is not None:
        trainer.tracker.load_state_dict(state.tracker_state)
        trainer.last_log = state.tracker_state["last_log"]
    if state.rng_state is not None:
        restore_rng_state(state.rng_state)


def _seed_at(trainer: OnPolicyTrainer) -> int | None:
    """Returns the seed that follows from the run's seed and its steps so far; None if the run has none."""
    steps = trainer.training_pipeline.total_steps
    seed = trainer.seed
    return None if seed is None else checkpoint_seed(seed, steps, trainer.worker_id, trainer.num_workers)


def reseed(trainer: OnPolicyTrainer) -> None:
    """Seeds this worker and its samplers from the seed and the total steps, where no exact state is known."""
    if trainer.seed is None:
        return
    set_seed(_seed_at(trainer))
    if trainer.training_pipeline.rollout_storage is not None:
        trainer.vector_tasks.set_seeds(worker_seeds(trainer.num_samplers, None))
        trainer.vector_tasks.reset_all()  # the tasks that they hold are the first ones of the run
