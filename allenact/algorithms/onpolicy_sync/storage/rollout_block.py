"""RolloutBlockStorage: one rollout of all samplers, its returns and advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.returns import (
    advantage_stats,
    discounted_returns,
    gae,
    normalize_advantages,
)
from allenact.algorithms.onpolicy_sync.storage.base import RolloutStorage
from allenact.algorithms.onpolicy_sync.storage.observation_tree import (
    FLATTEN_SEPARATOR,
    flat_leaves,
    flatten_observations,
    unflatten_observations,
)
from allenact.algorithms.onpolicy_sync.storage.rollout_batches import RolloutBatches
from allenact.algorithms.onpolicy_sync.storage.rollout_rows import write_row
from allenact.base_abstractions.misc import Memory, ObservationType
from allenact.errors import CheckpointError, TaskError
from allenact.utils.spaces_utils import flatdim, flatten, unflatten


class RolloutBlockStorage(RolloutBatches, RolloutStorage):
    """Keeps one rollout; the attributes of `RolloutRows` show what has been collected, `RolloutBatches` cuts it up.

    Of the recurrent states only those at the two ends of the rollout are kept: a loss runs the model over the
    whole sequence from the first one.

    Args:
        init_size: steps to make room for if `reserve` is not called; room doubles when it runs out.

    Attributes:
        total_experiences: steps of single samplers taken so far, over all rollouts of this worker.
    """

    FLATTEN_SEPARATOR = FLATTEN_SEPARATOR
    total_experiences = 0

    def __init__(self, init_size: int = 50) -> None:
        super().__init__(full_size=init_size)
        self._last_memory = Memory()

    # Coming into use

    @torch.no_grad()
    def initialize(
        self,
        *,
        observations: ObservationType,
        num_samplers: int = 0,
        recurrent_memory_specification: Mapping[str, Any] | None = None,
        action_space: Any = None,
        **kwargs: Any,
    ) -> None:
        """Forgets the rollout; `observations` become row 0, with mask 0, previous action 0 and memory 0."""
        self._groups.clear()
        self.step, self.num_samplers, self.action_space = 0, num_samplers, action_space
        self._allocate(flatten_observations(observations), self._zero_actions())
        self._last_memory = self._zero_memory(recurrent_memory_specification)
        self._first_memory = _clone(self._last_memory)

    def _zero_actions(self) -> torch.Tensor | None:
        """Returns [N, A] zeros of the type that flattened actions have (whole numbers stay whole)."""
        if self.action_space is None:
            return None
        zeros = torch.zeros(1, self.num_samplers, flatdim(self.action_space))  # [1, N, A]
        return flatten(self.action_space, unflatten(self.action_space, zeros))[0]

    def _zero_memory(self, specification: Mapping[str, Any] | None) -> Memory:
        memory = Memory()
        for key, (dims, dtype) in (specification or {}).items():
            names = [name for name, _ in dims]
            shape = [self.num_samplers if name == "sampler" else size for name, size in dims]
            memory.check_append(key, torch.zeros(shape, dtype=dtype, device=self.device), names.index("sampler"))
        return memory

    def reserve(self, num_steps: int) -> None:
        """Makes room for rollouts of `num_steps` steps; before `initialize` nothing has to be copied."""
        if self._rows:
            self._grow(num_steps)
        else:
            self.full_size = num_steps

    def to(self, device: torch.device) -> None:
        """Moves all data to a device."""
        self.device = torch.device(device)
        self._groups.clear()
        self._change(lambda rows: rows.to(self.device))
        self._first_memory.to(self.device)
        self._last_memory.to(self.device)

    def set_partition(self, index: int, num_parts: int) -> None:
        """Does nothing: each worker fills the storage with its own rollouts."""

    # Collecting

    @torch.no_grad()
    def add(
        self,
        observations: ObservationType,
        memory: Memory | None,
        actions: torch.Tensor,
        action_log_probs: torch.Tensor,
        value_preds: torch.Tensor,
        rewards: torch.Tensor,
        masks: torch.Tensor,
        truncation_values: torch.Tensor | None = None,
    ) -> None:
        """Writes one step of all samplers into the next row.

        Args:
            observations: leaves [N, O...], seen after the action.
            memory: the model's state after the previous observation.
            actions: [N, A] flattened.
            action_log_probs: [N, ...] as the distribution gives them.
            value_preds: [N, 1] value of the previous observation.
            rewards: [N, 1].
            masks: [N, 1] 0 where `observations` are the first of an episode, else 1.
            truncation_values: [N, 1] value of the last observation where a limit cut the episode, else 0.

        Raises:
            TaskError: the observations have other names than the first ones, or a tensor another shape.
        """
        t = self._next_step()
        flat = flatten_observations(observations)
        self._check_names(flat)
        for name, leaf in flat.items():
            write_row(self._observations[name], t + 1, leaf, name)
        self._write("masks", t + 1, masks)
        self._write("prev_actions", t + 1, actions)
        self._write("action_log_probs", t, action_log_probs)
        self._write("value_preds", t, value_preds)
        self._write("rewards", t, rewards)
        if truncation_values is not None:
            self._write("truncation_values", t, truncation_values)
        elif "truncation_values" in self._rows:
            self._rows["truncation_values"][t] = 0

        for key, (tensor, dim) in (memory or {}).items():
            self._last_memory[key] = (tensor.detach(), dim)
        self.advance(1)

    def _check_names(self, flat: Mapping[str, Any]) -> None:
        if flat.keys() != self._observations.keys():
            raise TaskError(
                "the observations changed their names during a rollout.",
                given=f"first {sorted(self._observations)}, after {self.step + 1} steps {sorted(flat)}",
                do="let every sensor return an observation at every step.",
            )

    def add_transition(
        self, observations: Mapping[str, Any], actions: np.ndarray, rewards: np.ndarray, dones: np.ndarray
    ) -> None:
        """Writes one step of all samplers, whose predictions `add_predictions` adds later. CPU only.

        Args:
            observations: leaves [N, O...] (NumPy), seen after the action.
            actions: [N, A] flattened.
            rewards: [N].
            dones: [N] whether `observations` are the first of an episode.

        Raises:
            TaskError: the observations have other names than the first ones, or an array another shape.
        """
        t, (observation_rows, rows) = self._next_step(), self._numpy_rows()
        flat = dict(flat_leaves(observations))
        self._check_names(flat)
        for name, leaf in flat.items():
            write_row(observation_rows[name], t + 1, leaf, name)
        rows["prev_actions"][t + 1] = actions
        rows["rewards"][t, :, 0] = rewards
        rows["masks"][t + 1, :, 0] = ~dones
        self.advance(1)

    def add_block(
        self,
        first_step: int,
        samplers: slice,
        observations: Mapping[str, np.ndarray],
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
    ) -> None:
        """Writes K steps of n samplers. `reserve` comes first, and `advance` once every sampler has its steps.

        Args:
            first_step: index of the first one in the rollout.
            samplers: whose steps they are.
            observations: under flat names, leaves [K, n, O...] (NumPy), seen after the actions.
            actions: [K, n, A] flattened.
            rewards: [K, n].
            dones: [K, n] whether `observations` are the first of an episode.
        """
        observation_rows, rows = self._numpy_rows()
        these = slice(first_step, first_step + len(rewards))
        following = slice(these.start + 1, these.stop + 1)
        for name, block in observations.items():
            observation_rows[name][following, samplers] = block
        rows["prev_actions"][following, samplers] = actions
        rows["rewards"][these, samplers, 0] = rewards
        rows["masks"][following, samplers, 0] = ~dones

    def advance(self, num_steps: int) -> None:
        """Counts steps that have been written for all samplers."""
        self.step += num_steps
        self.total_experiences += num_steps * self.num_samplers

    def observation_row(self, step: int) -> dict[str, Any]:
        """Returns the nested observations of one step as NumPy arrays, leaves [N, O...]. CPU only."""
        observations, _ = self._numpy_rows()
        return unflatten_observations({name: rows[step] for name, rows in observations.items()})

    def rows_for_model(self, first: int = 0, end: int | None = None) -> dict[str, Any]:
        """Returns rows of the rollout as the model sees them: observations, prev_actions, masks, actions, [K, N, ...].

        Args:
            first: of the rows.
            end: the row after the last one, at most T; None: T.
        """
        end = self.step if end is None else min(end, self.step)
        return {
            "observations": unflatten_observations({k: rows[first:end] for k, rows in self._observations.items()}),
            "prev_actions": unflatten(self.action_space, self.prev_actions[first:end]),
            "masks": self.masks[first:end],
            "actions": unflatten(self.action_space, self.actions[first:end]),
        }

    def add_predictions(self, first: int, action_log_probs: torch.Tensor, value_preds: torch.Tensor) -> None:
        """Adds what the model predicts for rows that `add_transition` or `add_block` wrote.

        Args:
            first: of the K rows.
            action_log_probs: [K, N, ...] as the distribution gives them.
            value_preds: [K, N, 1].
        """
        if "action_log_probs" not in self._rows:
            self._rows["action_log_probs"] = self._new_rows(action_log_probs[0])
        rows = slice(first, first + len(value_preds))
        self._rows["action_log_probs"][rows] = action_log_probs
        self._rows["value_preds"][rows] = value_preds
        if "truncation_values" in self._rows:
            self._rows["truncation_values"][rows] = 0

    def add_truncation_values(self, rows: Sequence[int], samplers: Sequence[int], values: torch.Tensor) -> None:
        """Adds V of the last observations, [n, 1], of n episodes that a limit ended, by row and sampler."""
        if "truncation_values" not in self._rows:
            self._rows["truncation_values"] = torch.zeros_like(self._rows["rewards"])
        self._rows["truncation_values"][list(rows), list(samplers)] = values

    def agent_input_for_next_step(self) -> dict[str, Any]:
        """Returns the arguments of the model's next forward pass; tensors are views of the newest row."""
        return {
            "observations": self.pick_observation_step(self.step),
            "memory": self.pick_memory_step(self.step),
            "prev_actions": self.pick_prev_actions_step(self.step),
            "masks": self.masks[-1:],  # [1, N, 1]
        }

    def pick_observation_step(self, step: int) -> ObservationType:
        """Returns the nested observations of one step (-1: the newest), leaves [1, N, O...]."""
        step = self.step if step == -1 else step
        return unflatten_observations({name: rows[step : step + 1] for name, rows in self._observations.items()})

    def pick_memory_step(self, step: int) -> Memory:
        """Returns the recurrent state at one end of the rollout, 0 or the newest step (-1).

        Raises:
            ValueError: for a step in between, whose state is not kept.
        """
        if step not in (0, -1, self.step):
            raise ValueError(f"memory is kept for steps 0 and {self.step} only, not for {step}")
        # A new Memory of the same tensors, because models answer with memory.set_tensor(...) of what they got.
        return Memory(self._last_memory if step in (-1, self.step) else self._first_memory)

    def pick_prev_actions_step(self, step: int) -> Any:
        """Returns the action before one step (-1: the newest), as the action space has it, [1, N, ...]."""
        step = self.step if step == -1 else step
        return unflatten(self.action_space, self._rows["prev_actions"][step : step + 1])

    @property
    def memory_first_last(self) -> Memory:
        """The recurrent states at both ends of the rollout, stacked in a new leading dimension of 2."""
        both = Memory()
        for key, (last, dim) in self._last_memory.items():
            both.check_append(key, torch.stack((self._first_memory.tensor(key), last)), dim + 1)
        return both

    def sampler_select(self, keep_list: Sequence[int]) -> None:
        """Forgets the rows and states of all samplers except `keep_list`."""
        keep = torch.as_tensor(keep_list, dtype=torch.int64, device=self.device)
        self.num_samplers = len(keep)
        self._groups.clear()
        self._change(lambda rows: rows.index_select(1, keep))
        self._first_memory = self._first_memory.sampler_select(keep_list)
        self._last_memory = self._last_memory.sampler_select(keep_list)

    # Learning

    @torch.no_grad()
    def before_updates(  # type: ignore[override]  # the keywords that the interface lists
        self,
        *,
        next_value: torch.Tensor,
        use_gae: bool,
        gamma: float,
        tau: float | None = None,
        adv_stats_callback: Callable[[torch.Tensor], Mapping[str, torch.Tensor]] = advantage_stats,
        **kwargs: Any,
    ) -> None:
        """Computes returns and advantages of the rollout; see `ExperienceStorage.before_updates`."""
        self._rows["value_preds"][self.step] = next_value.reshape(self.num_samplers, 1)
        rewards, values, masks = self.rewards, self.value_preds, self.masks
        truncated = self._rows["truncation_values"][: self.step] if "truncation_values" in self._rows else None
        if use_gae:
            if tau is None:
                raise ValueError("generalised advantage estimates need tau, the gae_lambda of the settings")
            advantages = gae(rewards, values, masks, gamma=gamma, gae_lambda=tau, truncation_values=truncated)
            returns = torch.cat((advantages + values[:-1], values[-1:]))  # [T+1, N, 1]
        else:
            returns = discounted_returns(rewards, values[-1], masks, gamma=gamma, truncation_values=truncated)
            advantages = returns[:-1] - values[:-1]  # [T, N, 1]
        normalised = normalize_advantages(advantages, adv_stats_callback(advantages))  # [T, N, 1]
        self._targets = {"returns": returns, "advantages": advantages, "norm_advantages": normalised}
        self._groups.clear()

    def observations_and_returns(self) -> tuple[ObservationType, torch.Tensor]:
        """Returns the observations of the rollout, leaves [T, N, O...], and its returns, [T, N, 1]."""
        return self.rows_for_model()["observations"], self.returns[:-1]

    def after_updates(self, **kwargs: Any) -> None:
        """Makes the newest observation, mask, previous action and recurrent state those of row 0."""
        self._groups.clear()
        newest, first = self._carried_over(self.step), self._carried_over(0)
        for group, tensors in first.items():
            for name, row in tensors.items():
                row.copy_(newest[group][name])
        self._first_memory = _clone(self._last_memory)
        self.step = 0

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Returns what the next rollout starts from: the newest row and recurrent state."""
        state: dict[str, Any] = {
            group: {name: row.clone() for name, row in tensors.items()}
            for group, tensors in self._carried_over(self.step).items()
        }
        state["memory"] = {key: tensor.clone() for key, (tensor, _) in self._last_memory.items()}
        state["total_experiences"] = self.total_experiences
        return state

    def load_state_dict(self, state: Mapping[str, Any], restarted: Sequence[int] = ()) -> None:
        """Takes over row 0 of another run; called after `initialize`.

        Args:
            state: what `state_dict` returned.
            restarted: samplers that begin a new episode instead and keep what `initialize` gave them.

        Raises:
            CheckpointError: the state has other names or shapes than this storage.
        """
        rows: dict[str, dict[str, Any]] = {
            group: {name: (row, 0) for name, row in tensors.items()} for group, tensors in self._carried_over(0).items()
        }
        rows["memory"] = dict(self._first_memory)
        for group, tensors in rows.items():
            saved = {name: tuple(tensor.shape) for name, tensor in state[group].items()}
            expected = {name: tuple(tensor.shape) for name, (tensor, _) in tensors.items()}
            if saved != expected:
                raise CheckpointError(
                    "the checkpoint's rollout storage belongs to other observations, actions or samplers.",
                    given=f"{group} in the checkpoint {saved}, in the experiment {expected}",
                    do="resume with the same experiment and the same number of samplers.",
                )
        kept = [index for index in range(self.num_samplers) if index not in restarted]
        for group, tensors in rows.items():
            for name, (tensor, sampler_dim) in tensors.items():
                index = (slice(None),) * sampler_dim + (kept,)
                tensor[index] = state[group][name][index].to(tensor)
        self._last_memory = _clone(self._first_memory)
        self.step = 0
        self.total_experiences = int(state["total_experiences"])


def _clone(memory: Memory) -> Memory:
    """Returns a memory with tensors of its own: a model may write into those that it is given."""
    return Memory({key: (tensor.clone(), dim) for key, (tensor, dim) in memory.items()})
