"""Random generators: seeds for workers and samplers; saving and restoring the generators' state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

MAX_SEED = 2**31 - 1
EVALUATION_SEED = 12345
"""Seed of validation and test workers, so that what a checkpoint achieves does not depend on the run's seed."""


def set_seed(seed: int | None = None) -> None:
    """Seeds the global generators of torch (all devices), Python and NumPy; None does nothing."""
    if seed is None:
        return
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes 32 bits only


def set_deterministic_cudnn() -> None:
    """Makes cuDNN choose deterministic algorithms, and the same ones in every run."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def worker_seeds(n: int, initial_seed: int | None) -> list[int]:
    """Returns `n` seeds for workers or samplers.

    Args:
        n: how many.
        initial_seed: where they derive from, leaving Python's global generator alone; None draws from that
            generator.
    """
    generator = random if initial_seed is None else random.Random(initial_seed)
    return [generator.randint(0, MAX_SEED) for _ in range(n)]


def checkpoint_seed(seed: int, total_steps: int, worker_id: int, num_workers: int) -> int:
    """Returns the seed a training worker continues with at a checkpoint, when saving and after loading alike.

    Args:
        seed: the run's seed.
        total_steps: environment steps taken in the run, over all stages and workers.
        worker_id: which training worker.
        num_workers: how many there are.
    """
    return worker_seeds(num_workers, (seed ^ (total_steps + 1)) % MAX_SEED)[worker_id]


def capture_rng_state() -> dict[str, Any]:
    """Returns the state of the global generators of Python, NumPy (legacy) and torch (CPU).

    It holds builtins and tensors only, so a checkpoint that contains it can be read with `weights_only=True`.
    """
    version, internal, gauss_next = random.getstate()
    name, keys, position, has_gauss, cached_gaussian = np.random.get_state(legacy=True)
    return {
        "python": (version, list(internal), gauss_next),
        "numpy": (name, [int(key) for key in keys], int(position), int(has_gauss), float(cached_gaussian)),
        "torch": torch.get_rng_state(),
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restores what `capture_rng_state` returned."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])


@contextlib.contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Leaves the global generators as they were, whatever is drawn or seeded inside."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
