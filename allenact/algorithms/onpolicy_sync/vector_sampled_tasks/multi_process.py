"""VectorSampledTasks: samplers in worker processes, with AllenAct's constructor and list interface."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.list_interface import ListVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process import READ_TIMEOUT_S, ProcessVectorTasks
from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.errors import ExperimentConfigError
from allenact.utils.system import get_logger


class VectorSampledTasks(ProcessVectorTasks, ListVectorTasks):
    """`ProcessVectorTasks` for code that was written for AllenAct: same arguments, and steps by lists.

    Args:
        make_sampler_fn: called in the workers, as `make_sampler_fn(mp_ctx=context, **arguments)`.
        sampler_fn_args: the arguments of each sampler.
        callback_sensors: read on every finished task.
        auto_resample_when_done: whether to draw the next task when one ends; else the task stays finished.
        multiprocessing_start_method: "forkserver", "spawn" or "fork"; exactly one of this and `mp_ctx` is not None.
        mp_ctx: the multiprocessing context to start workers with.
        should_log: whether to log how many workers were started.
        max_processes: workers at most; None: the cores that this process may use.
        read_timeout: seconds to wait for an answer (the first takes up to five times that); None: for ever.
        **kwargs: `action_space` and `keep_healthy`, see ProcessVectorTasks.

    Raises:
        ExperimentConfigError: no samplers, not exactly one of start method and context, or a method that this system
            lacks.
    """

    def __init__(
        self,
        make_sampler_fn: Callable[..., TaskSampler],
        sampler_fn_args: Sequence[dict[str, Any]] | None = None,
        callback_sensors: SensorSuite | Sequence[Sensor] | None = None,
        auto_resample_when_done: bool = True,
        multiprocessing_start_method: str | None = protocol.DEFAULT_MP_CONTEXT_TYPE,
        mp_ctx: BaseContext | None = None,
        should_log: bool = True,
        max_processes: int | None = None,
        read_timeout: float | None = READ_TIMEOUT_S,
        *,
        action_space: gym.Space | None = None,
        keep_healthy: bool = False,
    ) -> None:
        super().__init__(
            make_sampler_fn,
            list(sampler_fn_args or ()),
            callback_sensors,
            mp_ctx=_context(multiprocessing_start_method, mp_ctx),
            max_processes=max_processes,
            read_timeout=read_timeout,
            action_space=action_space,
            auto_resample_when_done=auto_resample_when_done,
            keep_healthy=keep_healthy,
        )
        if should_log:
            get_logger().info("%d task samplers are %s.", self.num_samplers, self.description)

    def async_step(self, actions: Sequence[Any]) -> None:
        """Sends the actions to the workers; `wait_step` returns the results."""
        n = self.num_unpaused_tasks
        self._send_commands(range(n), [protocol.STEP_COMMAND] * n, actions)

    def wait_step(self) -> list[RLStepResult]:
        """Waits for the results of the step that `async_step` started."""
        if not self._pool.is_busy:
            raise RuntimeError("wait_step() needs an async_step() before it")
        return self._receive_answers()


def _context(start_method: str | None, mp_ctx: BaseContext | None) -> BaseContext:
    """Returns the multiprocessing context that one of the two arguments names."""
    if (start_method is None) == (mp_ctx is None):
        raise ExperimentConfigError(
            "exactly one of multiprocessing_start_method and mp_ctx has to be given.",
            f"multiprocessing_start_method={start_method!r}, mp_ctx={mp_ctx!r}",
        )
    methods = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in methods:
        raise ExperimentConfigError(
            f"this system cannot start processes by {start_method!r}.",
            f"multiprocessing_start_method={start_method!r}",
            f"use one of {', '.join(methods)}.",
        )
    return mp_ctx or multiprocessing.get_context(start_method)
