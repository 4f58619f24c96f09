"""Checks that a rollout storage keeps every row, once, and joined with what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.storage import MiniBatchStorageMixin, RolloutStorage
from allenact.testing.expectations import expect


def check_storage(make_storage: Callable[[], RolloutStorage], num_steps: int = 5, num_samplers: int = 4) -> None:
    """Fills a rollout storage with rows marked 1000 * t + i and looks for them in its mini-batches.

    Args:
        make_storage: returns a new storage.
        num_steps: T.
        num_samplers: N, at least 2.

    Raises:
        ContractError: a row is lost, doubled, or joined with the wrong action; or the newest observation is not
            what the policy sees next, before and after the updates.
    """
    storage = make_storage()
    name = type(storage).__name__
    storage.to(torch.device("cpu"))
    storage.set_partition(0, 1)
    storage.initialize(
        observations={"marks": _marks(0, num_samplers)},
        num_samplers=num_samplers,
        recurrent_memory_specification=None,
        action_space=gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
    )
    for rollout in range(2):
        first = rollout * num_steps
        for t in range(first, first + num_steps):
            _check_newest(storage, t, num_samplers)
            storage.add(
                observations={"marks": _marks(t + 1, num_samplers)},
                memory=None,
                actions=_marks(t, num_samplers),
                action_log_probs=_marks(t, num_samplers),
                value_preds=_marks(t, num_samplers),
                rewards=torch.ones(num_samplers, 1),
                masks=torch.ones(num_samplers, 1),
            )
        storage.before_updates(
            next_value=torch.zeros(1, num_samplers, 1),
            use_gae=True,
            gamma=0.9,
            tau=0.9,
            adv_stats_callback=lambda advantages: {"mean": advantages.mean(), "std": advantages.std()},
        )
        if isinstance(storage, MiniBatchStorageMixin):
            expected = torch.cat([_marks(t, num_samplers) for t in range(first, first + num_steps)])  # [T * N, 1]
            for _ in range(2):
                _check_epoch(list(storage.batched_experience_generator(2)), expected.flatten(), name)
        storage.after_updates()
    _check_newest(storage, 2 * num_steps, num_samplers)


def _marks(t: int, num_samplers: int) -> torch.Tensor:
    return 1000.0 * t + torch.arange(num_samplers, dtype=torch.float32).unsqueeze(-1)  # [N, 1]


def _check_newest(storage: RolloutStorage, t: int, num_samplers: int) -> None:
    agent_input = storage.agent_input_for_next_step()
    expect(
        torch.equal(agent_input["observations"]["marks"], _marks(t, num_samplers).unsqueeze(0)),
        f"{type(storage).__name__}.agent_input_for_next_step() returns the newest observation, [1, N, O...].",
        f"after {t} steps: {agent_input['observations']['marks'].flatten().tolist()}",
    )
    expect(
        t == 0 or torch.equal(agent_input["prev_actions"], _marks(t - 1, num_samplers).unsqueeze(0)),
        f"{type(storage).__name__}.agent_input_for_next_step() returns the action before it, [1, N, A].",
    )


def _check_epoch(batches: list[dict[str, Any]], expected: torch.Tensor, name: str) -> None:
    observed = torch.cat([batch["observations"]["marks"].flatten() for batch in batches])
    expect(
        torch.equal(observed.sort().values, expected.sort().values),
        f"the mini-batches of {name} hold every row exactly once.",
        f"{len(observed)} rows, {len(observed.unique())} different, {len(expected)} expected",
    )
    for key in ("actions", "old_action_log_probs", "values"):
        values = torch.cat([batch[key].flatten() for batch in batches])
        expect(torch.equal(values, observed), f'the "{key}" of {name} belong to their observations.')
