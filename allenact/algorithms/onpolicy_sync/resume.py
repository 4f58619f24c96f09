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
from allenact.utils.seeding import capture_rng_state, checkpoint_seed, restore_rng_state, set_seed, worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer


@dataclass(frozen=True)
class Boundary:
    """What changes while a rollout is collected, as it was between two rollouts."""

    rng_state: dict[str, Any]
    sampler_states: list[dict[str, Any] | None]
    tracker_state: dict[str, Any]

    @classmethod
    def of(cls, trainer: OnPolicyTrainer) -> Boundary:
        """Takes the state of `trainer`, which is between two rollouts."""
        samples = trainer.training_pipeline.rollout_storage is not None
        return cls(
            rng_state=capture_rng_state(),
            sampler_states=trainer.vector_tasks.state_dict() if samples else [],
            tracker_state={**trainer.tracker.state_dict(), "last_log": trainer.last_log},
        )


def capture_state(trainer: OnPolicyTrainer) -> TrainingState:
    """Returns all that `trainer` needs to go on. Within a rollout: the state at its start.

    Row 0 of a rollout storage, its carry-over, does not change while a rollout is collected, nor do the parameters.
    """
    in_rollout = trainer.steps_in_rollout > 0
    boundary = trainer.boundary if in_rollout and trainer.boundary is not None else Boundary.of(trainer)
    storages = {uuid: storage.state_dict() for uuid, storage in trainer.storages_in_use.items()}
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
        storage_states={uuid: state for uuid, state in storages.items() if state is not None},
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
    if state.is_exact and trainer.num_workers == 1 and _restore_samplers(trainer, state):
        _restore_the_rest(trainer, state)
    else:
        reseed(trainer)


def _restore_samplers(trainer: OnPolicyTrainer, state: TrainingState) -> bool:
    """Restores the task samplers; returns whether there is one state for each."""
    if trainer.training_pipeline.rollout_storage is None:
        return True
    states = state.sampler_states or []
    if len(states) != trainer.num_samplers:
        get_logger().warning(
            f"The checkpoint has {len(states)} task samplers and the experiment {trainer.num_samplers}: all episodes"
            " start anew, and the run is not exactly the one that was interrupted."
        )
        return False
    restarted = trainer.vector_tasks.load_state_dict(states)
    if restarted:
        get_logger().warning(
            f"Task samplers {restarted} could not be saved: their episodes start anew, and the run is not exactly"
            " the one that was interrupted."
        )
    return True


def _restore_the_rest(trainer: OnPolicyTrainer, state: TrainingState) -> None:
    """Restores storages, gathered metrics and, last, the generators."""
    pipeline = trainer.training_pipeline
    restarted = any(sampler is None for sampler in state.sampler_states or [])
    for uuid, saved in (state.storage_states or {}).items():
        # A storage whose samplers start new episodes begins with their first observations instead.
        if uuid in pipeline.named_storages and not (restarted and uuid == pipeline.rollout_storage_uuid):
            storage = pipeline.get_storage(uuid)
            trainer.prepare_storage(storage)
            storage.load_state_dict(saved)
            trainer.storages_in_use[uuid] = storage
            trainer.experiences_seen[uuid] = storage.total_experiences
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
