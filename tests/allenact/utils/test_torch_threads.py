"""How many threads torch is given."""

import pytest
import torch

from allenact.utils import torch_threads as module
from allenact.utils.torch_threads import threads_for, torch_threads


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
