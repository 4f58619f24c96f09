"""Chooses how task samplers are stepped: by the task's own batch, in worker processes, or one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks, callback_suite
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks, batch_of
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
    if plays and backend == "auto":  # processes that play never wait for anything but a core
        max_processes = min(max_processes or cores, cores)
    num_processes = min(max_processes or usable_cores(), len(sampler_fn_args))
    in_processes = backend == "process" or (plays and backend == "auto" and num_processes > 1)
    obstacle = ""  # to a batch
    if backend in ("auto", "batched") and sampler_fn_args:
        args = sampler_fn_args[:1] if in_processes else sampler_fn_args  # processes make batches of their own
        batch = batch_of(make_sampler_fn, args, callback_suite(callback_sensors), 1 if in_processes else cores)
        if isinstance(batch, str):
            obstacle = batch
        elif in_processes:
            batch.close()
        else:
            return _explained(BatchedVectorTasks(batch, action_space), backend)
    if backend == "batched" and obstacle:
        raise ExperimentConfigError(
            f"these task samplers cannot be stepped as a batch: {obstacle}.",
            'sampler backend "batched"',
            'use the backend "auto", "process" or "serial".',
        )
    if backend == "serial" or num_processes == 0 or (backend == "auto" and num_processes == 1):
        serial = SingleProcessVectorSampledTasks(
            make_sampler_fn, sampler_fn_args, callback_sensors, action_space=action_space
        )
        return _explained(serial, backend, obstacle)
    processes = VectorSampledTasks(
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
    return _explained(processes, backend, obstacle)


def _explained(tasks: VectorTasks, asked: str, obstacle: str = "") -> VectorTasks:
    """Adds to the description which backend steps the tasks, and why that one; `obstacle` is that to a batch."""
    tasks.description += f"; {_why(asked, tasks, obstacle)}"
    return tasks


def _why(asked: str, tasks: VectorTasks, obstacle: str) -> str:
    if asked != "auto":
        return f"backend {asked}, as asked"
    if isinstance(tasks, BatchedVectorTasks):
        return "backend batched, the fastest, because these samplers offer it"
    if isinstance(tasks, VectorSampledTasks):
        if not obstacle:
            return "backend process with batches, the fastest, because the policy can act there"
        return f"backend process, not batched because {obstacle}"
    return f"backend serial, because there would be one process only; not batched because {obstacle}"
