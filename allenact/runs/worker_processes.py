"""Starts, watches and stops the processes that train and evaluate, and says what travels between them and the runner.

Each worker has one two-way pipe to the runner. Workers send `Ready`, LogPackage, Path (a checkpoint was written),
`NotEvaluated`, `Finished` and `Failed`; the runner sends evaluators `Evaluate`. A worker that sees its runner die
stops.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allenact.errors import AllenActError, CheckpointError, ExperimentConfigError, WorkerError
from allenact.runs.stop_signals import StopRequest
from allenact.utils.cores import usable_cores
from allenact.utils.experiment_loading import experiment_errors, user_line
from allenact.utils.system import get_logger
from allenact.utils.worker_startup import (
    GUARD_HINT,
    WORKER_NAME,
    prepare_worker,
    unblock_sigterm,
    was_forked_by_server,
    when_parent_dies,
)

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer

STOP_GRACE_S = 7.0  # how long workers may take to save and leave
IMPATIENT_GRACE_S = 2.0  # the same once somebody has asked twice; a checkpoint that is being written is there by then
_SAME_REQUEST_S = 2.0  # how late the runner may pass on a signal that the whole group has got
_ORPHAN_GRACE_S = 4.0  # the same if the runner is dead: sampler processes, which end with their worker, need time, too
DUMP_TRACEBACK_SIGNAL = signal.SIGUSR1
_DUMP_TIME_S = 0.5  # how long a worker may take to print where it hangs
_STATUS_INTERVAL_S = 0.5  # how often a test worker says how far it is
_MOST_MESSAGES_WAITING = 100  # to be sent; then who sends waits after all
_END_GRACE_S = 1.0  # how long they may take to end once they are told to end at once


@dataclass(frozen=True)
class Ready:
    """The worker has checked and started everything it needs."""


@dataclass(frozen=True)
class Finished:
    """The worker has done its work. For trainers: whether training is complete or was stopped."""

    complete: bool


@dataclass(frozen=True)
class Failed:
    """The worker failed."""

    error: AllenActError
    silently: bool = False
    """Whether the process died without saying why."""


@dataclass(frozen=True)
class Evaluate:
    """Asks an evaluator for one checkpoint."""

    checkpoint: str


@dataclass(frozen=True)
class NotEvaluated:
    """A checkpoint cannot be evaluated any more: since it was announced, it has been removed or damaged."""

    reason: str


class WorkerProcess:
    """A process that runs `target(connection, **kwargs)` and its pipe.

    Args:
        context: how processes are started.
        name: shown in messages.
        target: a function of a module.
        kwargs: must be picklable, the experiment config among them.

    Raises:
        ExperimentConfigError: the arguments cannot be sent to another process.
    """

    def __init__(
        self,
        context: BaseContext,
        name: str,
        target: Callable[..., None],
        kwargs: dict[str, Any],
        log_level: int,
    ) -> None:
        try:
            payload = pickle.dumps((target, kwargs))
        except Exception as error:  # pickling user objects can raise anything
            raise ExperimentConfigError(
                f"the experiment cannot be sent to a worker process: {error}",
                f"{type(error).__name__} while pickling {kwargs.get('config')!r}",
                "keep lambdas, open files and local classes out of the config's attributes.",
            ) from error
        self.name = name
        self.finished = False
        self.connection, child_end = context.Pipe(duplex=True)
        # The context types of the standard library do not promise Process, which all of them have.
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_run_worker,
            args=(child_end, payload, list(sys.path), log_level),
            name=f"{WORKER_NAME}{name.replace(' ', '-')}",
        )
        self.process.start()
        child_end.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return bool(self.process.is_alive())

    def send(self, message: Any) -> None:
        """Sends a message; a worker that is gone is noticed when its pipe is read."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Any:
        """Returns the worker's next message, or `Failed` if it died without a word."""
        try:
            message = self.connection.recv()
            self.finished = self.finished or isinstance(message, (Finished, Failed))
            return message
        except (EOFError, OSError):
            self.process.join(timeout=5)
            return Failed(
                WorkerError(
                    f"the {self.name} process died.",
                    f"exit code {self.process.exitcode}" + _signal_name(self.process.exitcode),
                    _what_to_do(self.process.exitcode),
                ),
                silently=True,
            )

    def request_stop(self) -> None:
        """Asks the worker to save and leave."""
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def dump_traceback(self) -> None:
        """Makes the worker print what its threads are doing to the standard error."""
        if self.process.is_alive():
            os.kill(self.process.pid, DUMP_TRACEBACK_SIGNAL)
            time.sleep(_DUMP_TIME_S)

    def wait_for_end(self, deadline: float) -> bool:
        """Waits until `deadline` (monotonic seconds) for the process to leave; returns whether it has.

        What it still sends is read and dropped, so that it is not stuck.
        """
        while self.process.is_alive() and (left := deadline - time.monotonic()) > 0:
            ready = connection.wait([self.connection, self.process.sentinel], timeout=left)
            if self.process.sentinel not in ready and ready:
                try:
                    self.connection.recv()
                except (EOFError, OSError):
                    self.process.join(timeout=max(deadline - time.monotonic(), 0))
        return not self.process.is_alive()


def stop_workers(workers: Sequence[WorkerProcess], grace_s: float = STOP_GRACE_S) -> None:
    """Asks workers that are still at work to stop, and ends those that have not left `grace_s` seconds later."""
    for worker in workers:
        if not worker.finished:
            worker.request_stop()
    deadline = time.monotonic() + grace_s
    for end in (WorkerProcess.request_stop, lambda worker: worker.process.kill()):
        late = [worker for worker in workers if not worker.wait_for_end(deadline)]
        for worker in late:
            end(worker)
        deadline = time.monotonic() + _END_GRACE_S
    for worker in workers:
        worker.process.join(timeout=_END_GRACE_S)
        worker.connection.close()


