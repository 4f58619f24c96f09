"""What must survive a restart: from a trainer to a TrainingState and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.checkpointing import (
    TrainingState,
    library_versions,
    load_scheduler_state,
    scheduler_state,
)
from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
from allenact.utils.seeding import capture_rng_state, checkpoint_seed, restore_rng_state, set_seed, worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer


@dataclass(frozen=True)
class Boundary:
    """What changes while a rollout is collected, as it was between two rollouts."""

    rng_state: dict[str, Any]
    sampler_states: list[dict[str, Any] | None]
    storage_states: dict[str, Any]
    tracker_state: dict[str, Any]

    @classmethod
    def of(cls, trainer: OnPolicyTrainer) -> Boundary:
        """Takes the state of `trainer`, which is between two rollouts."""
        samples = trainer.training_pipeline.rollout_storage is not None
        storages = {uuid: storage.state_dict() for uuid, storage in trainer.storages_in_use.items()}
        return cls(
            rng_state=capture_rng_state(),
            sampler_states=trainer.vector_tasks.state_dict() if samples else [],
            storage_states={uuid: state for uuid, state in storages.items() if state is not None},
            tracker_state={**trainer.tracker.state_dict(), "last_log": trainer.last_log},
        )


def capture_state(trainer: OnPolicyTrainer) -> TrainingState:
    """Returns all that `trainer` needs to go on. Within a rollout: the state at its start."""
    in_rollout = trainer.steps_in_rollout > 0
    boundary = trainer.boundary if in_rollout and trainer.boundary is not None else Boundary.of(trainer)
    unsaved = [index for index, state in enumerate(boundary.sampler_states) if state is None]
    if unsaved and not trainer.warned_about_unsaved_samplers:
        trainer.warned_about_unsaved_samplers = True
        get_logger().warning(
            f"{len(unsaved)} of {len(boundary.sampler_states)} task samplers cannot be saved. A run resumed from"
            " this checkpoint starts their episodes anew."
        )
    return TrainingState(
        model_state_dict=trainer.actor_critic.state_dict(),
        total_steps=trainer.training_pipeline.total_steps,
        optimizer_state_dict=trainer.optimizer.state_dict(),
        training_pipeline_state_dict=trainer.training_pipeline.state_dict(),
        trainer_seed=trainer.seed,
        scheduler_state=None if trainer.lr_scheduler is None else scheduler_state(trainer.lr_scheduler),
        rng_state=boundary.rng_state,
        sampler_states=boundary.sampler_states,
        storage_states=boundary.storage_states,
        tracker_state=boundary.tracker_state,
    )


def restore_state(trainer: OnPolicyTrainer, state: TrainingState) -> None:
    """Continues from `state`: exactly if it holds all that is needed, else with new episodes and new seeds.

    Raises:
        CheckpointError: the pipeline has other stages.
    """
    pipeline = trainer.training_pipeline
    pipeline.load_state_dict(state.training_pipeline_state_dict)
    trainer.optimizer.load_state_dict(state.optimizer_state_dict)
    if trainer.lr_scheduler is not None and state.scheduler_state is not None:
        load_scheduler_state(trainer.lr_scheduler, state.scheduler_state)
    if state.trainer_seed is not None:
        trainer.seed = state.trainer_seed
    trainer.last_save = trainer.last_log = pipeline.total_steps
    if pipeline.current_stage is None:
        return
    exact = state.is_exact and trainer.num_workers == 1
    restarted = _restore_samplers(trainer, state.sampler_states or []) if exact else None
    if restarted is None:
        reseed(trainer)
    else:
        _restore_the_rest(trainer, state, restarted)


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
    restarted = trainer.vector_tasks.load_state_dict(states)
    if restarted:
        get_logger().warning(
            f"Task samplers {restarted} could not be saved: their episodes start anew, and the run is not exactly"
            " the one that was interrupted."
        )
    return restarted


def _restore_the_rest(trainer: OnPolicyTrainer, state: TrainingState, restarted: list[int]) -> None:
    """Restores storages, gathered metrics and, last, the generators."""
    pipeline = trainer.training_pipeline
    saved = {uuid: item for uuid, item in (state.storage_states or {}).items() if uuid in pipeline.named_storages}
    storages = {uuid: pipeline.get_storage(uuid) for uuid in saved}
    trainer.initialize_storages(storages)
    for uuid, storage in storages.items():
        if isinstance(storage, RolloutStorage) and restarted:
            storage.load_state_dict(saved[uuid], restarted=restarted)
        else:
            storage.load_state_dict(saved[uuid])
        trainer.experiences_seen[uuid] = storage.total_experiences
    trainer.storages_in_use = storages
    if state.tracker_state is not None:
        trainer.tracker.load_state_dict(state.tracker_state)
        trainer.last_log = state.tracker_state["last_log"]
    if state.rng_state is not None:
        restore_rng_state(state.rng_state)
    if state.library_versions and state.library_versions != library_versions():
        get_logger().warning(
            f"The checkpoint was written with {state.library_versions}, this is {library_versions()}: the run may"
            " differ in rounding from an uninterrupted one."
        )


def reseed(trainer: OnPolicyTrainer) -> None:
    """Seeds this worker and its samplers from the seed and the total steps, where no exact state is known."""
    if trainer.seed is None:
        return
    steps = trainer.training_pipeline.total_steps
    set_seed(checkpoint_seed(trainer.seed, steps, trainer.worker_id, trainer.num_workers))
    if trainer.training_pipeline.rollout_storage is not None:
        trainer.vector_tasks.set_seeds(worker_seeds(trainer.num_samplers, None))
