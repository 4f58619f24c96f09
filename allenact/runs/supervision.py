"""How the runner follows its workers: what they report, in order, until all of them are done or one fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, LogPackage
from allenact.errors import AllenActError, RunError, WorkerError
from allenact.runs.worker_processes import (
    STOP_GRACE_S,
    Evaluate,
    Failed,
    Finished,
    NotEvaluated,
    Ready,
    WorkerProcess,
)
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.runs.evaluation_progress import EvaluationLines, EvaluationProgress
    from allenact.runs.progress import TrainingProgress

Message = TypeVar("Message")
EVALUATION_DEADLINE_S = 3600.0
"""Seconds after which an evaluation that also takes ten times longer than any before it is taken to hang."""
MOST_REPLACED_VALIDATORS = 10
"""Failures of validation that a run survives, if it is to survive them; the next one ends it."""
_SIGNAL_S = 0.2  # how much later than its workers the runner may get a signal
_POLL_S = 0.5  # how soon a request to stop is noticed


class Validation:
    """Evaluates the newest checkpoint whenever the validation worker is free.

    With slow validation, checkpoints that a newer one has overtaken are not evaluated; the last one always is.

    Args:
        start_worker: starts the validation worker.
        replaces_worker: whether one that fails is replaced, once for each checkpoint and `MOST_REPLACED_VALIDATORS`
            times.

    Attributes:
        replaced: how often that was done.
    """

    def __init__(self, start_worker: Callable[[], WorkerProcess], replaces_worker: bool = False) -> None:
        self.start_worker = start_worker
        self.replaces_worker = replaces_worker
        self.replaced = 0
        self._tried_again = False  # with the checkpoint that is being evaluated
        self.worker: WorkerProcess | None = None
        self.waiting: str | None = None
        self.evaluating: str | None = None
        self.announced: set[str] = set()
        self._began = 0.0
        self._longest = 0.0  # seconds that an evaluation has taken

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being evaluated."""
        return self.evaluating is not None

    def is_done_with(self, checkpoint: str) -> bool:
        """Whether a checkpoint has been announced, and is neither being evaluated nor waiting for it."""
        return checkpoint in self.announced and checkpoint not in (self.waiting, self.evaluating)

    def start(self) -> None:
        """Starts the worker, which checks at once that it can do its work."""
        if self.worker is None:
            self.worker = self.start_worker()

    def enqueue(self, checkpoint: str) -> None:
        """Has `checkpoint` evaluated next, instead of any older one that still waits."""
        self.waiting = checkpoint
        self.announced.add(checkpoint)
        if not self.is_busy:
            self._evaluate_waiting()

    def evaluated(self) -> None:
        """Goes on after a result has arrived."""
        self.evaluating, self._tried_again = None, False
        self._longest = max(self._longest, time.monotonic() - self._began)
        self._evaluate_waiting()

    def _evaluate_waiting(self) -> None:
        self.start()
        if self.waiting is not None and self.worker is not None:
            self.worker.send(Evaluate(self.waiting))
            self.waiting, self.evaluating = None, self.waiting
            self._began = time.monotonic()

    def handle(self, message: LogPackage | NotEvaluated | Ready | Failed) -> Iterator[list[LogPackage]]:
        """Acts on a message of the worker, and yields what is to be logged of it.

        Raises:
            AllenActError: what the worker failed with, unless it is replaced.
        """
        if isinstance(message, Failed):
            self.replace_worker(message.error)
        elif isinstance(message, NotEvaluated):
            get_logger().warning(f"A checkpoint is not validated: {message.reason}")
            self.evaluated()
        elif isinstance(message, LogPackage):
            if self.replaced:
                message.scalars["valid-misc/validation_restarts"] = [float(self.replaced), 1.0]
            yield [message]
            self.evaluated()

    def check_deadline(self) -> None:
        """Ends a worker that hangs, after it has printed where, and replaces it if that is wanted.

        Raises:
            WorkerError: it has taken longer than `EVALUATION_DEADLINE_S`, and ten times longer than ever before.
        """
        elapsed = time.monotonic() - self._began
        if self.worker is None or not self.is_busy or elapsed < max(EVALUATION_DEADLINE_S, 10 * self._longest):
            return
        self.worker.dump_traceback()
        self.worker.process.kill()
        self.replace_worker(
            WorkerError(
                f"the {self.worker.name} process has not answered for {elapsed:,.0f} s.",
                f"{self.evaluating}; the longest evaluation before took {self._longest:,.0f} s",
                "where it hangs is printed above; the run can go on with --resume.",
            )
        )

    def replace_worker(self, error: AllenActError) -> None:
        """Starts another worker in place of the one that has failed, with the same checkpoint.

        Raises:
            AllenActError: `error`, unless workers are to be replaced, or if that has been tried already.
        """
        is_over = self._tried_again or self.replaced >= MOST_REPLACED_VALIDATORS
        if is_over or not self.replaces_worker or not isinstance(error, RunError):
            raise error
        get_logger().warning(f"Validation is restarted: {error}")
        self.replaced += 1
        self.worker = self.start_worker()
        if self.evaluating is not None:
            self._tried_again = True
            self.worker.send(Evaluate(self.evaluating))
            self._began = time.monotonic()


