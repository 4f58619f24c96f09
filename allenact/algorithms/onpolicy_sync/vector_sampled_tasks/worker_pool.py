"""The trainer's side of its sampler processes: start them, ask them, notice when one fails, stop them."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any, Never

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import Failure, Request, receive, send
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.signals import DelaySignalHandling
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker import (
    CLOSE,
    DUMP_TRACEBACK_SIGNAL,
    WorkerSpec,
    run_worker,
    trainer_ends,
)
from allenact.errors import ExperimentConfigError, TaskWorkerError

FIRST_REPLY_FACTOR = 5
"""The first reply may take this many times the read timeout: programs are loaded and environments built."""

CLOSE_TIMEOUT_S = 5.0
"""How long workers may take to close their environments before they are terminated."""

DUMP_TIME_S = 0.5
"""How long late workers get to print where they hang."""


class WorkerPool:
    """Sampler processes and the pipes to them. Every request is answered by exactly one reply, in order.

    Args:
        context: the multiprocessing context to start processes with.
        specs: what each worker runs.
        read_timeout: seconds to wait for replies; None: for ever.
    """

    def __init__(self, context: BaseContext, specs: Sequence[WorkerSpec], read_timeout: float | None) -> None:
        self._specs = specs
        self._read_timeout = read_timeout
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._worker_of: dict[int, int] = {}  # file descriptor of a connection -> worker
        self._poll = select.poll()  # kept, because making one costs as much as waking a worker
        self._pending: dict[int, str] = {}  # worker -> method it has not answered yet
        self._sent_at = time.monotonic()
        self._owner = os.getpid()
        self._closed = False
        try:
            with DelaySignalHandling():  # a process that was started must not be lost
                for spec in specs:
                    self._start(context, spec)
        except BaseException:
            self.close()
            raise

    def _start(self, context: BaseContext, spec: WorkerSpec) -> None:
        is_fork = context.get_start_method() == "fork"
        ours, theirs = context.Pipe(duplex=True)
        trainer_ends.add(ours)
        self._connections.append(ours)
        self._worker_of[ours.fileno()] = len(self._processes)
        self._poll.register(ours, select.POLLIN)
        with theirs:  # ours to close: the end of the worker must be the end of the pipe
            process = context.Process(  # type: ignore[attr-defined]  # every context has it, their base class not
                target=run_worker,
                args=(theirs, spec if is_fork else _pickled(spec)),
                name=f"sampler-worker-{len(self._processes)}",
                daemon=True,
            )
            process.start()
        self._pending[len(self._processes)] = "start"
        self._processes.append(process)

    @property
    def is_closed(self) -> bool:
        """Whether the workers have been stopped, by `close` or after a failure."""
        return self._closed

    @property
    def is_busy(self) -> bool:
        """Whether workers still have to answer."""
        return bool(self._pending)

    def receive_first(self) -> dict[int, Any]:
        """Returns what each worker says when its samplers are built."""
        return self.receive(FIRST_REPLY_FACTOR)

    def ask(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """Sends one request to some workers and returns their answers."""
        self.send(requests)
        return self.receive()

    def send(self, requests: Mapping[int, Request], descriptor: int | None = None) -> None:
        """Sends one request to some workers, whose answers `receive` returns.

        Args:
            requests: worker -> request.
            descriptor: a file descriptor to hand to each of them.
        """
        if self._closed:
            raise TaskWorkerError("these sampler workers have been closed.", do="make new ones after a failure.")
        if self._pending:
            raise RuntimeError(
                f"sampler workers have not answered yet: {self._pending}. wait_step() has to come first; if a call was"
                " interrupted, close these samplers and make new ones"
            )
        self._sent_at = time.monotonic()
        for worker, request in requests.items():
            self._pending[worker], _ = request
            try:
                send(self._connections[worker], request)
                if descriptor is not None:
                    send_handle(self._connections[worker], descriptor, self._processes[worker].pid)
            except OSError:
                self._fail_dead(worker)

    def receive(self, patience: float = 1.0) -> dict[int, Any]:
        """Returns worker -> answer to the last request, taking answers as they come.

        Args:
            patience: how many read timeouts to wait.

        Raises:
            TaskWorkerError: a worker died, raised, or did not answer in time. All workers are closed then.
        """
        replies: dict[int, Any] = {}
        while self._pending:
            ready = self._poll.poll(self._milliseconds_left(patience))
            if not ready:
                self._fail_late()
            for descriptor, _ in ready:
                worker = self._worker_of[descriptor]
                try:
                    reply = receive(self._connections[worker])
                except (EOFError, OSError):
                    self._fail_dead(worker)
                if isinstance(reply, Failure):
                    self._fail_raised(worker, reply)
                replies[worker] = reply
                del self._pending[worker]
        return replies

    def _milliseconds_left(self, patience: float) -> float | None:
        if self._read_timeout is None:
            return None
        return 1000 * max(0.0, self._sent_at + patience * self._read_timeout - time.monotonic())

    # Failures

    def _fail_raised(self, worker: int, failure: Failure) -> Never:
        """Raises what a worker's task, sampler or sensor raised."""
        method = self._pending[worker]
        self.close()
        if failure.error is not None:
            failure.error.add_note(f"In {self._name(worker)}:\n{failure.traceback}")
            raise failure.error
        raise TaskWorkerError(
            f'{self._name(worker)} raised while answering "{method}":\n{failure.traceback.rstrip()}',
            do="--sampler_backend serial raises it in this process, where a debugger can stop.",
        )

    def _fail_dead(self, worker: int) -> Never:
        """Raises for a worker whose pipe has closed."""
        method = self._pending.get(worker, "nothing")
        self._processes[worker].join(1.0)
        code = self._processes[worker].exitcode
        self.close()
        raise TaskWorkerError(
            f'{self._name(worker)} died while answering "{method}".',
            f"exit code {code}" + (", killed by a signal" if code is not None and code < 0 else ""),
            "-9 is usually memory: try fewer samplers (nprocesses). --sampler_backend serial shows other causes in"
            " this process.",
        ) from None

    def _fail_late(self) -> Never:
        """Raises for workers that did not answer in time, after they have said on stderr where they hang."""
        late, method = list(self._pending), next(iter(self._pending.values()))
        elapsed = time.monotonic() - self._sent_at
        if method != "start":  # a starting process may not know the signal yet
            for pid in (self._processes[worker].pid for worker in late):
                with contextlib.suppress(ProcessLookupError):
                    if pid is not None:
                        os.kill(pid, DUMP_TRACEBACK_SIGNAL)
            time.sleep(DUMP_TIME_S)
        for worker in late:
            self._processes[worker].kill()
        self.close()
        raise TaskWorkerError(
            f'{", ".join(self._name(worker) for worker in late)} did not answer "{method}" in time.',
            f"{elapsed:.1f} seconds elapsed, read_timeout={self._read_timeout:g} seconds"
            + (f" (times {FIRST_REPLY_FACTOR} for the first reply)" if method == "start" else ""),
            "where it hangs is printed above; a slow environment needs a larger read_timeout.",
        )

    def _name(self, worker: int) -> str:
        first = self._specs[worker].first_sampler
        last = first + len(self._specs[worker].sampler_args) - 1
        return f"worker {worker} ({f'sampler {first}' if first == last else f'samplers {first} to {last}'})"

    # The end

    def close(self) -> None:
        """Lets the workers close their samplers, and stops those that take too long. Again: does nothing."""
        if self._closed or os.getpid() != self._owner:  # a forked child holds a copy of us, not our processes
            return
        self._closed = True
        for connection in self._connections:
            with contextlib.suppress(OSError):
                send(connection, CLOSE)
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for stop in (BaseProcess.terminate, BaseProcess.kill):
            late = [process for process in self._processes if process.is_alive()]
            for process in late:
                stop(process)
            for process in late:
                process.join(1.0)
        for process in self._processes:
            with contextlib.suppress(ValueError):  # still alive: uninterruptible in the kernel
                process.close()
        for connection in self._connections:
            connection.close()


def _pickled(spec: WorkerSpec) -> bytes:
    try:
        return pickle.dumps(spec, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ExperimentConfigError(
            "the task samplers cannot be sent to worker processes, because their arguments cannot be pickled.",
            f"make_sampler_fn={spec.make_sampler_fn!r}: {type(error).__name__}: {error}",
            "define functions and classes at the top of a module, or use --sampler_backend serial.",
        ) from error
