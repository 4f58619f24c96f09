"""Every test here must leave no process and no file descriptor behind."""

import gc
import os
import time
from multiprocessing import resource_tracker

import psutil
import pytest


@pytest.fixture(scope="session", autouse=True)
def _stdlib_helpers():
    """Starts what the standard library keeps until this process ends, so that it does not count as left behind."""
    resource_tracker.ensure_running()


def _belongings():
    """Returns the processes and file descriptors that we have now."""
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue  # that of listdir itself
    return children | descriptors


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    before = _belongings()
    yield
    if _belongings() - before:
        gc.collect()
    deadline = time.monotonic() + 2.0
    while _belongings() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _belongings() - before == set()
