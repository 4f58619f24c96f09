"""Chooses how task samplers are stepped: by the task's own batch, in worker processes, or one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import gymnasium as gym

from allenact._constants import SAMPLER_BACKENDS
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks, callback_suite, close_samplers
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import (
    BatchedVectorTasks,
    batch_of,
    build_samplers,
    offers_batch,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process import READ_TIMEOUT_S, ProcessVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import can_be_pickled
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import (
    SingleProcessVectorSampledTasks,
)
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import TaskBatch
from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.utils.cores import usable_cores
from allenact.utils.worker_startup import worker_context


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
    sends_policy: bool = False,
) -> VectorTasks:
    """Builds task samplers and whatever steps them. The numbers are the same with every backend.

    Args:
        make_sampler_fn: builds one sampler from the keyword arguments in `sampler_fn_args` and `mp_ctx`.
        sampler_fn_args: the arguments of each sampler.
        action_space: the model's action space, which says how flat actions become actions of the tasks; None: that
            of the first task.
        backend: "serial" (in this process), "process" (worker processes, in each of them the task's own batch if there
            is one), "batched" (the task's own batch), or "auto": batched where the task offers it, but process if these
            can be given the policy; else process, or serial if there would be one process only.
        max_processes: worker processes at most ("auto" makes no more than `num_threads` with batches and a copy of the
            policy); None: the cores that this process may use.
        callback_sensors: read on every finished task. Only batches with an attribute `callback_suite` do that.
        mp_ctx: starts worker processes; None: forkserver where the system has it.
        read_timeout: seconds to wait for a worker; None: for ever.
        num_threads: threads of a batch, or processes with a copy of the policy; None: the cores that this process may
            use.
        keep_healthy: whether a failure in a worker process leaves the others alive, for `restart_lost`.
        sends_policy: whether worker processes will be given the policy, see `VectorTasks.collect_rollout`.

    Raises:
        ExperimentConfigError: no sampler, an unknown backend, or `backend="batched"` with tasks that have no batch.
    """
    _check_backend(backend)
    suite, cores = callback_suite(callback_sensors), num_threads or usable_cores()
    num_processes = min(max_processes or usable_cores(), len(sampler_fn_args))
    if backend in ("serial", "process") or not sampler_fn_args:
        choice = Choice(backend, "as asked", as_batches=suite is None)
    else:
        sends_policy = sends_policy and backend == "auto" and can_be_pickled((make_sampler_fn, sampler_fn_args))
        prefers_processes = sends_policy and min(num_processes, cores) > 1
        choice = _choose(make_sampler_fn, sampler_fn_args, suite, backend, num_processes, cores, prefers_processes)
    if choice.batch is not None:
        tasks: VectorTasks = BatchedVectorTasks(choice.batch, action_space)
    elif choice.backend == "serial":
        tasks = SingleProcessVectorSampledTasks(make_sampler_fn, sampler_fn_args, suite, action_space=action_space)
    else:
        tasks = ProcessVectorTasks(
            make_sampler_fn,
            sampler_fn_args,
            suite,
            mp_ctx=mp_ctx or worker_context(),
            max_processes=choice.max_processes or max_processes,
            read_timeout=read_timeout,
            action_space=action_space,
            as_batches=choice.as_batches,
            keep_healthy=keep_healthy,
        )
        if backend == "auto" and tasks.batch_obstacle:
            choice = choice._replace(why=f"not batched because {tasks.batch_obstacle}")
    tasks.description += f"; backend {choice.backend}, {choice.why}"
    return tasks


def _check_backend(backend: str) -> None:
    if backend not in SAMPLER_BACKENDS:
        raise ExperimentConfigError(
            f"there is no sampler backend {backend!r}.",
            f"backend={backend!r}",
            did_you_mean(backend, SAMPLER_BACKENDS) or f"use one of {', '.join(SAMPLER_BACKENDS)}.",
        )


class Choice(NamedTuple):
    """A backend, and the reason for it.

    Attributes:
        backend: "serial", "process" or "batched".
        why: the reason, for the description.
        batch: what steps the samplers, if the backend is "batched".
        as_batches: whether processes step their samplers as batches.
        max_processes: at most; None: what `make_vector_tasks` was given.
    """

    backend: str
    why: str
    batch: TaskBatch | None = None
    as_batches: bool = False
    max_processes: int | None = None


def _choose(
    make_sampler_fn: Callable[..., TaskSampler],
    sampler_fn_args: Sequence[dict[str, Any]],
    suite: SensorSuite | None,
    backend: str,
    num_processes: int,
    cores: int,
    prefers_processes: bool,
) -> Choice:
    """Makes a batch of the samplers if they offer one, else chooses another backend; see `make_vector_tasks`.

    Args:
        make_sampler_fn: builds one sampler.
        sampler_fn_args: the arguments of each.
        suite: callback sensors.
        backend: "auto" or "batched".
        num_processes: how many there would be.
        cores: threads of a batch, or processes with a batch in each.
        prefers_processes: whether processes with a batch in each are better than one batch.
    """
    samplers = build_samplers(make_sampler_fn, sampler_fn_args[:1])
    batch: TaskBatch | str | None = None
    try:
        if offers_batch(type(samplers[0])) and not prefers_processes:  # processes have samplers of their own
            samplers += build_samplers(make_sampler_fn, sampler_fn_args[1:])
        batch = batch_of(samplers, suite, 1 if prefers_processes else cores)
    finally:
        if batch is None or isinstance(batch, str):
            close_samplers(samplers)
    if isinstance(batch, str):
        if backend == "batched":
            raise ExperimentConfigError(
                f"these task samplers cannot be stepped as a batch: {batch}.",
                'sampler backend "batched"',
                'use the backend "auto", "process" or "serial".',
            )
        if num_processes == 1:
            return Choice("serial", f"because there would be one process only; not batched because {batch}")
        return Choice("process", f"not batched because {batch}")
    if prefers_processes:
        batch.close()
        why = "chosen because each can act with a copy of the policy, on a core of its own"
        return Choice("process", why, as_batches=True, max_processes=min(num_processes, cores))
    why = "as asked" if backend == "batched" else "chosen because these samplers offer it"
    return Choice("batched", why, batch)
