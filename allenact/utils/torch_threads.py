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
_ROUNDS = 5  # of measurements
_BUDGET_S = 0.2  # nothing more is measured after so long, once two numbers of threads have been
_WORTH_A_CHANGE = 0.95  # of the time that the usual number of threads takes


def is_fork() -> bool:
    """Whether this is a process of multiprocessing's fork context, which may use no threads but its own.

    Threads that who started it had for torch are not here, and OpenMP would wait for them forever.
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

    Tried are half of it, the powers of two below `most`, and `most`, the nearest first. That takes 0.2 seconds in all,
    or four times as long as the work itself, if that is longer.

    Args:
        work: what is to be timed; it can be done again and again.
        usual: the number of threads whose result others are held against.
        most: threads at most.

    Returns:
        Least seconds by number of threads, `usual` first. Numbers whose result differs in any bit are left out.
    """
    with torch_threads(usual):
        expected = work()  # not timed: threads are started, memory is found
    start = time.perf_counter()
    counts, tried = _to_try(usual, most), 0
    seconds: dict[int, float] = {}
    for _ in range(_ROUNDS):
        for count in list(counts):
            if tried >= 2 and time.perf_counter() - start > _BUDGET_S:
                return seconds
            tried += 1
            with torch_threads(count):
                began = time.perf_counter()
                result = work()
                took = time.perf_counter() - began
            if count == usual or all(torch.equal(a, b) for a, b in zip(result, expected, strict=True)):
                seconds[count] = min(took, seconds.get(count, took))
            else:
                counts.remove(count)
    return seconds


def fastest(seconds: dict[int, float]) -> int:
    """Returns the number of threads to take: the first of `seconds`, unless another needs 5 % less."""
    usual = next(iter(seconds))
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < _WORTH_A_CHANGE * seconds[usual] else usual


def _to_try(usual: int, most: int) -> list[int]:
    counts = {usual, max(1, usual // 2), most, *(2**n for n in range(most.bit_length()))}
    return sorted(counts, key=lambda count: (max(count / usual, usual / count), count))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While the block runs, torch uses `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
