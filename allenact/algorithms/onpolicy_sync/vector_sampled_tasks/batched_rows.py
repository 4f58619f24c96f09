"""A batch in a sampler process: what it gives goes to rows of arrays that the trainer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import FlatActions
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks, row_of
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    Endings,
    Layout,
    Selection,
    StepArrays,
    layout_of,
)
from allenact.base_abstractions.task_batch import TaskBatch
from allenact.utils.spaces_utils import is_integral


class BatchedRows(BatchedVectorTasks):
    """The samplers of one process as a batch, with the methods that `SingleProcessVectorSampledTasks` has for rows.

    Args:
        batch: fresh from `TaskSampler.make_batch`, its first tasks drawn.
        action_space: the model's action space; None: that of the first task.
        first_sampler: index of the first sampler among all, for messages.
    """

    def __init__(self, batch: TaskBatch, action_space: gym.Space | None = None, first_sampler: int = 0) -> None:
        super().__init__(batch, action_space, first_sampler)
        self._arrays: StepArrays | None = None  # made by the first observe_rows(), which knows shapes and types

    def observe_rows(self) -> Layout:
        """Writes the current observation of every active sampler to its row; returns the layout of a row."""
        observations = self.observe()
        if self._arrays is None:
            layout = tuple(leaf._replace(shape=leaf.shape[1:]) for leaf in layout_of(observations))
            self.use_arrays(StepArrays(layout, self._num_samplers))
        assert self._arrays is not None
        self._arrays.put(self._active, (observations, *self._arrays.select(self._active)[1:]))
        return self._arrays.layout

    def use_arrays(self, arrays: StepArrays) -> None:
        """Writes rows to these arrays from now on, which take over what has been written so far."""
        if self._arrays is not None:
            arrays.copy_from(self._arrays)
        self._arrays = arrays

    def step_shared_rows(self) -> Endings:
        """Does what `step_rows` does with the actions that are in the arrays."""
        assert self._arrays is not None
        dtype = np.int64 if is_integral(self.action_space) else np.float32  # as the model gives them
        return self.step_rows(self._arrays.actions[self._active].astype(dtype))  # [n, A]

    def step_rows(self, flat_actions: FlatActions) -> Endings:
        """Takes one step in every active task, writes the rows, returns what has no place in a row."""
        if self._arrays is None:
            self.observe_rows()
        assert self._arrays is not None
        step = self.step_batch(flat_actions)
        self._arrays.put(self._active, (step.observations, step.rewards, step.dones, step.truncated))
        return step.final_observations, step.episodes, step.exhausted

    def select_rows(self) -> Selection:
        """Returns observations, rewards, dones and truncated of the active samplers."""
        assert self._arrays is not None
        return self._arrays.select(self._active)

    def go_back(self, states: Sequence[dict[str, Any] | None]) -> list[int]:
        """Restores what `state_dict` returned; returns the samplers that cannot, most of which play on.

        One whose state is refused is restarted.
        """
        left = self._restore(states)
        refused = [index for index in left if states[index] is not None]
        if refused:
            self.batch.reset(refused)
        return left

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers; they cannot step apart from each other."""
        return [self._answer(*question) for question in zip(positions, commands, data, strict=True)]

    def _answer(self, position: int, command: str, data: Any) -> Any:
        """Carries out one command for one sampler."""
        index = self._active[position]
        match command:
            case protocol.NEXT_TASK_COMMAND:
                self.batch.next_tasks([index], **(data or {}))
                return row_of(self.batch.observe([index]), 0)
            case protocol.RESET_COMMAND:
                return self.batch.reset([index])
            case protocol.SEED_COMMAND:
                return self.batch.samplers[index].set_seed(data)
        return super().run_commands([position], [command], [data])[0]
