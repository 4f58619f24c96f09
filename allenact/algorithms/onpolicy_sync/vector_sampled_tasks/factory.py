"""Chooses how task samplers are stepped: by the task's own batch, in worker processes, or one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks, callback_suite
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks, batch_of
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.multi_process import (
    READ_TIMEOUT_S,
    VectorSampledTasks,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import can_be_pickled
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import (
    SingleProcessVectorSampledTasks,
)
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import TaskBatch
from allenact.errors import ExperimentConfigError
from allenact.utils.cores import usable_cores
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
    plays: bool = False,
) -> VectorTasks:
    """Builds task samplers and whatever steps them. The numbers are the same with every backend.

    Args:
        make_sampler_fn: builds one sampler from the keyword arguments in `sampler_fn_args` and `mp_ctx`.
        sampler_fn_args: the arguments of each sampler.
        action_space: the model's action space, which says how flat actions become actions of the tasks; None: that
            of the first task.
        backend: "serial" (in this process), "process" (worker processes, in each of them the task's own batch if there
            is one), "batched" (the task's own batch), or "auto": batched where the task offers it, but process if they
            can play; else process, or serial if there would be one process only.
        max_processes: worker processes at most, "auto" makes no more than `num_threads` if they play; None: the cores
            that this process may use.
        callback_sensors: read on every finished task. Only batches with an attribute `callback_suite` do that.
        mp_ctx: starts worker processes; None: forkserver where the system has it.
        read_timeout: seconds to wait for a worker; None: for ever.
        num_threads: threads of a batch, or processes that play; None: the cores that this process may use.
        keep_healthy: whether a failure in a worker process leaves the others alive, for `restart_lost`.
        plays: whether worker processes will be given the policy, see `VectorTasks.play`.

    Raises:
        ExperimentConfigError: no sampler, an unknown backend, or `backend="batched"` with tasks that have no batch.
    """
    if backend not in BACKENDS:
        raise ExperimentConfigError(
            f"there is no sampler backend {backend!r}.",
            f"backend={backend!r}",
            f"use one of {', '.join(BACKENDS)}.",
        )
    cores = num_threads or usable_cores()
    lends = plays and backend == "auto" and can_be_pickled((make_sampler_fn, sampler_fn_args))
    if lends:  # processes that play never wait for anything but a core
        max_processes = min(max_processes or cores, cores)
    num_processes = min(max_processes or usable_cores(), len(sampler_fn_args))
    try_batch = partial(batch_of, make_sampler_fn, callback_suite(callback_sensors))
    chosen, why = _choose(backend, sampler_fn_args, num_processes, cores, try_batch, lends)
    tasks: VectorTasks
    if isinstance(chosen, TaskBatch):
        tasks = BatchedVectorTasks(chosen, action_space)
    elif chosen == "serial":
        tasks = SingleProcessVectorSampledTasks(
            make_sampler_fn, sampler_fn_args, callback_sensors, action_space=action_space
        )
    else:
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
            as_batches=True,
        )
    tasks.description += f"; backend {why}"
    return tasks


def _choose(
    backend: str,
    sampler_fn_args: Sequence[dict[str, Any]],
    num_processes: int,
    cores: int,
    try_batch: Callable[..., TaskBatch | str],
    lends: bool,
) -> tuple[TaskBatch | str, str]:
    """Returns the backend, or the batch itself, and why.

    Args:
        backend: as asked.
        sampler_fn_args: the arguments of each sampler.
        num_processes: how many there would be.
        cores: threads of a batch.
        try_batch: `batch_of`, but for arguments and threads.
        lends: whether the processes will be given the policy.
    """
    if backend in ("serial", "process") or not sampler_fn_args:
        return backend, f"{backend}, as asked"
    in_processes = lends and num_processes > 1  # they make batches of their own, so one sampler is enough to ask
    batch = try_batch(
        sampler_fn_args[:1] if in_processes else sampler_fn_args, num_threads=1 if in_processes else cores
    )
    if not isinstance(batch, str):
        if not in_processes:
            why = "as asked" if backend == "batched" else "the fastest, because these samplers offer it"
            return batch, f"batched, {why}"
        batch.close()
        return "process", "process with batches, the fastest, because the policy can act there"
    if backend == "batched":
        raise ExperimentConfigError(
            f"these task samplers cannot be stepped as a batch: {batch}.",
            'sampler backend "batched"',
            'use the backend "auto", "process" or "serial".',
        )
    if num_processes == 1:
        return "serial", f"serial, because there would be one process only; not batched because {batch}"
    return "process", f"process, not batched because {batch}"
