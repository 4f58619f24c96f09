"""Keeps every test small and independent of the machine it runs on."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Two test processes on two cores are faster than one with four threads fighting."""
    torch.set_num_threads(1)
