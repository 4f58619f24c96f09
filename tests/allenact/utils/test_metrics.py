"""Weighted means of scalars."""

import pickle

import pytest
import torch

from allenact.utils.metrics import ScalarMeanTracker


def test_means_are_weighted():
    tracker = ScalarMeanTracker()
    tracker.add_scalars({"loss": 1.0, "reward": 10.0})
    tracker.add_scalars({"loss": 4.0}, n=2)
    tracker.add_scalars({"loss": 0.0, "reward": 5.0}, n={"loss": 1, "reward": 4})
    assert tracker.sums() == {"loss": 9.0, "reward": 30.0}
    assert tracker.counts() == {"loss": 4, "reward": 5}
    assert tracker.means() == {"loss": 2.25, "reward": 6.0}


def test_pop_and_reset():
    tracker = ScalarMeanTracker()
    assert tracker.empty
    tracker.add_scalars({"a": 2})
    assert not tracker.empty
    assert tracker.pop_and_reset() == {"a": 2.0}
    assert tracker.empty
    assert tracker.means() == {}


def test_nothing_is_averaged_with_zero_weight():
    tracker = ScalarMeanTracker()
    tracker.add_scalars({"a": 3.0}, n=0)
    assert tracker.means() == {}


def test_tensors_are_added_without_their_graph():
    parameter = torch.tensor(3.0, requires_grad=True)
    tracker = ScalarMeanTracker()
    tracker.add_scalars({"loss": parameter * 2}, n=2)
    tracker.add_scalars({"loss": 0.0})
    assert tracker.means() == {"loss": 4.0}
    assert not tracker._sums["loss"].requires_grad
    copy = pickle.loads(pickle.dumps(tracker))
    assert copy.means() == {"loss": 4.0}
    assert isinstance(copy._sums["loss"], float)


def test_unknown_names_of_the_module_are_errors():
    from allenact.utils import metrics

    with pytest.raises(AttributeError, match="no_such_tracker"):
        _ = metrics.no_such_tracker
