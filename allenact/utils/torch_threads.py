"""How many threads torch uses for a piece of work.

The number follows from the sizes alone. Measuring which is fastest would give other numbers on a busy day, and with
them other roundings: the same seed would no longer give the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from allenact.utils.cores import usable_cores

# Rows times parameters from which sharing a forward and backward pass among threads pays: about a millisecond of work.
_WORTH_SHARING = 4_000_000


def threads_for(rows: float, parameters: int) -> int:
    """Returns the number of threads for passing `rows` rows through a model with that many parameters."""
    return usable_cores() if rows * parameters >= _WORTH_SHARING else 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While the block runs, torch uses `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
