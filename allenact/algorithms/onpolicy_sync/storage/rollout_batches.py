"""RolloutBatches: how a rollout is cut into mini-batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.storage.base import MiniBatchStorageMixin
from allenact.algorithms.onpolicy_sync.storage.observation_tree import unflatten_observations
from allenact.algorithms.onpolicy_sync.storage.rollout_rows import RolloutRows
from allenact.base_abstractions.misc import Memory
from allenact.errors import ExperimentConfigError
from allenact.utils.misc_utils import partition_limits
from allenact.utils.spaces_utils import unflatten

_KEPT_GROUPS_BYTES = 64 * 2**20  # size of a rollout up to which a copy cut into mini-batches is kept between passes

Picked = dict[str, torch.Tensor]


class RolloutBatches(RolloutRows, MiniBatchStorageMixin):
    """The rows of a rollout, and mini-batches of them once its targets are known.

    Args:
        full_size: as for RolloutRows.

    Attributes:
        action_space: of the flattened actions.
    """

    def __init__(self, full_size: int) -> None:
        super().__init__(full_size)
        self.action_space: Any = None
        self._first_memory = Memory()  # the recurrent state that the rollout began with
        self._groups: dict[tuple[int, int], tuple[Picked, Picked]] = {}  # of the current rollout, by samplers

    def batched_experience_generator(
        self, num_mini_batch: int, mini_batches_over: str = "samplers"
    ) -> Iterator[dict[str, Any]]:
        """Cuts the rollout into mini-batches, visited in an order drawn anew for each pass.

        Args:
            num_mini_batch: how many; 0 yields none.
            mini_batches_over: "samplers": each batch holds all T steps of a contiguous group of n samplers,
                leading dimensions [T, n]. "steps": each batch holds B of the T * N rows, drawn without
                replacement, leading dimensions [1, B]: to the model, one step of B samplers.

        Returns:
            Batches with the keys that `AbstractActorCriticLoss` describes. Tensors may be views of the storage, and
            may come again in the next pass: they are not to be written into.

        Raises:
            ExperimentConfigError: there are fewer samplers (rows) than mini-batches, or steps are to be
                shuffled although the model has a memory.
        """
        over_steps = mini_batches_over == "steps"
        pieces, noun = self.num_samplers, "task samplers"
        if over_steps:
            pieces, noun = self.step * self.num_samplers, "steps"
        if pieces < num_mini_batch:
            raise ExperimentConfigError(
                f"{num_mini_batch} mini-batches cannot be cut from {pieces} {noun}.",
                given=f"num_mini_batch={num_mini_batch}, {self.num_samplers} samplers of {self.step} steps",
                do="use fewer mini-batches or more task samplers.",
            )
        if over_steps and self._first_memory:
            raise ExperimentConfigError(
                "steps cannot be shuffled for a model with memory.",
                given=f'mini_batches_over="steps", memory {sorted(self._first_memory)}',
                do='use mini_batches_over="samplers", which keeps sequences whole.',
            )
        if num_mini_batch == 0:
            return iter(())
        cut = self._batches_of_steps if over_steps else self._batches_of_samplers
        return cut(num_mini_batch)

    def _batches_of_samplers(self, num_mini_batch: int) -> Iterator[dict[str, Any]]:
        limits = partition_limits(self.num_samplers, num_mini_batch)
        groups = list(pairwise(limits))
        random.shuffle(groups)
        for group in groups:
            memory = Memory()
            for key, (tensor, dim) in self._first_memory.items():
                memory.check_append(key, tensor[(slice(None),) * dim + (slice(*group),)].clone(), dim)
            observations, rows = self._group(group)
            tensors = [*observations.values(), *rows.values()]
            before = [tensor._version for tensor in tensors]
            yield self._batch(observations, rows, memory)
            if [tensor._version for tensor in tensors] != before:  # a loss has written into them
                self._groups.pop(group, None)

    def _group(self, group: tuple[int, int]) -> tuple[Picked, Picked]:
        """Returns what belongs to the samplers from `group[0]` to `group[1]`; small copies are kept."""
        picked = self._groups.get(group)
        if picked is None:
            picked = self._pick(partial(_take_samplers, group=slice(*group)))
            if self.nbytes <= _KEPT_GROUPS_BYTES:
                self._groups[group] = picked
        return picked

    def _batches_of_steps(self, num_mini_batch: int) -> Iterator[dict[str, Any]]:
        order = torch.randperm(self.step * self.num_samplers).to(self.device)  # [T * N]
        for picked in order.tensor_split(num_mini_batch):
            yield self._batch(*self._pick(partial(_take_steps, picked=picked)), Memory())

    def _pick(self, pick: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Picked, Picked]:
        """Returns what `pick` takes out of the observations (by flat name) and out of all else, [T, N, ...] each."""
        rows = {
            "actions": self.actions,
            "prev_actions": self.prev_actions[:-1],
            "values": self.value_preds[:-1],
            "returns": self.returns[:-1],
            "masks": self.masks[:-1],
            "old_action_log_probs": self.action_log_probs,
            "adv_targ": self._targets["advantages"],
            "norm_adv_targ": self._targets["norm_advantages"],
        }
        observations = {name: pick(leaf[: self.step]) for name, leaf in self._observations.items()}
        return observations, {name: pick(tensor) for name, tensor in rows.items()}

    def _batch(self, observations: Picked, rows: Picked, memory: Memory) -> dict[str, Any]:
        """Returns a batch with dicts of its own, which a loss may change."""
        return {
            **rows,
            "observations": unflatten_observations(observations),
            "actions": unflatten(self.action_space, rows["actions"]),
            "prev_actions": unflatten(self.action_space, rows["prev_actions"]),
            "memory": memory,
            "bsize": rows["masks"].numel(),
        }


def _take_samplers(rows: torch.Tensor, group: slice) -> torch.Tensor:
    # [T, n, ...], copied: for layers that need it in a row, and for losses that write into their batch
    return rows[:, group].clone(memory_format=torch.contiguous_format)


def _take_steps(rows: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
    return rows.flatten(0, 1).index_select(0, picked).unsqueeze(0)  # [1, B, ...]
