"""Keeps every test small and independent of the machine it runs on."""

import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in allenact.main: threads that wait leave the cores to others
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BEGIN, END = "<!-- faults: make test-faults -->", "<!-- end of faults -->"


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Two test processes on two cores are faster than one with four threads fighting."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def running_forkserver():
    """Starts the server behind the start method "forkserver", which lasts as long as this process."""
    forkserver.set_forkserver_preload(["allenact.algorithms.onpolicy_sync.engine"])
    forkserver.ensure_running()


def assert_same_state(a: Any, b: Any, path: str = "state") -> None:
    """Compares two nests of containers and tensors, entry by entry."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same_state(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_state(x, y, f"{path}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, err_msg=path)
    else:
        assert a == b, path


# Each test marked `faults(fault, outcome, lost)` becomes a line of a table. FAULT_TABLE=FILE also puts it into FILE.
_faults: list[tuple[str, str, float, str]] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    marker = item.get_closest_marker("faults")
    if marker is not None and report.when == "call" and not report.skipped:
        fault, outcome, lost = marker.args
        variant = f" ({item.callspec.id})" if hasattr(item, "callspec") else ""
        seconds = dict(item.user_properties).get("seconds", report.duration)
        _faults.append((fault + variant, outcome if report.passed else "**TEST FAILED**", seconds, lost))
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not _faults or config.option.markexpr != "faults":
        return
    rows = [f"| {fault} | {outcome} | {seconds:.1f} | {lost} |" for fault, outcome, seconds, lost in _faults]
    table = "\n".join(["| fault | what happens | seconds | lost |", "|---|---|---|---|", *rows])
    terminalreporter.write_line("\n" + table)
    if path := os.environ.get("FAULT_TABLE"):
        before, _, rest = Path(path).read_text().partition(BEGIN)
        Path(path).write_text(before + BEGIN + "\n" + table + "\n" + END + rest.partition(END)[2])


@pytest.fixture
def same_state():
    """A function that compares two nests of containers and tensors."""
    return assert_same_state
