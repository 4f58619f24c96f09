"""How many threads torch uses for a piece of work.

The number follows from the sizes alone. Measuring which is fastest would give other numbers on a busy day. Updates of
the Ant experiments have the same bits with one thread and with two; whether those of any model have is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from allenact.utils.cores import usable_cores

_WORTH_A_THREAD = 4_000_000  # rows times parameters


def threads_for(rows: float, parameters: int, num_workers: int = 1) -> int:
    """Returns the number of threads for passing `rows` rows through a model with that many parameters.

    Each of `num_workers` workers gets its part of the cores at most.
    """
    wanted = max(1, int(rows * parameters / _WORTH_A_THREAD))
    return min(wanted, max(1, usable_cores() // num_workers))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While the block runs, torch uses `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
