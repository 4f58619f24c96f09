"""Collects a rollout with a policy that needs only observations; values and log-probabilities follow in one pass.

The result agrees with a full forward pass at every step within the rounding of float32. Steps are taken either by all
samplers in lockstep (`collect_in_lockstep`), or by sampler processes that act themselves (`collect_from_processes`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.non_finite import explain_non_finite
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, ReparameterizedPolicy, RolloutPolicy
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.storage.observation_tree import flat_leaves
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import RolloutRequest, TruncatedEpisode
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import can_be_pickled
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.errors import NonFiniteError
from allenact.utils import spaces_utils
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.tensor_utils import add_step_dim, stack_observations, to_tensors
from allenact.utils.torch_threads import threads_for, torch_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import RolloutChunk
    from allenact.base_abstractions.task_batch import StepBatch

PREDICTION_BATCH = 4096
"""Environment steps whose values are predicted together: enough to occupy all cores, in little memory."""


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
    policy = _rollout_policy(model, num_steps)
    return None if policy is None else (policy, storage)


def can_act_in_processes(model: ActorCriticModel[Any]) -> bool:
    """Whether sampler processes can be given the policy of `model`, as far as that depends on the model."""
    if hasattr(model, "sampler_select"):  # wants to be told of every step
        return False
    with preserve_rng_state():
        policy = _rollout_policy(model, num_steps=1)
    return isinstance(policy, ReparameterizedPolicy) and can_be_pickled(policy.act)


def _rollout_policy(model: ActorCriticModel[Any], num_steps: int) -> RolloutPolicy | None:
    """Returns how `model` acts on observations alone in the next `num_steps` steps; None if it cannot."""
    if not isinstance(model, ActorCriticModel) or model.recurrent_memory_specification is not None:
        return None
    definer = {
        name: next(i for i, cls in enumerate(type(model).__mro__) if name in vars(cls))
        for name in ("make_rollout_policy", "forward")
    }
    if definer["make_rollout_policy"] > definer["forward"]:
        return None
    try:
        return model.make_rollout_policy(num_steps)
    except NotImplementedError:
        return None


def collect_in_lockstep(
    policy: RolloutPolicy,
    storage: RolloutBlockStorage,
    step_tasks: Callable[[np.ndarray], StepBatch],
    num_steps: int,
) -> list[TruncatedEpisode]:
    """Takes `num_steps` steps and writes them to `storage`; `add_predictions` is next.

    Args:
        policy: acts; what `deferred_policy` returned for `num_steps` steps.
        storage: likewise, between two rollouts.
        step_tasks: steps all samplers with flat actions [N, A]; may raise to stop collecting.
        num_steps: T.

    Returns:
        The episodes that a limit ended.
    """
    truncated: list[TruncatedEpisode] = []
    for step in range(num_steps):
        actions = policy(storage.observation_row(step))  # [N, A]
        batch = step_tasks(actions)
        storage.add_transition(batch.observations, actions, batch.rewards, batch.dones)
        truncated.extend(TruncatedEpisode(step, *end) for end in batch.final_observations.items())
    return truncated


def make_rollout_request(policy: ReparameterizedPolicy, storage: RolloutBlockStorage, num_steps: int) -> RolloutRequest:
    """Returns what sampler processes are asked for: T = `num_steps` steps from the first observations of `storage`."""
    noise = np.stack([policy.draw(storage.num_samplers).copy() for _ in range(num_steps)])  # [T, N, ...]
    return RolloutRequest(policy.act, noise, dict(flat_leaves(storage.observation_row(0))))


def collect_from_processes(
    storage: RolloutBlockStorage, chunks: Generator[RolloutChunk], num_steps: int
) -> list[TruncatedEpisode]:
    """Writes to `storage` what sampler processes collect; the result is that of `collect_in_lockstep`.

    Args:
        storage: what `deferred_policy` returned, between two rollouts.
        chunks: of all samplers, in any order; may raise to stop collecting.
        num_steps: T.

    Returns:
        The episodes that a limit ended, by step and sampler.
    """
    truncated: list[TruncatedEpisode] = []
    storage.reserve(num_steps)
    with closing(chunks):
        for chunk in chunks:
            storage.add_block(
                chunk.first_step, chunk.samplers, chunk.observations, chunk.actions, chunk.rewards, chunk.dones
            )
            truncated.extend(chunk.truncated)
    storage.advance(num_steps)
    return sorted(truncated, key=lambda end: (end.step, end.sampler))


def add_predictions(
    model: ActorCriticModel[Any],
    storage: RolloutBlockStorage,
    truncated: Sequence[TruncatedEpisode],
    num_workers: int,
) -> None:
    """Adds what `model` predicts for a rollout: values and log-probabilities.

    Args:
        model: the one that acted.
        storage: holds the steps.
        truncated: episodes whose V(last observation) is to be stored, too.
        num_workers: training workers that share the cores with this one, itself included.

    Raises:
        NonFiniteError: a value or a log-probability is NaN or infinite.
    """
    _add_values_and_log_probs(model, storage, num_workers)
    if truncated:
        _add_truncation_values(model, storage, truncated)


@torch.no_grad()
def _add_values_and_log_probs(model: ActorCriticModel[Any], storage: RolloutBlockStorage, num_workers: int) -> None:
    count = min(storage.step, max(1, PREDICTION_BATCH // storage.num_samplers))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch_threads(threads_for(count * storage.num_samplers, parameters, num_workers)):
        for first in range(0, storage.step, count):
            rows = storage.rows_for_model(first, first + count)
            output = _forward(model, rows["observations"], rows["prev_actions"], rows["masks"])
            log_probs = output.distributions.log_prob(rows["actions"])  # [count, N, ...]
            if not (torch.isfinite(output.values).all() and torch.isfinite(log_probs).all()):
                observations = storage.rows_for_model()["observations"]
                symptom = "its values or log-probabilities are not finite"
                raise explain_non_finite(observations, model, symptom) or NonFiniteError(
                    "the model answered with NaN or infinity.",
                    symptom,
                    "look at its forward(): observations and parameters are finite.",
                )
            storage.add_predictions(first, log_probs, output.values)


@torch.no_grad()
def _add_truncation_values(
    model: ActorCriticModel[Any], storage: RolloutBlockStorage, truncated: Sequence[TruncatedEpisode]
) -> None:
    steps, samplers, last_observations = zip(*truncated, strict=True)
    observations = to_tensors(stack_observations(list(last_observations)), storage.device)  # [n, O...]
    actions = storage.actions[list(steps), list(samplers)].unsqueeze(0)  # [1, n, A]
    prev_actions = spaces_utils.unflatten(model.action_space, actions)
    output = _forward(model, add_step_dim(observations), prev_actions, torch.ones(1, len(truncated), 1))
    storage.add_truncation_values(steps, samplers, output.values[0])  # [n, 1]


def _forward(
    model: ActorCriticModel[Any], observations: Any, prev_actions: Any, masks: torch.Tensor
) -> ActorCriticOutput:
    output, _ = model(observations=observations, memory=Memory(), prev_actions=prev_actions, masks=masks)
    return output
