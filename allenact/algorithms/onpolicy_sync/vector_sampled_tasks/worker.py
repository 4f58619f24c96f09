"""What runs in a sampler process: a `SingleProcessVectorSampledTasks` whose methods are called over a pipe."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import select
import signal
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import gymnasium as gym
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import Failure, Request, receive, send
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    Layout,
    StepArrays,
    map_shared_memory,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import (
    SingleProcessVectorSampledTasks,
)
from allenact.base_abstractions.sensor import SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.utils.rendering import known_gl_variables
from allenact.utils.seeding import set_seed
from allenact.utils.system import init_logging
from allenact.utils.worker_startup import prepare_worker, when_parent_dies

CLOSE: Request = ("close", ())
"""The last request of every worker; it is not answered."""

SHARE_MEMORY = "share_memory"
"""The request that a file descriptor follows; see `_share_memory`."""

SPIN_S = 5e-4
"""How long a worker watches its pipe before it sleeps. Waking a core that sleeps takes as long as a step of a small
task, and between two steps the trainer only has to choose actions."""

DUMP_TRACEBACK_SIGNAL = signal.SIGUSR1
"""Makes a worker print what it is doing to the standard error."""

GRACE_S = 1.0
"""How long a worker may take to close its samplers when the trainer has died."""

trainer_ends: weakref.WeakSet[Connection] = weakref.WeakSet()
"""The trainer's ends of all pipes. A forked worker inherits copies, which would keep its siblings' pipes open."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to build its samplers."""

    make_sampler_fn: Callable[..., TaskSampler]
    sampler_args: list[dict[str, Any]]
    callback_suite: SensorSuite | None
    auto_resample_when_done: bool
    action_space: gym.Space | None
    first_sampler: int  # index among all samplers
    seed: int  # of the global generators, which tasks may use although they should have their own
    gl_variables: dict[str, str] = field(default_factory=known_gl_variables)  # the server of forks may be older


def run_worker(connection: Connection, spec: WorkerSpec | bytes) -> None:
    """Builds the samplers and answers requests until told to close or until the trainer is gone.

    Args:
        connection: the pipe to the trainer.
        spec: what to build, pickled unless this process is a fork of the trainer.
    """
    # What a forked process inherits is not its own to destroy: an engine's threads, for example, are not here.
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then closes us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.register(DUMP_TRACEBACK_SIGNAL, all_threads=True)
    when_parent_dies(_leave)
    torch.set_num_threads(1)  # the samplers' processes already share the cores
    for end in list(trainer_ends):
        end.close()
    try:
        tasks = _build(spec)
    except Exception as error:
        send(connection, Failure.of(error))
        return
    try:
        send(connection, (tasks.observation_space, tasks.action_spaces))
        _serve(connection, tasks)
    except (EOFError, OSError):
        pass  # the trainer is gone
    finally:
        tasks.close()


def _leave() -> None:
    """Ends this process, which may hang in a task, if it does not notice by itself that the trainer is gone."""
    time.sleep(GRACE_S)
    os._exit(1)


def _build(spec: WorkerSpec | bytes) -> SingleProcessVectorSampledTasks:
    """Builds the samplers and draws their first tasks."""
    if isinstance(spec, bytes):
        prepare_worker([])  # the search path has come with the process already
        init_logging("warning")  # what each worker would say of itself, the trainer has said once for all
        spec = pickle.loads(spec)
    assert isinstance(spec, WorkerSpec)
    os.environ.update(spec.gl_variables)
    set_seed(spec.seed)
    return SingleProcessVectorSampledTasks(
        spec.make_sampler_fn,
        spec.sampler_args,
        spec.callback_suite,
        spec.auto_resample_when_done,
        action_space=spec.action_space,
        first_sampler=spec.first_sampler,
        preserve_rng=False,
    )


def _serve(connection: Connection, tasks: SingleProcessVectorSampledTasks) -> None:
    """Answers requests until told to close."""
    pipe = select.poll()
    pipe.register(connection, select.POLLIN)
    while (request := _next_request(connection, pipe)) != CLOSE:
        method, args = request
        try:
            if method == SHARE_MEMORY:
                reply = _share_memory(connection, tasks, *args)
            else:
                reply = getattr(tasks, method)(*args)
            send(connection, reply)  # may raise too: not everything can be pickled
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            send(connection, Failure.of(error))


def _next_request(connection: Connection, pipe: select.poll) -> Request:
    """Waits for the next request, at first without sleeping."""
    deadline = time.perf_counter() + SPIN_S
    while not pipe.poll(0) and time.perf_counter() < deadline:
        os.sched_yield()  # the trainer may be waiting for this core
    request: Request = receive(connection)
    return request


def _share_memory(
    connection: Connection,
    tasks: SingleProcessVectorSampledTasks,
    layout: Layout,
    num_rows: int,
    action_size: int,
    first: int,
    last: int,
) -> bool:
    """Gives the tasks rows `first` to `last` of the trainer's arrays; returns False if that cannot be done."""
    try:
        descriptor = recv_handle(connection)
    except OSError:
        return False
    try:
        tasks.use_arrays(StepArrays(layout, num_rows, action_size, map_shared_memory(descriptor)).rows(first, last))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
