"""Short runs come out as they always did, and a change of learning would be noticed."""

import copy
import json

import pytest

from benchmarks.golden_trace import GOLDEN, RUNS, differences, environment, trace


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_comes_out_as_it_always_did(name):
    """If the change is meant to alter learning: `python -m benchmarks.golden_trace --accept`, and say so."""
    golden = json.loads(GOLDEN.read_text())
    run = trace(RUNS[name]())
    assert differences(run, golden["runs"][name], bit_for_bit=golden["environment"] == environment()) == []


def test_what_counts_as_a_difference():
    golden = {"sha256": "a" * 64, "logs": [{"steps": 32, "loss": 2.0}, {"steps": 64, "loss": 1.0}]}
    other = copy.deepcopy(golden)
    assert differences(other, golden, bit_for_bit=True) == []
    other["sha256"] = "b" * 64
    assert differences(other, golden, bit_for_bit=True) == ["the weights: bbbbbbbbbbbb instead of aaaaaaaaaaaa"]
    assert differences(other, golden, bit_for_bit=False) == []
    other["logs"][1]["loss"] = 1.0005
    assert len(differences(other, golden, bit_for_bit=True)) == 2
    assert differences(other, golden, bit_for_bit=False) == [], "rounding has grown by then"
    other["logs"][0]["loss"] = 2.001
    assert differences(other, golden, bit_for_bit=False) == []
    other["logs"][0]["loss"] = 2.01
    assert differences(other, golden, bit_for_bit=False) == ["loss at 32 steps: 2.01 instead of 2.0"]
    del other["logs"][1]
    assert "1 logs instead of 2" in differences(other, golden, bit_for_bit=True)
