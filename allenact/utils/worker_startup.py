"""Starts worker processes quickly: one server process imports the heavy packages once, workers are forked from it.

And tells a worker when whoever started it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, util
from multiprocessing.context import BaseContext
from pathlib import Path

GUARD_HINT = (
    'a program that starts processes needs `if __name__ == "__main__":` around what it does, because each process'
    " imports it."
)
"""What to do when a process ends with status 1 before it could say anything."""

WORKER_NAME = "allenact-"
"""How the names of the processes begin that this package starts."""

_ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.5
# What every training and evaluation process needs. The server imports it while the main process reads the experiment.
_PRELOAD = ["allenact.algorithms.onpolicy_sync.engine"]


def worker_context(start_method: str = "default") -> BaseContext:
    """Returns the multiprocessing context of `start_method`; "default" is forkserver where the system has it."""
    if start_method == "default":
        start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return multiprocessing.get_context(start_method)


def warm_up_workers() -> None:
    """Starts the server that worker processes are forked from, if this system has one; returns at once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # by itself it would start below, and unblock the signal when it has
    path = os.environ.get("PYTHONPATH")
    # The server starts without our search path, on which a copy of this package that is not installed may lie.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([path] if path else [])])
    try:
        with stop_signals_blocked():
            forkserver.ensure_running()
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM in this thread, and in processes that are started within the block, and in theirs.

    A terminal sends Ctrl-C to all processes, and job schedulers send SIGTERM to all: the process that has started the
    others decides what it means, and tells them. A server that died of it would take their exit codes with it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unblock_sigterm() -> None:
    """Lets this process receive SIGTERM, which it may have inherited blocked; see `stop_signals_blocked`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _unblock_in_processes_of_others(_: object) -> None:
    """Lets a process that is forked from our server, but is none of our workers, receive what is to stop it.

    An experiment may start processes of its own, which come from the same server, and know nothing of blocked signals.
    """
    if was_forked_by_server() and not multiprocessing.current_process().name.startswith(WORKER_NAME):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


util.register_after_fork(sys.modules[__name__], _unblock_in_processes_of_others)


def prepare_worker(module_paths: list[str]) -> None:
    """Makes a new process able to import what the parent could, by its search path."""
    for path in reversed(module_paths):
        if path not in sys.path:
            sys.path.insert(0, path)


def was_forked_by_server() -> bool:
    """Whether this process is a fork of the server that `warm_up_workers` starts, and not of who asked for it."""
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid


def when_parent_dies(act: Callable[[], None]) -> None:
    """Calls a function in a thread once the process that started this one is gone, whatever this one is doing then.

    (Unless it does so with Python's lock, which threads wait for.)
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    was_forked = os.getppid() == parent.pid  # by the parent itself, so that siblings hold copies of what would tell

    def watch() -> None:
        while not connection.wait([parent.sentinel], timeout=_POLL_S if was_forked else None):
            if os.getppid() != parent.pid:
                break
        act()

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
