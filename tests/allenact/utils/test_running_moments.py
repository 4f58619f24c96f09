"""RunningMoments against NumPy on all the data at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from allenact.errors import NonFiniteError
from allenact.utils.running_moments import RunningMoments


@pytest.mark.parametrize("sizes", [[7], [1, 30, 4], [5, 1000, 2]])
def test_equals_numpy_on_all_rows(sizes):
    rng = np.random.default_rng(0)
    parts = [rng.normal(loc=1e3 * index, scale=[1, 10, 0], size=(2, size, 3)) for index, size in enumerate(sizes)]
    moments = RunningMoments(3)
    for part in parts:
        moments.update(torch.from_numpy(part))
    rows = np.concatenate([part.reshape(-1, 3) for part in parts])  # [B, 3]
    assert moments.count.item() == len(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-9, atol=1e-12)


def test_rows_of_several_workers_are_rows():
    """Each of two workers in a thread of its own, meeting at every sum."""
    torch.manual_seed(0)
    parts = [torch.randn(5, 2) * 3 + 1, torch.randn(9, 2) - 4]
    whole = RunningMoments(2)
    whole.update(torch.cat(parts))
    barrier, slots = threading.Barrier(2), [torch.zeros(0), torch.zeros(0)]

    def work(worker):
        def add_up(tensor):
            slots[worker] = tensor
            barrier.wait(timeout=10)
            total = slots[0] + slots[1]
            barrier.wait(timeout=10)
            return total

        moments = RunningMoments(2)
        moments.update(parts[worker], add_up)
        return moments

    with ThreadPoolExecutor(2) as pool:
        for moments in pool.map(work, range(2)):
            torch.testing.assert_close(moments.state_dict(), whole.state_dict())


def test_normalising():
    moments = RunningMoments(2)
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert torch.allclose(moments(x), x, atol=1e-4)  # nothing is known yet
    state = {name: value.clone() for name, value in moments.state_dict().items()}
    moments(x)
    assert all(torch.equal(value, state[name]) for name, value in moments.state_dict().items())
    moments.update(x)
    torch.testing.assert_close(moments(x), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), atol=1e-4, rtol=0)
    moments.update(x[:0])
    assert moments.count.item() == 2


@pytest.mark.parametrize("poison", [float("inf"), float("-inf"), float("nan"), 1e200])
def test_what_is_not_finite_is_named_and_changes_nothing(poison):
    moments = RunningMoments(3, 'observations of sensor "camera"')
    moments.update(torch.randn(4, 2, 3))
    before = {name: value.clone() for name, value in moments.state_dict().items()}
    rows = torch.randn(4, 2, 3, dtype=torch.float64)
    rows[1, 0, 2] = poison
    with pytest.raises(NonFiniteError, match=r'"camera" cannot be normalised(.|\n)*entries \[2\] of 3, in 8 rows'):
        moments.update(rows)
    assert all(torch.equal(value, before[name]) for name, value in moments.state_dict().items())
