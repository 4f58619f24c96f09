"""What is checked and said before training, or a test, begins."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import ProcessVectorTasks
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.errors import ExperimentConfigError, SpaceMismatchError, did_you_mean
from allenact.utils.experiment_loading import user_line
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    import torch

    from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph


def machine_params_of(config: ExperimentConfig, mode: str, machine_id: int | None = None) -> MachineParams:
    """Returns the experiment's machine parameters for `mode`, which it may also give as a dict.

    Args:
        config: the experiment.
        mode: "train", "valid" or "test".
        machine_id: index of this machine. Experiments that take it as a keyword choose by it, also where it is 0, which
            workers run here; it is given for training only, the one mode that can have several machines.

    Raises:
        ExperimentConfigError: this is not the first machine, and the experiment does not take `machine_id`.
    """
    signature = inspect.signature(config.machine_params)
    takes_it = any(
        parameter.name == "machine_id" or parameter.kind is parameter.VAR_KEYWORD
        for parameter in signature.parameters.values()
    )
    is_given = machine_id is not None and mode == "train"
    if is_given and machine_id != 0 and not takes_it:
        raise ExperimentConfigError(
            "the experiment is for one machine only: its machine_params() does not take machine_id.",
            f"--machine_id {machine_id}, {type(config).__name__}.machine_params{signature}",
            "take machine_id, and choose the workers of that machine with MachineParams.set_local_worker_ids(...).",
        )
    extra = {"machine_id": machine_id} if is_given and takes_it else {}
    return MachineParams.instance_from(config.machine_params(mode, **extra))


def require_samplers(config: ExperimentConfig, mode: str, machine_id: int | None = None) -> MachineParams:
    """Returns the machine parameters of `mode`, in which every worker must have a task sampler.

    Raises:
        ExperimentConfigError: there is no worker, or one without samplers.
    """
    params = machine_params_of(config, mode, machine_id)
    counts = [int(count) for count in params.nprocesses]
    if min(counts, default=0) < 1:
        raise ExperimentConfigError(
            f"{mode} needs at least one task sampler for each worker.",
            f'nprocesses={counts} (machine_params, mode "{mode}")',
            "set nprocesses to 1 or more.",
        )
    return params


def check_spaces(
    actor_critic: torch.nn.Module, vector_tasks: VectorTasks, preprocessors: SensorPreprocessorGraph | None
) -> None:
    """Checks that the model was made for what the tasks observe and do.

    Observations may be missing, as those of experts are where nothing is learned: only the model knows what it looks
    at. A model that makes do with the first few of the tasks' choices is warned of.

    Raises:
        SpaceMismatchError: an observation has another shape, the one in `input_uuid` is missing, or the actions differ.
    """
    given = dict(vector_tasks.observation_space.spaces)
    if preprocessors is not None:
        given = dict(preprocessors.observation_spaces.spaces)
    expected = getattr(getattr(actor_critic, "observation_space", None), "spaces", None)
    for uuid, space in (expected or {}).items():
        if uuid not in given:
            if uuid == getattr(actor_critic, "input_uuid", None):
                raise missing_observation(uuid, given)
            continue
        if _layout(space) != _layout(given[uuid]):
            raise SpaceMismatchError(
                f'model and tasks disagree about the observation "{uuid}".',
                f"the model expects {space}, the tasks give {given[uuid]}",
                "build the model from the sensors that the task sampler uses.",
            )
    expected_action, given_action = actor_critic.action_space, vector_tasks.action_spaces[0]
    (kind, size), (given_kind, given_size) = _layout(expected_action), _layout(given_action)
    if kind == given_kind == "Discrete" and size < given_size:
        get_logger().warning(f"The model chooses among the first {size} of the tasks' {given_size} actions.")
    elif (kind, size) != (given_kind, given_size):
        raise SpaceMismatchError(
            "model and tasks disagree about the actions.",
            f"the model acts in {expected_action}, the tasks take {given_action}",
            "build the model with the action space of the tasks.",
        )


def missing_observation(uuid: str, given: Iterable[str]) -> SpaceMismatchError:
    """Returns the error for an observation that the model looks at and the tasks do not give."""
    given = list(given)
    return SpaceMismatchError(
        f'the model expects an observation "{uuid}" that the tasks do not give.',
        f"observations of the tasks: {', '.join(given)}",
        did_you_mean(uuid, given) or "give the task sampler the sensors that create_model is built for.",
    )


def built(name: str, builder: Any, **kwargs: Any) -> Any:
    """Calls a builder of the training pipeline.

    Args:
        name: of what is built.
        builder: the pipeline's `<name>_builder`.
        kwargs: for the call.

    Raises:
        ExperimentConfigError: torch refuses the arguments.
    """
    try:
        return builder(**kwargs)
    except (TypeError, ValueError) as error:
        if user_line(error):  # it is the experiment's own code that has a mistake in it
            raise
        raise ExperimentConfigError(
            f"the {name} cannot be made: {error}",
            f"{name}_builder={builder!r} (TrainingPipeline)",
            "correct its arguments, or the keyword arguments of the experiment that they come from.",
        ) from error


def explain_misfit(observations: Mapping[str, Any], spaces: gym.spaces.Dict, message: str) -> SpaceMismatchError | None:
    """Returns the error for a model that failed because an observation is not of the size of its space, if one is not.

    Args:
        observations: leaves [T, N, O...], with which the model failed.
        spaces: what is promised of them.
        message: what it failed with.
    """
    for uuid, space in spaces.spaces.items():
        value: Any = observations.get(uuid)
        if isinstance(space, gym.spaces.Box) and hasattr(value, "shape") and prod(value.shape[2:]) != prod(space.shape):
            return SpaceMismatchError(
                f'the observation "{uuid}" is not of the size that its space says, and the model failed: {message}',
                f"observations of shape {tuple(value.shape[2:])}, {space}",
                "correct the observation space of the environment or the sensor, or what is observed.",
            )
    return None


def _layout(space: Any) -> tuple[str, Any]:
    """Returns what must agree between two spaces: kind and size, not bounds or dtype."""
    members = getattr(space, "spaces", None)
    if isinstance(members, Mapping):
        return "Dict", {key: _layout(member) for key, member in members.items()}
    if members is not None:
        return "Tuple", tuple(_layout(member) for member in members)
    size = getattr(space, "n", None)
    if size is None:
        nvec = getattr(space, "nvec", None)
        size = tuple(space.shape or ()) if nvec is None else tuple(int(n) for n in nvec.flat)
    return type(space).__name__, size


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
