"""The trainer's side of its sampler processes: start them, ask them, notice when one fails, stop them."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any, Never

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import Failure, Request, pickled, receive, send
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.signals import DelaySignalHandling
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker import (
    CLOSE,
    DUMP_TRACEBACK_SIGNAL,
    WorkerSpec,
    run_worker,
    trainer_ends,
)
from allenact.errors import TaskWorkerError
from allenact.utils.worker_startup import GUARD_HINT, WORKER_NAME, stop_signals_blocked, worker_context

FIRST_REPLY_FACTOR = 5
"""The first reply may take this many times the read timeout: programs are loaded and environments built."""

CLOSE_TIMEOUT_S = 5.0
"""How long workers may take to close their samplers before they are killed."""

DUMP_TIME_S = 0.5
"""How long late workers get to print where they hang."""

_PRELOAD = ["__main__", "allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker"]


class WorkerPool:
    """Sampler processes and the pipes to them. Every request is answered by exactly one reply, in order.

    Args:
        context: the multiprocessing context to start processes with.
        specs: what each worker runs.
        read_timeout: seconds to wait for replies; None: for ever.
        keep_healthy: whether the other workers live on when one is lost after it has started; `replace_lost` is next.
    """

    def __init__(
        self,
        context: BaseContext,
        specs: Sequence[WorkerSpec],
        read_timeout: float | None,
        keep_healthy: bool = False,
    ) -> None:
        self._context = context
        self._specs = specs
        self._read_timeout = read_timeout
        self._keep_healthy = keep_healthy
        self._lost: set[int] = set()  # workers that have failed and were not replaced yet
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._worker_of: dict[int, int] = {}  # file descriptor of a connection -> worker
        self._poll = select.poll()  # kept, because making one costs as much as waking a worker
        self._pending: dict[int, str] = {}  # worker -> method it has not answered yet
        self._sent_at: dict[int, float] = {}  # worker -> when, on the monotonic clock
        self._owner = os.getpid()
        self._closed = False
        try:
            with DelaySignalHandling():  # a process that was started must not be lost
                for worker in range(len(specs)):
                    self._start(worker)
        except BaseException:
            self.close()
            raise

    def _start(self, worker: int) -> None:
        """Starts a worker, or its replacement."""
        context, spec = self._context, self._specs[worker]
        is_fork = context.get_start_method() == "fork"
        ours, theirs = context.Pipe(duplex=True)
        trainer_ends.add(ours)
        self._connections[worker : worker + 1] = [ours]
        self._worker_of[ours.fileno()] = worker
        self._poll.register(ours, select.POLLIN)
        with theirs:  # ours to close: the end of the worker must be the end of the pipe
            process = context.Process(  # type: ignore[attr-defined]  # every context has it, their base class not
                target=run_worker,
                args=(theirs, spec if is_fork else _packed(spec)),
                name=f"{WORKER_NAME}sampler-worker-{worker}",
                daemon=True,
            )
            with stop_signals_blocked(), _one_blas_thread():  # their server is started, too, if there is none yet
                process.start()
        self._pending[worker] = "start"
        self._sent_at[worker] = time.monotonic()
        self._processes[worker : worker + 1] = [process]

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

    def replace_lost(self) -> list[int]:
        """Starts new processes in place of the workers that were lost, and returns these; `receive_first` is next."""
        replaced = sorted(self._lost)
        self._lost.clear()
        with DelaySignalHandling():
            for worker in replaced:
                self._start(worker)
        return replaced

    def ask(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """Sends one request to some workers and returns their answers."""
        self.send(requests)
        return self.receive()

    def send(
        self, requests: Mapping[int, Request], descriptor: int | None = None, *, others_busy: bool = False
    ) -> None:
        """Sends one request to some workers, whose answers `receive` returns.

        Args:
            requests: worker -> request.
            descriptor: a file descriptor to hand to each of them.
            others_busy: whether other workers may still have to answer an earlier request.
        """
        if self._closed:
            raise TaskWorkerError("these sampler workers have been closed.", do="make new ones after a failure.")
        if self._lost:
            raise TaskWorkerError(f"{self._names(self._lost)} failed.", do="replace_lost() comes first.")
        if self._pending and not (others_busy and self._pending.keys().isdisjoint(requests)):
            raise RuntimeError(
                f"sampler workers have not answered yet: {self._pending}. wait_step() has to come first; if a call was"
                " interrupted, close these samplers and make new ones"
            )
        now = time.monotonic()
        for worker, request in requests.items():
            self._pending[worker], _ = request
            self._sent_at[worker] = now
            try:
                send(self._connections[worker], request)
                if descriptor is not None:
                    send_handle(self._connections[worker], descriptor, self._processes[worker].pid)
            except OSError:
                self._fail_dead(worker)

    def receive(self, patience: float = 1.0) -> dict[int, Any]:
        """Returns worker -> answer to the last request, once all workers that were asked have answered.

        Args:
            patience: how many read timeouts to wait.

        Raises:
            TaskWorkerError: see `receive_next`.
        """
        replies: dict[int, Any] = {}
        while self._pending:
            replies.update(self.receive_next(patience))
        return replies

    def receive_next(self, patience: float = 1.0) -> dict[int, Any]:
        """Returns worker -> answer to the last request of the workers that answer first, at least one.

        Args:
            patience: how many read timeouts to wait.

        Raises:
            TaskWorkerError: a worker died, raised, or did not answer in time. All workers are closed then, but for
                the others that are to live on.
        """
        replies: dict[int, Any] = {}
        ready = self._poll.poll(self._milliseconds_left(patience))
        if not ready:
            self._fail_late(patience)
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
        return 1000 * max(0.0, self._oldest_request() + patience * self._read_timeout - time.monotonic())

    def _oldest_request(self) -> float:
        """Returns when the request was sent that has waited longest for an answer."""
        return min(self._sent_at[worker] for worker in self._pending)

    # Failures

    def _fail_raised(self, worker: int, failure: Failure) -> Never:
        """Raises what a worker's task, sampler or sensor raised."""
        method = self._pending[worker]
        if failure.error is not None:
            self.close()
            failure.error.add_note(f"In {self._names([worker])}:\n{failure.traceback}")
            raise failure.error
        self._lose([worker])
        raise TaskWorkerError(
            f'{self._names([worker])} raised while answering "{method}":\n{failure.traceback.rstrip()}',
            do="--sampler_backend serial raises it in this process, where a debugger can stop.",
        )

    def _fail_dead(self, worker: int) -> Never:
        """Raises for a worker whose pipe has closed."""
        method = self._pending.get(worker)
        self._processes[worker].join(1.0)
        code = self._processes[worker].exitcode
        self._lose([worker])
        do = "-9 is usually memory: try fewer samplers (nprocesses)."
        if method == "start" and code == 1:
            do = GUARD_HINT
        elif not self._keep_healthy:
            do += " --enable_crash_recovery replaces processes that die."
        do += " --sampler_backend serial shows other causes in this process."
        raise TaskWorkerError(
            f"{self._names([worker])} died "
            + (f'while answering "{method}".' if method else "while it had nothing to do."),
            f"exit code {code}" + (", killed by a signal" if code is not None and code < 0 else ""),
            do,
        ) from None

    def _fail_late(self, patience: float) -> Never:
        """Raises for workers that did not answer in time, after they have said on stderr where they hang."""
        oldest = self._oldest_request()
        newest = max(oldest, time.monotonic() - patience * (self._read_timeout or 0.0))  # of those that are too old
        late = [worker for worker in self._pending if self._sent_at[worker] <= newest]
        method, elapsed = self._pending[late[0]], time.monotonic() - oldest
        if method != "start":  # a starting process may not know the signal yet
            for pid in (self._processes[worker].pid for worker in late):
                with contextlib.suppress(ProcessLookupError):
                    if pid is not None:
                        os.kill(pid, DUMP_TRACEBACK_SIGNAL)
            time.sleep(DUMP_TIME_S)
        for worker in late:
            self._processes[worker].kill()
        self._lose(late)
        raise TaskWorkerError(
            f'{self._names(late)} did not answer "{method}" in time.',
            f"{elapsed:.1f} seconds elapsed, read_timeout={self._read_timeout:g} seconds"
            + (f" (times {FIRST_REPLY_FACTOR} for the first reply)" if method == "start" else ""),
            "where it hangs is printed above; a slow environment needs a larger read_timeout.",
        )

    def _lose(self, workers: Sequence[int]) -> None:
        """Ends the workers that failed; the others, too, unless they are to live on and have answered."""
        if not self._keep_healthy or "start" in self._pending.values():
            self.close()
            return
        waiting = [*workers]
        while waiting:
            worker = waiting.pop()
            self._pending.pop(worker, None)
            self._lost.add(worker)
            self._remove(worker)
            if not waiting:  # answers to a request that has failed are of no use, but have to be out of the way
                waiting = self._workers_without_answer()

    def _workers_without_answer(self) -> list[int]:
        """Drops the answers to the last request; returns the workers that fail to give one."""
        failed: list[int] = []
        while self._pending and not failed:
            ready = self._poll.poll(self._milliseconds_left(1.0))
            failed = [] if ready else list(self._pending)
            for worker in (self._worker_of[descriptor] for descriptor, _ in ready):
                try:
                    reply = receive(self._connections[worker])
                except (EOFError, OSError):
                    reply = None
                    failed.append(worker)
                if isinstance(reply, Failure):
                    failed.append(worker)
                self._pending.pop(worker, None)
        return failed

    def _remove(self, worker: int) -> None:
        """Ends one worker, whatever it is doing, and closes our end of its pipe."""
        connection, process = self._connections[worker], self._processes[worker]
        self._poll.unregister(connection)
        del self._worker_of[connection.fileno()]
        with contextlib.suppress(OSError):
            send(connection, CLOSE)  # one that has only raised closes its environments
        process.join(CLOSE_TIMEOUT_S)
        connection.close()
        process.kill()
        process.join(1.0)
        with contextlib.suppress(ValueError):  # still alive: uninterruptible in the kernel
            process.close()

    def _names(self, workers: Iterable[int]) -> str:
        names = []
        for worker in workers:
            first = self._specs[worker].first_sampler
            last = first + len(self._specs[worker].sampler_args) - 1
            names.append(f"worker {worker} ({f'sampler {first}' if first == last else f'samplers {first} to {last}'})")
        return ", ".join(names)

    # The end

    def close(self) -> None:
        """Lets the workers close their samplers, and kills those that take too long. Again: does nothing."""
        if self._closed or os.getpid() != self._owner:  # a forked child holds a copy of us, not our processes
            return
        self._closed = True
        left = [worker for worker in range(len(self._processes)) if worker not in self._lost]
        connections = [self._connections[worker] for worker in left]
        processes = [self._processes[worker] for worker in left]
        for connection in connections:
            with contextlib.suppress(OSError):
                send(connection, CLOSE)
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()  # SIGTERM they outlive for a while, see `TERM_GRACE_S`
        for process in late:
            process.join(1.0)
        for process in processes:
            with contextlib.suppress(ValueError):  # still alive: uninterruptible in the kernel
                process.close()
        for connection in self._connections:
            connection.close()


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """New processes multiply NumPy's matrices on one thread, unless told otherwise: they already share the cores."""
    name = "OPENBLAS_NUM_THREADS"  # read when NumPy is imported
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def warm_up_samplers() -> None:
    """Starts the server that sampler processes are forked from, if this system has one; returns at once.

    It takes a second to import what they need, which may as well pass while the trainer does other things.
    """
    context = prepared(worker_context())
    if context.get_start_method() == "forkserver":
        with DelaySignalHandling(), stop_signals_blocked(), _one_blas_thread():
            forkserver.ensure_running()


def prepared(context: BaseContext) -> BaseContext:
    """Returns a context whose server, if it has one and that is still to start, imports what every worker needs."""
    if context.get_start_method() != "fork":
        resource_tracker.ensure_running()  # by itself it would start below `stop_signals_blocked`, and unblock them
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(_PRELOAD)
    return context


def _packed(spec: WorkerSpec) -> bytes:
    return pickled(
        spec,
        f"make_sampler_fn={spec.make_sampler_fn!r}",
        "the task samplers cannot be sent to worker processes, because their arguments cannot be pickled.",
        "define functions and classes at the top of a module, or use --sampler_backend serial.",
    )
