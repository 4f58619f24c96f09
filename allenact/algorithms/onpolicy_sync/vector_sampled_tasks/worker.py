"""What runs in a sampler process: a part of the samplers, with methods that are called over a pipe."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import pickle
import select
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NamedTuple

import gymnasium as gym
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import (
    BatchedVectorTasks,
    batch_of,
    build_samplers,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import (
    RolloutChunk,
    RolloutRequest,
    RolloutWorker,
)
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
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict
from allenact.utils.rendering import known_gl_variables
from allenact.utils.seeding import set_seed
from allenact.utils.system import get_logger, init_logging
from allenact.utils.worker_startup import unblock_sigterm, when_parent_dies

CLOSE: Request = ("close", ())
"""The last request of every worker; it is not answered."""

SPIN_S = 5e-4
"""How long a worker watches its pipe before it sleeps. Waking a core that sleeps takes as long as a step of a small
task, and between two steps the trainer only has to choose actions."""

DUMP_TRACEBACK_SIGNAL = signal.SIGUSR1
"""Makes a worker print what it is doing to the standard error."""

GRACE_S = 1.0
"""How long a worker may take to close its samplers when the trainer has died."""

TERM_GRACE_S = 5
"""Seconds that a worker lives on after SIGTERM. Job schedulers send that to all processes, and the trainer still asks
for the state of the samplers, saves it, and then closes its workers. One that hangs ends while the trainer still has
time to save, see `STOP_GRACE_S` of the runner."""

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
    as_batch: bool = False  # if they offer it
    gl_variables: dict[str, str] = field(default_factory=known_gl_variables)  # the server of forks may be older


class WorkerInfo(NamedTuple):
    """The first answer of a worker."""

    observation_space: gym.spaces.Dict
    action_spaces: list[gym.Space]  # one for each sampler
    batch: str  # describes the batch that steps the samplers; empty: they are stepped one after another
    batch_obstacle: str  # why there is no batch although `as_batch` asks for one, else empty


StepEvents = tuple[dict[int, ObservationDict], list[FinishedEpisode], list[int]]
"""The last three fields of a `StepBatch`, which are no arrays."""


def run_worker(connection: Connection, spec: WorkerSpec | bytes) -> None:
    """Builds the samplers and answers requests until told to close or until the trainer is gone.

    Args:
        connection: the pipe to the trainer.
        spec: what to build, pickled unless this process is a fork of the trainer.
    """
    gc.freeze()  # what a forked process inherits is not its own to destroy: an engine's threads, for example
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then closes us
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERM_GRACE_S))  # which may be for the trainer, too
    unblock_sigterm()
    faulthandler.register(DUMP_TRACEBACK_SIGNAL, all_threads=True)
    when_parent_dies(_leave)
    torch.set_num_threads(1)  # the samplers' processes already share the cores
    for end in list(trainer_ends):
        end.close()
    try:
        spec = _received(spec)
        tasks, obstacle = _build(spec)
    except Exception as error:
        send(connection, Failure.of(error))
        return
    try:
        batch = tasks.description if isinstance(tasks, BatchedVectorTasks) else ""
        send(connection, WorkerInfo(tasks.observation_space, tasks.action_spaces, batch, obstacle))
        _Server(connection, tasks, spec.first_sampler).serve()
    except (EOFError, OSError):
        pass  # the trainer is gone
    finally:
        tasks.close()


def _leave() -> None:
    """Ends this process, which may hang in a task, if it does not notice by itself that the trainer is gone."""
    time.sleep(GRACE_S)
    os._exit(1)


def _received(spec: WorkerSpec | bytes) -> WorkerSpec:
    """Returns the specification; pickled, it has come to a process that is no fork of the trainer."""
    if isinstance(spec, bytes):
        init_logging("warning")  # what each worker would say of itself, the trainer has said once for all
        spec = pickle.loads(spec)
    assert isinstance(spec, WorkerSpec)
    return spec


def _build(spec: WorkerSpec) -> tuple[VectorTasks, str]:
    """Builds the samplers and draws their first tasks; also returns why they are no batch, if they were to be."""
    os.environ.update(spec.gl_variables)
    set_seed(spec.seed)
    with _warnings_of_the_first_only(spec.first_sampler):
        samplers = build_samplers(spec.make_sampler_fn, spec.sampler_args, preserve_rng=False)
    obstacle = ""
    if spec.as_batch:
        batch = batch_of(samplers, spec.callback_suite, num_threads=1)
        if not isinstance(batch, str):
            return BatchedVectorTasks(batch, spec.action_space, spec.first_sampler), ""
        obstacle = batch
    tasks = SingleProcessVectorSampledTasks.from_samplers(
        samplers,
        callback_sensor_suite=spec.callback_suite,
        auto_resample_when_done=spec.auto_resample_when_done,
        action_space=spec.action_space,
        first_sampler=spec.first_sampler,
        preserve_rng=False,
    )
    return tasks, obstacle


@contextmanager
def _warnings_of_the_first_only(first_sampler: int) -> Iterator[None]:
    """Keeps all workers but the first from saying the same of the same arguments."""
    logger = get_logger()
    level = logger.level
    if first_sampler > 0:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Server:
    """Answers the trainer's requests: the methods named in `_SERVER_REQUESTS`, and all methods of the tasks.

    Args:
        connection: the pipe to the trainer.
        tasks: of this process.
        first_sampler: index of the first one among all samplers.
    """

    def __init__(self, connection: Connection, tasks: VectorTasks, first_sampler: int) -> None:
        self._connection = connection
        self._tasks = tasks
        self._first_sampler = first_sampler
        self._arrays: StepArrays | None = None  # this worker's rows of the trainer's arrays
        self._rollout: RolloutWorker | None = None

    def serve(self) -> None:
        """Answers requests until told to close."""
        pipe = select.poll()
        pipe.register(self._connection, select.POLLIN)
        while (request := _next_request(self._connection, pipe)) != CLOSE:
            method, args = request
            try:
                answer = getattr(self if method in _SERVER_REQUESTS else self._tasks, method)
                send(self._connection, answer(*args))  # may raise too: not everything can be pickled
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                send(self._connection, Failure.of(error))

    def observe_shared(self) -> None:
        """Writes the current observations to the trainer's arrays."""
        assert self._arrays is not None
        self._arrays.put_observations(self._tasks.active, self._tasks.observe())

    def step_shared(self, action_type: str) -> StepEvents:
        """Takes one step with the actions in the trainer's arrays, and writes the results there.

        Args:
            action_type: NumPy's name of the type that the model gave the actions.
        """
        assert self._arrays is not None
        active = self._tasks.active
        batch = self._tasks.step_batch(self._arrays.actions[self._arrays.index(active)].astype(action_type))  # [n, A]
        self._arrays.put_step(active, batch)
        return batch.final_observations, batch.episodes, batch.exhausted

    def start_rollout(self, request: bytes) -> RolloutChunk:
        """Begins a rollout, given as `RolloutRequest.to_bytes` returned it; returns the first chunk."""
        self._rollout = None  # freed before another one takes as much memory
        self._rollout = RolloutWorker(self._tasks, RolloutRequest.from_bytes(request), self._first_sampler)
        return self._rollout.collect_chunk()

    def continue_rollout(self) -> RolloutChunk:
        """Returns the next chunk of the rollout."""
        assert self._rollout is not None
        return self._rollout.collect_chunk()

    def share_memory(self, layout: Layout, num_rows: int, action_size: int, first: int, last: int) -> bool:
        """Takes over rows `first` to `last` of the trainer's arrays; returns False if that cannot be done."""
        try:
            descriptor = recv_handle(self._connection)
        except OSError:
            return False
        try:
            arrays = StepArrays.allocate(layout, num_rows, action_size, map_shared_memory(descriptor))
            self._arrays = arrays.rows(first, last)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


_SERVER_REQUESTS = ("observe_shared", "step_shared", "start_rollout", "continue_rollout", "share_memory")
"""A file descriptor follows `share_memory`."""


def _next_request(connection: Connection, pipe: select.poll) -> Request:
    """Waits for the next request, at first without sleeping."""
    deadline = time.perf_counter() + SPIN_S
    while not pipe.poll(0) and time.perf_counter() < deadline:
        os.sched_yield()  # the trainer may be waiting for this core
    request: Request = receive(connection)
    return request
