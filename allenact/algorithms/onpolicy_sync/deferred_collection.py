"""Collects a rollout with a policy that needs only the observation: values and log-probabilities follow in one pass.

What comes out agrees with a full forward pass at every step within the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.non_finite import explain_non_finite
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, RolloutPolicy
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.utils import spaces_utils
from allenact.utils.tensor_utils import add_step_dim, stack_observations, to_tensors
from allenact.utils.torch_threads import threads_for, torch_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.task_batch import StepBatch


def deferred_policy(
    model: ActorCriticModel[Any], storages: Sequence[ExperienceStorage], num_steps: int
) -> tuple[RolloutPolicy, RolloutBlockStorage] | None:
    """Returns how `model` acts on observations alone in the next `num_steps` steps, and the storage to fill.

    None if the model cannot, or if there is more than one storage or one of another kind. A subclass that overrides
    `forward` but inherits `make_rollout_policy` may act differently in the two: it is run in full at every step.
    """
    storage = storages[0]
    if len(storages) != 1 or type(storage) is not RolloutBlockStorage or storage.device.type != "cpu":
        return None
    if model.recurrent_memory_specification is not None:
        return None
    definer = {
        name: next(i for i, cls in enumerate(type(model).__mro__) if name in vars(cls))
        for name in ("make_rollout_policy", "forward")
    }
    if definer["make_rollout_policy"] > definer["forward"]:
        return None
    try:
        return model.make_rollout_policy(num_steps), storage
    except NotImplementedError:
        return None


def collect_deferred(
    model: ActorCriticModel[Any],
    policy: RolloutPolicy,
    storage: RolloutBlockStorage,
    step_tasks: Callable[[np.ndarray], StepBatch],
    num_steps: int,
    *,
    bootstrap_truncated: bool,
    num_workers: int,
) -> None:
    """Takes `num_steps` steps and fills `storage`.

    Args:
        model: predicts values and log-probabilities at the end.
        policy: acts; what `deferred_policy` returned for `num_steps` steps.
        storage: likewise, between two rollouts.
        step_tasks: takes flat actions [N, A]; may raise to break off.
        num_steps: T.
        bootstrap_truncated: also store V(last observation) of episodes that a limit ended.
        num_workers: training workers that share the cores with this one, itself included.
    """
    cut: list[tuple[int, int, Any]] = []  # row, sampler and last observation of episodes that a limit ended
    for row in range(num_steps):
        actions = policy(storage.observation_row(row))  # [N, A]
        batch = step_tasks(actions)
        storage.add_transition(batch.observations, actions, batch.rewards, batch.dones)
        if bootstrap_truncated:
            cut.extend((row, sampler, last) for sampler, last in batch.final_observations.items())
    _add_predictions(model, storage, num_workers)
    if cut:
        _add_truncation_values(model, storage, cut)


@torch.no_grad()
def _add_predictions(model: ActorCriticModel[Any], storage: RolloutBlockStorage, num_workers: int) -> None:
    """Adds the values and log-probabilities of the rows collected."""
    rows = storage.rows_for_model()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch_threads(threads_for(storage.step * storage.num_samplers, parameters, num_workers)):
        output = _forward(model, rows["observations"], rows["prev_actions"], rows["masks"])
        log_probs = output.distributions.log_prob(rows["actions"])  # [T, N, ...]
    if not (torch.isfinite(output.values).all() and torch.isfinite(log_probs).all()):
        raise explain_non_finite(rows["observations"], model, "its values or log-probabilities are not finite")
    storage.add_predictions(log_probs, output.values)


@torch.no_grad()
def _add_truncation_values(
    model: ActorCriticModel[Any], storage: RolloutBlockStorage, cut: Sequence[tuple[int, int, Any]]
) -> None:
    rows = [row for row, _, _ in cut]
    samplers = [sampler for _, sampler, _ in cut]
    observations = to_tensors(stack_observations([last for _, _, last in cut]), storage.device)  # [n, O...]
    actions = storage.actions[rows, samplers].unsqueeze(0)  # [1, n, A]
    prev_actions = spaces_utils.unflatten(model.action_space, actions)
    output = _forward(model, add_step_dim(observations), prev_actions, torch.ones(1, len(cut), 1))
    storage.add_truncation_values(rows, samplers, output.values[0])  # [n, 1]


def _forward(
    model: ActorCriticModel[Any], observations: Any, prev_actions: Any, masks: torch.Tensor
) -> ActorCriticOutput:
    output, _ = model(observations=observations, memory=Memory(), prev_actions=prev_actions, masks=masks)
    return output
