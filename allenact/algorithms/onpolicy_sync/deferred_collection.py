"""Collects a rollout with a policy that needs only the observation: values and log-probabilities follow in one pass.

The steps of the tasks are the same as with a full forward pass at every step, bit for bit; values and log-probabilities
agree within the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.non_finite import explain_non_finite
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.utils import spaces_utils
from allenact.utils.tensor_utils import add_step_dim, stack_observations, to_tensors

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.task_batch import StepBatch


def deferrable_storage(
    model: ActorCriticModel[Any], storages: Sequence[ExperienceStorage]
) -> RolloutBlockStorage | None:
    """Returns the only storage if `model` can act on observations alone and the storage takes the rest later.

    A subclass that overrides `forward` but inherits `action_distribution` may act differently in the two: it is run
    in full at every step.
    """
    storage = storages[0]
    if len(storages) != 1 or type(storage) is not RolloutBlockStorage or storage.device.type != "cpu":
        return None
    order = type(model).__mro__
    where = {
        name: next(i for i, cls in enumerate(order) if name in vars(cls)) for name in ("action_distribution", "forward")
    }
    is_own = order[where["action_distribution"]] is not ActorCriticModel
    fits = where["action_distribution"] <= where["forward"] and model.recurrent_memory_specification is None
    return storage if is_own and fits else None


def collect_deferred(
    model: ActorCriticModel[Any],
    storage: RolloutBlockStorage,
    step_tasks: Callable[[torch.Tensor], StepBatch],
    num_steps: int,
    *,
    bootstrap_truncated: bool,
) -> None:
    """Takes `num_steps` steps and fills `storage`.

    Args:
        model: acts on observations alone.
        storage: what `deferrable_storage` returned, between two rollouts.
        step_tasks: takes flat actions [N, A]; may raise to break off.
        num_steps: T.
        bootstrap_truncated: also store V(last observation) of episodes that a limit ended.
    """
    cut: list[tuple[int, int, Any]] = []  # row, sampler and last observation of episodes that a limit ended
    with torch.no_grad():
        for row in range(num_steps):
            distribution = model.action_distribution(storage.pick_observation_step(row))
            flat_actions = spaces_utils.flatten(model.action_space, distribution.sample())[0]  # [N, A]
            batch = step_tasks(flat_actions)
            storage.add_transition(batch.observations, flat_actions.numpy(), batch.rewards, batch.dones)
            if bootstrap_truncated:
                cut.extend((row, sampler, last) for sampler, last in batch.final_observations.items())
    _add_predictions(model, storage)
    if cut:
        _add_truncation_values(model, storage, cut)


@torch.no_grad()
def _add_predictions(model: ActorCriticModel[Any], storage: RolloutBlockStorage) -> None:
    """Adds the values and log-probabilities of the rows collected."""
    rows = storage.rows_for_model()
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