def supervise_training(
    trainers: Sequence[WorkerProcess],
    validation: Validation | None,
    stop_requested: Callable[[], bool],
    on_ready: Callable[[], None] = lambda: None,
    progress: TrainingProgress | None = None,
) -> Iterator[list[LogPackage]]:
    """Yields what is to be logged until all trainers have finished and the last checkpoint is validated.

    Args:
        trainers: the training workers.
        validation: evaluates the checkpoints that they write, None for no validation.
        stop_requested: once it answers True, trainers are asked to save and leave, and validation is given up.
        on_ready: called once, when the first trainer has checked everything and begins.
        progress: told about checkpoints, and drawn again while nothing happens.

    Raises:
        AllenActError: what a worker failed with.
    """
    working: dict[Any, WorkerProcess] = {worker.connection: worker for worker in trainers}
    by_step: dict[int, list[LogPackage]] = {}
    begun = stopping = False
    deadline = math.inf
    while (working or (validation is not None and validation.is_busy)) and time.monotonic() < deadline:
        if stop_requested() and not stopping:
            stopping, validation, deadline = True, None, time.monotonic() + STOP_GRACE_S
            for worker in trainers:
                worker.request_stop()
        if progress is not None:
            progress.refresh()
        sources = dict(working)
        if validation is not None and validation.worker is not None:
            validation.check_deadline()
            sources[validation.worker.connection] = validation.worker
        for ready in connection.wait(list(sources), timeout=_POLL_S):
            message = sources[ready].receive()
            if isinstance(message, Failed) and message.silently and (stopping or _is_stopped(stop_requested)):
                message = Finished(complete=False)  # asked to stop, a worker may end before it can say so
            if validation is not None and ready not in working:
                if isinstance(message, Finished):
                    validation = None
                else:
                    yield from validation.handle(message)
            elif isinstance(message, Failed):
                raise message.error
            elif isinstance(message, Finished):
                del working[ready]
            elif isinstance(message, Ready):
                if not begun:
                    begun = True
                    on_ready()
                    if validation is not None:
                        validation.start()
            elif isinstance(message, Path):
                if progress is not None:
                    progress.saved(message)
                if validation is not None:
                    validation.enqueue(str(message))
            else:  # means are taken over all workers, so the log waits for the last of them
                packages = by_step.setdefault(message.training_steps, [])
                packages.append(message)
                if len(packages) == len(trainers):
                    yield by_step.pop(message.training_steps)


def _is_stopped(stop_requested: Callable[[], bool]) -> bool:
    """Whether somebody asked to stop, maybe this very moment: a signal for all processes may reach a worker first."""
    if not stop_requested():
        time.sleep(_SIGNAL_S)
    return stop_requested()


def await_ready(testers: Sequence[WorkerProcess], stop_requested: Callable[[], bool]) -> None:
    """Returns when every tester has checked and started everything it needs.

    Raises:
        AllenActError: what a worker failed with.
        KeyboardInterrupt: `stop_requested` answered True.
    """
    for _ in _answers(testers, Ready, stop_requested):
        pass


def evaluate_on(
    testers: Sequence[WorkerProcess],
    checkpoint: str,
    stop_requested: Callable[[], bool],
    progress: EvaluationProgress | EvaluationLines | None = None,
) -> list[LogPackage]:
    """Has every tester evaluate its share of the tasks with `checkpoint`; returns their packages.

    Args:
        testers: the workers.
        checkpoint: file.
        stop_requested: once it answers True, the test is given up.
        progress: shows how far they are.

    Raises:
        AllenActError: what a worker failed with.
        KeyboardInterrupt: `stop_requested` answered True.
    """
    if progress is not None:
        progress.begin_checkpoint(checkpoint)
    for tester in testers:
        tester.send(Evaluate(checkpoint))
    packages: dict[int, LogPackage] = {}
    statuses: dict[int, EvaluationStatus] = {}
    on_wait = (lambda: None) if progress is None else progress.refresh
    for index, message in _answers(testers, LogPackage, stop_requested, on_wait):
        if isinstance(message, LogPackage):
            packages[index] = message
        else:
            statuses[index] = message
            if progress is not None:
                progress.update_status(EvaluationStatus.of(list(statuses.values())))
    return [packages[index] for index in range(len(testers))]


def _answers(
    testers: Sequence[WorkerProcess],
    last: type[Message],
    stop_requested: Callable[[], bool],
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Message | EvaluationStatus]]:
    """Yields what the testers say, and which of them says it, until each has said something of the kind `last`."""
    working: dict[Any, int] = {tester.connection: index for index, tester in enumerate(testers)}
    while working:
        if stop_requested():
            raise KeyboardInterrupt
        on_wait()
        for ready in connection.wait(list(working), timeout=_POLL_S):
            index = working[ready]
            message = testers[index].receive()
            if isinstance(message, Failed):
                if message.silently and _is_stopped(stop_requested):  # the signal was for the whole group
                    raise KeyboardInterrupt
                raise message.error
            if not isinstance(message, (last, EvaluationStatus)):
                raise TypeError(f"the {testers[index].name} process sent {message!r} where a {last.__name__} was due")
            if isinstance(message, last):
                del working[ready]
            yield index, message
