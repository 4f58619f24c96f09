"""Collects a rollout with a policy that needs only the observation: values and log-probabilities follow in one pass.

What comes out agrees with a full forward pass at every step within the rounding of float32. The steps are taken either
row by row, with `collect_rows`, or by sampler processes that have been given the policy, with `collect_played`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.non_finite import explain_non_finite
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, NoisyPolicy, RolloutPolicy
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.storage.observation_tree import flat_leaves
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.playing import Game
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import can_be_pickled
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.utils import spaces_utils
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.tensor_utils import add_step_dim, stack_observations, to_tensors
from allenact.utils.torch_threads import threads_for, torch_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.playing import PlayedRows
    from allenact.base_abstractions.task_batch import StepBatch


Cut = tuple[int, int, Any]
"""Row, sampler and last observation of an episode that a limit ended."""


ROWS_AT_ONCE = 4096
"""Environment steps whose values are predicted together: enough for all cores, and little memory for any rollout."""


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


def can_be_played(model: ActorCriticModel[Any]) -> bool:
    """Whether sampler processes can be given the policy of `model`, as far as that depends on the model."""
    if hasattr(model, "sampler_select"):  # wants to be told of every step
        return False
    with preserve_rng_state():
        policy = _rollout_policy(model, num_steps=1)
    return isinstance(policy, NoisyPolicy) and can_be_pickled(policy.act)


def _rollout_policy(model: ActorCriticModel[Any], num_steps: int) -> RolloutPolicy | None:
    """Returns how `model` acts on observations alone in the next `num_steps` steps; None if it cannot."""
    if model.recurrent_memory_specification is not None:
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


def collect_rows(
    policy: RolloutPolicy,
    storage: RolloutBlockStorage,
    step_tasks: Callable[[np.ndarray], StepBatch],
    num_steps: int,
) -> list[Cut]:
    """Takes `num_steps` steps and writes them to `storage`; `complete` is next.

    Args:
        policy: acts; what `deferred_policy` returned for `num_steps` steps.
        storage: likewise, between two rollouts.
        step_tasks: takes flat actions [N, A]; may raise to break off.
        num_steps: T.
    """
    cut: list[Cut] = []
    for row in range(num_steps):
        actions = policy(storage.observation_row(row))  # [N, A]
        batch = step_tasks(actions)
        storage.add_transition(batch.observations, actions, batch.rewards, batch.dones)
        if batch.final_observations:
            cut.extend((row, sampler, last) for sampler, last in batch.final_observations.items())
    return cut


def new_game(policy: NoisyPolicy, storage: RolloutBlockStorage, num_steps: int) -> Game:
    """Returns what sampler processes are to play: T = `num_steps` steps from the first observations of `storage`."""
    noise = np.stack([policy.draw(storage.num_samplers).copy() for _ in range(num_steps)])  # [T, N, ...]
    return Game(policy.act, noise, dict(flat_leaves(storage.observation_row(0))))


def collect_played(storage: RolloutBlockStorage, played: Generator[PlayedRows], num_steps: int) -> list[Cut]:
    """Writes to `storage` what sampler processes play by themselves, the same as with `collect_rows`.

    Args:
        storage: what `deferred_policy` returned, between two rollouts.
        played: the rows of a game, in any order; may raise to break off.
        num_steps: T.
    """
    cut: list[Cut] = []
    storage.reserve(num_steps)
    with closing(played):
        for block in played:
            storage.add_block(block.row, block.samplers, block.observations, block.actions, block.rewards, block.dones)
            cut.extend(block.final_observations)
    storage.complete(num_steps)
    return sorted(cut, key=lambda end: end[:2])


def complete(model: ActorCriticModel[Any], storage: RolloutBlockStorage, cut: Sequence[Cut], num_workers: int) -> None:
    """Adds what `model` says of a rollout: values and log-probabilities.

    Args:
        model: the one that acted.
        storage: holds the steps.
        cut: episodes whose V(last observation) is to be stored, too.
        num_workers: training workers that share the cores with this one, itself included.

    Raises:
        NonFiniteError: a value or a log-probability is NaN or infinite.
    """
    _add_predictions(model, storage, num_workers)
    if cut:
        _add_truncation_values(model, storage, cut)


@torch.no_grad()
def _add_predictions(model: ActorCriticModel[Any], storage: RolloutBlockStorage, num_workers: int) -> None:
    """Adds the values and log-probabilities of the rows collected."""
    count = min(storage.step, max(1, ROWS_AT_ONCE // storage.num_samplers))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch_threads(threads_for(count * storage.num_samplers, parameters, num_workers)):
        for first in range(0, storage.step, count):
            rows = storage.rows_for_model(first, first + count)
            output = _forward(model, rows["observations"], rows["prev_actions"], rows["masks"])
            log_probs = output.distributions.log_prob(rows["actions"])  # [count, N, ...]
            if not (torch.isfinite(output.values).all() and torch.isfinite(log_probs).all()):
                observations = storage.rows_for_model()["observations"]
                raise explain_non_finite(observations, model, "its values or log-probabilities are not finite")
            storage.add_predictions(first, log_probs, output.values)


@torch.no_grad()
def _add_truncation_values(model: ActorCriticModel[Any], storage: RolloutBlockStorage, cut: Sequence[Cut]) -> None:
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
