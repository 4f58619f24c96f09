"""Chooses how task samplers are stepped: by the task's own batch, in worker processes, or one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks, callback_suite, close_samplers
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.multi_process import (
    READ_TIMEOUT_S,
    VectorSampledTasks,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import (
    SingleProcessVectorSampledTasks,
)
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.errors import ExperimentConfigError
from allenact.utils.cores import usable_cores
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.worker_startup import worker_context

BACKENDS = ("auto", "batched", "process", "serial")


def make_vector_tasks(
    make_sampler_fn: Callable[..., TaskSampler],
    sampler_fn_args: Sequence[dict[str, Any]],
    *,
    action_space: gym.Space | None,
    backend: str = "auto",
    max_processes: int | None = None,
    callback_sensors: SensorSuite | Sequence[Sensor] | None = None,
    mp_ctx: BaseContext | None = None,
    read_timeout: float | None = READ_TIMEOUT_S,
    num_threads: int | None = None,
    keep_healthy: bool = False,
) -> VectorTasks:
    """Builds task samplers and whatever steps them. The numbers are the same with every backend.

    Args:
        make_sampler_fn: builds one sampler from the keyword arguments in `sampler_fn_args` and `mp_ctx`.
        sampler_fn_args: the arguments of each sampler.
        action_space: the model's action space, which says how flat actions become actions of the tasks; None: that
            of the first task.
        backend: "serial" (in this process), "process" (worker processes), "batched" (the task's own batch), or
            "auto": batched where the task offers it, else process, else serial if there would be one process only.
        max_processes: worker processes at most; None: the cores that this process may use.
        callback_sensors: read on every finished task. Only batches with an attribute `callback_suite` do that.
        mp_ctx: starts worker processes; None: forkserver where the system has it.
        read_timeout: seconds to wait for a worker; None: for ever.
        num_threads: threads of a batch; None: the cores that this process may use.
        keep_healthy: whether a failure in a worker process leaves the others alive, for `restart_lost`.

    Raises:
        ExperimentConfigError: no sampler, an unknown backend, or `backend="batched"` with tasks that have no batch.
    """
    if backend not in BACKENDS:
        raise ExperimentConfigError(
            f"there is no sampler backend {backend!r}.",
            f"backend={backend!r}",
            f"use one of {', '.join(BACKENDS)}.",
        )
    why_not_batched = ""
    tasks: VectorTasks | None = None
    if backend in ("auto", "batched") and sampler_fn_args:
        answer = _try_batch(make_sampler_fn, sampler_fn_args, action_space, callback_sensors, num_threads)
        if isinstance(answer, VectorTasks):
            tasks = answer
        else:
            why_not_batched = answer
    if backend == "batched" and why_not_batched:
        raise ExperimentConfigError(
            f"these task samplers cannot be stepped as a batch: {why_not_batched}.",
            'sampler backend "batched"',
            'use the backend "auto", "process" or "serial".',
        )
    num_processes = min(max_processes or usable_cores(), len(sampler_fn_args))
    if tasks is None and (backend == "serial" or num_processes == 0 or (backend == "auto" and num_processes == 1)):
        tasks = SingleProcessVectorSampledTasks(
            make_sampler_fn, sampler_fn_args, callback_sensors, action_space=action_space
        )
    if tasks is None:
        tasks = VectorSampledTasks(
            make_sampler_fn,
            sampler_fn_args,
            callback_sensors,
            multiprocessing_start_method=None,
            mp_ctx=mp_ctx or worker_context(),
            max_processes=max_processes,
            read_timeout=read_timeout,
            action_space=action_space,
            should_log=False,
            keep_healthy=keep_healthy,
        )
    tasks.description += f"; {_why(backend, tasks, why_not_batched)}"
    return tasks


def _why(asked: str, tasks: VectorTasks, why_not_batched: str) -> str:
    """Returns which backend steps the tasks, and why that one."""
    if asked != "auto":
        return f"backend {asked}, as asked"
    if isinstance(tasks, BatchedVectorTasks):
        return "backend batched, the fastest, because these samplers offer it"
    if isinstance(tasks, VectorSampledTasks):
        return f"backend process, not batched because {why_not_batched}"
    return f"backend serial, because there would be one process only; not batched because {why_not_batched}"


def _try_batch(
    make_sampler_fn: Callable[..., TaskSampler],
    sampler_fn_args: Sequence[dict[str, Any]],
    action_space: gym.Space | None,
    callback_sensors: SensorSuite | Sequence[Sensor] | None,
    num_threads: int | None,
) -> BatchedVectorTasks | str:
    """Returns the samplers as a batch, or why they cannot be one. In the latter case they are closed again."""
    samplers: list[TaskSampler] = []
    batch = None
    try:
        _build(make_sampler_fn, sampler_fn_args[:1], samplers)
        sampler_class = type(samplers[0])
        if not any("make_batch" in base.__dict__ for base in sampler_class.__mro__ if base is not TaskSampler):
            return f"{sampler_class.__name__} offers no batch"
        _build(make_sampler_fn, sampler_fn_args[1:], samplers)
        with preserve_rng_state():
            batch = sampler_class.make_batch(samplers, num_threads or usable_cores())
        if batch is None:
            return sampler_class.batch_obstacle(samplers)
    finally:
        if batch is None:
            close_samplers(samplers)
    suite = callback_suite(callback_sensors)
    if suite is not None:
        if not hasattr(batch, "callback_suite"):
            batch.close()
            return f"{type(batch).__name__} does not read callback sensors"
        batch.callback_suite = suite
    return BatchedVectorTasks(batch, action_space)


def _build(
    make_sampler_fn: Callable[..., TaskSampler],
    args_list: Sequence[dict[str, Any]],
    samplers: list[TaskSampler],
) -> None:
    """Appends new samplers to `samplers`, leaving the global random generators as they are."""
    for args in args_list:
        with preserve_rng_state():
            samplers.append(make_sampler_fn(**{"mp_ctx": None, **args}))
