"""Short runs come out as they always did, and a change of learning would be noticed."""

import copy
import json

import pytest

from allenact.algorithms.onpolicy_sync import update
from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.losses import ppo
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.utils.running_moments import RunningMoments
from benchmarks.golden_trace import CONTACTS, GOLDEN, RUNS, differences, environment, trace


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_comes_out_as_it_always_did(name, golden):
    """If the change is meant to alter learning: `python -m benchmarks.golden_trace --accept`, and say so."""
    run = trace(RUNS[name]())
    bit_for_bit = golden["environment"] == environment()
    assert differences(run, golden["runs"][name], bit_for_bit, contacts=name in CONTACTS) == []


def _values_as_they_are(batch, output, clip, value_loss=ppo.value_loss):
    return value_loss(batch, output._replace(extras={}), clip)


def _values_unclipped(batch, output, clip, value_loss=ppo.value_loss):
    return value_loss(batch, output, None)


def _only_observations(self, rows, sum_over_workers, take_in=RunningMoments.update):
    if len(self.mean) > 1:
        take_in(self, rows, sum_over_workers)


def _without_truncation_values(self, rows, samplers, values, add=RolloutBlockStorage.add_truncation_values):
    add(self, rows, samplers, values * 0)


MUTATIONS = {
    "statistics never updated": (OnPolicyTrainer, "update_statistics", lambda self, storages: None),
    "statistics of returns never updated": (RunningMoments, "update", _only_observations),
    "KL never judged": (update.KLControl, "judge", lambda self, number: None),
    "truncation never bootstrapped": (RolloutBlockStorage, "add_truncation_values", _without_truncation_values),
    "row 0 not carried over": (RolloutBlockStorage, "after_updates", lambda self: setattr(self, "step", 0)),
    "values never clipped": (ppo, "value_loss", _values_unclipped),
    "unit of the values ignored": (ppo, "value_loss", _values_as_they_are),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_what_breaks_learning_is_noticed_on_every_machine(mutation, golden, monkeypatch):
    monkeypatch.setattr(*MUTATIONS[mutation])
    run = trace(RUNS["pendulum, cut short"]())
    assert differences(run, golden["runs"]["pendulum, cut short"], bit_for_bit=False) != []


def test_what_counts_as_a_difference():
    golden = {"sha256": "a" * 64, "logs": [{"steps": 32, "loss": 2.0}, {"steps": 64, "loss": 1.0}]}
    other = copy.deepcopy(golden)
    assert differences(other, golden, bit_for_bit=True) == []
    other["sha256"] = "b" * 64
    assert differences(other, golden, bit_for_bit=True) == ["the weights: bbbbbbbbbbbb instead of aaaaaaaaaaaa"]
    assert differences(other, golden, bit_for_bit=False) == []
    other["logs"][1]["loss"] = 1.0005
    assert len(differences(other, golden, bit_for_bit=True)) == 2
    assert differences(other, golden, bit_for_bit=False) == []
    other["logs"][1]["loss"] = 1.005
    assert differences(other, golden, bit_for_bit=False) == ["loss at 64 steps: 1.005 instead of 1.0"]
    assert differences(other, golden, bit_for_bit=False, contacts=True) == [], "rounding has grown by then"
    other["logs"][0]["loss"] = 2.05
    assert differences(other, golden, bit_for_bit=False, contacts=True) == []
    other["logs"][0]["loss"] = 2.2
    expected = ["loss at 32 steps: 2.2 instead of 2.0"]
    assert differences(other, golden, bit_for_bit=False, contacts=True) == expected
    del other["logs"][1]
    for bit_for_bit in (True, False):
        assert "1 logs instead of 2" in differences(other, golden, bit_for_bit)
