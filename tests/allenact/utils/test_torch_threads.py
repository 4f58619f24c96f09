"""How many threads torch is given."""

import pytest
import torch

from allenact.utils import torch_threads as module
from allenact.utils.torch_threads import fastest, threads_for, time_threads, torch_threads


@pytest.mark.parametrize(
    ("rows", "parameters", "num_workers", "expected"),
    [
        (32, 10_000, 1, 1),  # too little work to share
        (799, 10_000, 1, 1),
        (800, 10_000, 1, 2),
        (1_600, 10_000, 1, 4),
        (1_000_000, 10_000, 1, 8),  # all cores
        (1_000_000, 10_000, 3, 2),  # this worker's part of them
        (1_000_000, 10_000, 9, 1),
        (0, 10_000, 1, 1),
    ],
)
def test_threads_for(rows, parameters, num_workers, expected, monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    assert threads_for(rows, parameters, num_workers) == expected


def test_threads_are_lent():
    torch.set_num_threads(1)
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), torch_threads(2):
        raise KeyError
    assert torch.get_num_threads() == 1


@pytest.fixture
def work_of(monkeypatch):
    """A function that makes work that takes `seconds[k]` with k threads, and lists the threads it was done with."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def make(seconds, other_results=()):
        counts = []

        def work():
            count = torch.get_num_threads()
            counts.append(count)
            clock[0] += seconds[count]
            return [torch.tensor([1.0]), torch.tensor([2.0 + 1e-6 * (count in other_results)])]

        return work, counts

    return make


@pytest.mark.parametrize(
    ("seconds", "other_results", "usual", "timed", "chosen"),
    [
        ({1: 0.008, 2: 0.004, 4: 0.001, 6: 0.006}, (), 2, [2, 1, 4, 6], 4),
        ({1: 0.008, 2: 0.004, 4: 0.001, 6: 0.006}, (4,), 2, [2, 1, 6], 2),  # the fastest sums in another order
        ({1: 0.001, 2: 0.004, 3: 0.004, 4: 0.004, 6: 0.004}, (), 6, [6, 4, 3, 2, 1], 1),
        ({1: 0.001, 2: 0.004, 3: 0.004, 4: 0.004, 6: 0.004}, (1, 2, 3, 4), 6, [6], 6),
    ],
)
def test_the_fastest_of_equal_results_is_chosen(seconds, other_results, usual, timed, chosen, work_of):
    work, counts = work_of(seconds, other_results)
    before = torch.get_num_threads()
    measured = time_threads(work, usual, most=6)
    assert list(measured) == timed
    assert measured == pytest.approx({count: seconds[count] for count in timed})
    assert set(counts) == set(seconds), "each is tried"
    assert fastest(measured) == chosen
    assert torch.get_num_threads() == before


def test_half_the_threads_are_tried_however_long_they_take(work_of):
    work, counts = work_of({16: 3.0, 8: 1.0})
    assert fastest(time_threads(work, 16, most=16)) == 8
    assert counts == [16, 16, 8], "the first is not timed"


def test_nothing_more_is_measured_after_a_while(work_of):
    work, counts = work_of(dict.fromkeys([1, 2, 4, 8, 16], 0.06))
    assert list(time_threads(work, 4, most=16)) == [4, 2, 8, 1]
    assert counts == [4, 4, 2, 8, 1]


def test_the_first_pass_does_not_count(work_of):
    work, _ = work_of({1: 0.05, 2: 0.04})

    passes = iter([work, work])

    def slow_at_first():
        for extra in passes:
            extra()
        return work()

    assert time_threads(slow_at_first, 2, most=2) == pytest.approx({2: 0.04, 1: 0.05})


def test_little_is_no_reason_to_change():
    assert fastest({2: 1.0, 1: 0.96, 4: 1.1}) == 2
    assert fastest({2: 1.0, 1: 0.94, 4: 0.93}) == 4
