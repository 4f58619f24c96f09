"""AllenAct's way of stepping vectorised tasks: one action and one `RLStepResult` for each sampler, in lists."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks
from allenact.base_abstractions.misc import RLStepResult


class ListVectorTasks(VectorTasks):
    """Vectorised tasks that can also be stepped with lists. The training loop steps them with arrays, `step_batch`.

    Where a task ends, `info[COMPLETE_TASK_METRICS_KEY]` holds its metrics (if any), `info[COMPLETE_TASK_CALLBACK_KEY]`
    what the callback sensors saw (if there are any), and `observation` is the first one of the next task, None if
    there is none; `reward` and `done` belong to the task that ended.
    """

    def step(self, actions: Sequence[Any]) -> list[RLStepResult]:
        """Takes one step with each active sampler; actions are plain Python values."""
        self.async_step(actions)
        return self.wait_step()

    @abstractmethod
    def async_step(self, actions: Sequence[Any]) -> None:
        """Starts a step, whose results `wait_step` returns."""

    @abstractmethod
    def wait_step(self) -> list[RLStepResult]:
        """Returns the results of the step that `async_step` started."""

    def step_at(self, sampler_index: int, action: Any) -> list[RLStepResult]:
        """Takes one step with one active sampler; returns a list of one result."""
        return [self.command_at(sampler_index, protocol.STEP_COMMAND, action)]
