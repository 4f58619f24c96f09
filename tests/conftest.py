"""Keeps every test small and independent of the machine it runs on."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Two test processes on two cores are faster than one with four threads fighting."""
    torch.set_num_threads(1)


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


@pytest.fixture
def same_state():
    """A function that compares two nests of containers and tensors."""
    return assert_same_state