def _what_to_do(exit_code: int | None) -> str:
    """Says what helps against a process that died without a word."""
    if exit_code == 1:
        return GUARD_HINT
    if exit_code == -signal.SIGKILL:
        return "-9 is usually the system running out of memory: try fewer samplers."
    return "--resume goes on from the newest checkpoint, if there is one."


def _signal_name(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return ""
    try:
        return f" ({signal.Signals(-exit_code).name})"
    except ValueError:
        return ""


def _run_worker(pipe: Connection, payload: bytes, search_path: list[str], log_level: int) -> None:
    """What a worker process does: rebuild its arguments, work, and report how it ended."""
    status = 1
    # What a forked process inherits is not its own to destroy: the threads of an engine, for example, are not here.
    gc.freeze()
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides what it means
        unblock_sigterm()
        faulthandler.register(DUMP_TRACEBACK_SIGNAL, all_threads=True)
        prepare_worker(search_path)
        get_logger().setLevel(log_level)
        when_parent_dies(_leave)
        _use_own_threads_only()
        target, kwargs = pickle.loads(payload)
        target(pipe, **kwargs)
        status = 0
    except (KeyboardInterrupt, BrokenPipeError):  # stopped, or nobody is listening any more
        status = 0
    except BaseException as error:
        _report_failure(pipe, error)
    finally:
        pipe.close()
    sys.exit(status)


def _use_own_threads_only() -> None:
    import torch

    from allenact.utils.torch_threads import is_fork

    if is_fork():
        torch.set_num_threads(1)


def _report_failure(pipe: Connection, error: BaseException) -> None:
    """Prints the traceback once, here, and sends the runner what went wrong."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the others are being stopped, this process is leaving already
    name = multiprocessing.current_process().name
    if not isinstance(error, AllenActError):
        get_logger().error(f"The {name} process failed:\n{traceback.format_exc().rstrip()}")
        line = user_line(error)
        error = WorkerError(
            f"the {name} process failed: {type(error).__name__}: {error}",
            f"its traceback is above; its last line of the experiment is {line}" if line else "its traceback is above",
            "-m 1 --sampler_backend serial runs the tasks in the training process, which is easier to debug.",
        )
    with contextlib.suppress(OSError):
        pipe.send(Failed(error))


def _leave() -> None:
    """Ends this process, so that nothing is left behind by a runner that was killed."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(1)


class Outbox:
    """Sends messages from a thread, in order, so that training does not wait while the runner draws a video.

    Leaving the `with` block waits until all has been sent.

    Args:
        pipe: to the runner.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._messages: queue.Queue[bytes | None] = queue.Queue(_MOST_MESSAGES_WAITING)
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        """Takes a message, as it is now; whatever pickling it raises is raised here.

        Pickled here rather than by `Connection.send`, which would have the runner fetch every tensor from this process,
        that may have ended by then.
        """
        self._messages.put(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    def _send_all(self) -> None:
        while (message := self._messages.get()) is not None:
            with contextlib.suppress(OSError):  # the runner is gone, so this process is about to end, too
                self._pipe.send_bytes(message)

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._messages.put(None)
        self._thread.join()


def train_worker(
    pipe: Connection,
    *,
    checkpoint: str | None,
    restart_pipeline: bool,
    valid_on_initial_weights: bool,
    **kwargs: Any,
) -> None:
    """A training worker: trains to the end of the pipeline, or until SIGTERM asks it to stop."""
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker_pool import warm_up_samplers

    backend = kwargs.get("sampler_backend", "auto")
    if backend in ("auto", "process") and usable_cores() > 1 and was_forked_by_server():
        warm_up_samplers()  # there will most likely be processes
    trainer: OnPolicyTrainer | None = None
    request = StopRequest(_SAME_REQUEST_S)

    def stop(signal_number: int, frame: Any) -> None:
        if request.is_repeated():
            return
        if trainer is None or trainer.stop_requested:  # nothing to save yet, or asked twice
            raise KeyboardInterrupt
        trainer.stop_requested = True

    signal.signal(signal.SIGTERM, stop)
    with Outbox(pipe) as outbox:
        with experiment_errors():
            trainer = OnPolicyTrainer(send=outbox.send, **kwargs)
        with trainer:
            with experiment_errors():
                trainer.prepare(checkpoint, restart_pipeline)
            outbox.send(Ready())
            complete = trainer.train(valid_on_initial_weights=valid_on_initial_weights)
        outbox.send(Finished(complete))


def evaluation_worker(pipe: Connection, **kwargs: Any) -> None:
    """A validation or test worker: evaluates the checkpoints it is asked for until the runner closes the pipe."""
    import torch

    from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol

    send = partial(protocol.send, pipe)  # `pipe.send` would take a file descriptor for every tensor among the metrics

    def stop(signal_number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the way out
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if kwargs["mode"] == "valid":
        torch.set_num_threads(1)  # training, beside it, needs the cores more
    else:  # somebody is waiting
        kwargs |= {"on_status": send, "status_interval_s": _STATUS_INTERVAL_S}
    with experiment_errors():
        engine = OnPolicyInference(**kwargs)
    with engine:
        with experiment_errors():
            engine.check_tasks()
        send(Ready())
        while True:
            try:
                request: Evaluate = pipe.recv()
            except EOFError:
                return
            try:
                answer: Any = engine.run_eval(request.checkpoint)
            except CheckpointError as error:
                if kwargs["mode"] != "valid":
                    raise
                answer = NotEvaluated(str(error))  # training goes on: it has the weights
            send(answer)
