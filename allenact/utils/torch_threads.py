"""How many threads torch uses for a piece of work.

What a run computes is not to depend on how busy the machine was when it began. So the size of the work decides first
(`threads_for`), and a measurement (`time_threads`) may then prefer another number only where both give the same bits.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from allenact.utils.cores import usable_cores

_WORTH_A_THREAD = 4_000_000  # rows times parameters
_ROUNDS = 4  # of measurements, after one in which threads are started and memory is found
_BUDGET_S = 0.2  # no further round is begun after so long
_WORTH_A_CHANGE = 0.95  # of the time that the usual number of threads takes


def is_fork() -> bool:
    """Whether this process is a copy of who started it. Its own threads are then the only ones it may use.

    Threads that the parent had started for torch are not here, and OpenMP would wait for them forever.
    """
    fork_process = getattr(multiprocessing.context, "ForkProcess", None)  # not on every system
    return fork_process is not None and isinstance(multiprocessing.current_process(), fork_process)


def most_threads(num_workers: int = 1) -> int:
    """Returns the usable cores, or their part that belongs to one of `num_workers` workers; at least 1."""
    return 1 if is_fork() else max(1, usable_cores() // num_workers)


def threads_for(rows: float, parameters: int, num_workers: int = 1) -> int:
    """Returns the number of threads for passing `rows` rows through a model with that many parameters.

    Each of `num_workers` workers gets its part of the cores at most.
    """
    return min(max(1, int(rows * parameters / _WORTH_A_THREAD)), most_threads(num_workers))


def time_threads(work: Callable[[], Sequence[torch.Tensor]], usual: int, most: int) -> dict[int, float]:
    """Times `work` with `usual` threads, and with other numbers of threads that give the same result.

    Tried are the powers of two below `most`, and `most`. Work that takes long (0.2 s) is not tried out.

    Args:
        work: what is to be timed; it can be done again and again.
        usual: the number of threads whose result others are held against.
        most: threads at most.

    Returns:
        Least seconds by number of threads, `usual` first. Numbers whose result differs in any bit are left out.
    """
    start = time.perf_counter()
    expected, took = _timed(work, usual)
    if took > _BUDGET_S:
        return {usual: took}
    seconds = {usual: took}
    for count in _powers_of_two(most):
        result, took = _timed(work, count)
        if all(torch.equal(a, b) for a, b in zip(result, expected, strict=True)):
            seconds[count] = took
    for _ in range(_ROUNDS):
        for count in seconds:
            seconds[count] = min(seconds[count], _timed(work, count)[1])
        if time.perf_counter() - start > _BUDGET_S:
            break
    return seconds


def _timed(work: Callable[[], Sequence[torch.Tensor]], count: int) -> tuple[Sequence[torch.Tensor], float]:
    with torch_threads(count):
        start = time.perf_counter()
        return work(), time.perf_counter() - start


def fastest(seconds: dict[int, float]) -> int:
    """Returns the number of threads to take: the first of `seconds`, unless another is faster by 5 %."""
    usual = next(iter(seconds))
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < _WORTH_A_CHANGE * seconds[usual] else usual


def _powers_of_two(most: int) -> list[int]:
    return [count for count in (2**n for n in range(most.bit_length())) if count < most] + [most]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While the block runs, torch uses `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
