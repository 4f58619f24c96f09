"""Schedules, as functions of the step, and builders."""

import pickle

import pytest
import torch

from allenact.errors import ExperimentConfigError
from allenact.pipeline.builder import Builder, built, recursive_update
from allenact.pipeline.schedules import GeometricDecay, LinearDecay, MultiLinearDecay


def test_linear_decay():
    decay = LinearDecay(steps=100, startp=1.0, endp=0.5)
    assert [decay(step) for step in (-5, 0, 50, 100, 1000)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    assert (decay.steps, decay.startp, decay.endp) == (100, 1.0, 0.5)
    assert LinearDecay(steps=4)(1) == 0.75
    assert LinearDecay(steps=0, startp=1.0, endp=0.2)(0) == 0.2


def test_geometric_decay():
    decay = GeometricDecay(steps=200, startp=0.08, endp=0.02)
    expected = {-5: 0.08, 0: 0.08, 100: 0.04, 150: 0.02 * 2**0.5, 200: 0.02, 1000: 0.02}
    assert {step: decay(step) for step in expected} == pytest.approx(expected)
    assert GeometricDecay(steps=0, startp=1.0, endp=0.2)(0) == 0.2
    assert repr(decay) == "GeometricDecay(steps=200, startp=0.08, endp=0.02)"
    with pytest.raises(ExperimentConfigError, match="between numbers above 0"):
        GeometricDecay(steps=10, startp=1.0, endp=0.0)


def test_multi_linear_decay_does_not_remember():
    stages = [LinearDecay(10, 1.0, 0.0), LinearDecay(20, 0.5, 0.3), LinearDecay(10, 0.3, 0.3)]
    decay = MultiLinearDecay(stages)
    expected = {0: 1.0, 5: 0.5, 10: 0.5, 20: 0.4, 30: 0.3, 35: 0.3, 40: 0.3, 99: 0.3, -1: 1.0}
    assert {step: decay(step) for step in expected} == pytest.approx(expected)
    assert {step: decay(step) for step in reversed(expected)} == pytest.approx(expected)
    assert decay.total_steps == 40
    assert decay.steps == [10, 30, 40]
    assert [stage.startp for stage in decay.stages] == [1.0, 0.5, 0.3]
    assert MultiLinearDecay([LinearDecay(5, 1.0, 0.9), LinearDecay(0, 0.4, 0.2)])(5) == 0.2


@pytest.mark.parametrize("schedule", [LinearDecay(10), MultiLinearDecay([LinearDecay(5), LinearDecay(5, 0.0, 0.5)])])
def test_a_scheduler_with_a_schedule_is_saved_as_plain_values(schedule, tmp_path):
    def scheduler():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, pickle.loads(pickle.dumps(schedule)))

    path = tmp_path / "scheduler.pt"
    torch.save(scheduler().state_dict(), path)
    restored = scheduler()
    restored.load_state_dict(torch.load(path, weights_only=True))
    assert restored.lr_lambdas[0](7) == schedule(7)


def keywords(**kwargs):
    return kwargs


def test_builder_merges_default_kwargs_and_call():
    builder = Builder(
        keywords,
        kwargs={"b": 2, "nested": {"y": 2, "deep": {"p": 1}}},
        default={"a": 1, "b": 1, "nested": {"x": 1, "y": 1}},
    )
    assert builder(c=3, nested={"deep": {"q": 2}}) == {
        "a": 1,
        "b": 2,
        "c": 3,
        "nested": {"x": 1, "y": 2, "deep": {"p": 1, "q": 2}},
    }
    assert builder() == {"a": 1, "b": 2, "nested": {"x": 1, "y": 2, "deep": {"p": 1}}}  # nothing was changed
    assert builder.default == {"a": 1, "b": 1, "nested": {"x": 1, "y": 1}}


def test_builder_is_a_picklable_triple():
    builder = Builder(LinearDecay, dict(steps=4))
    class_type, kwargs, default = pickle.loads(pickle.dumps(builder))
    assert (class_type, kwargs, default) == (LinearDecay, {"steps": 4}, None)
    assert builder(endp=2.0)(4) == 2.0


def test_objects_in_kwargs_are_passed_as_they_are():
    marker = object()
    assert Builder(keywords, {"x": marker})()["x"] is marker


def test_recursive_update_changes_the_first_mapping_only():
    inner = {"x": 1}
    original = {"inner": inner, "n": 1}
    update = {"inner": {"y": 2}, "n": {"now": "nested"}}
    assert recursive_update(original, update) is original
    assert original == {"inner": {"x": 1, "y": 2}, "n": {"now": "nested"}}
    assert inner == {"x": 1}


def test_an_optimizer_that_torch_refuses():
    with pytest.raises(ExperimentConfigError, match="the optimizer cannot be made: Invalid learning rate: -1"):
        built("optimizer", Builder(torch.optim.Adam, {"lr": -1}), params=[torch.nn.Parameter(torch.zeros(1))])


def test_a_mistake_in_an_optimizer_of_the_experiment_s_own_stays_what_it_is():
    def make(params):
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own") as caught:
        built("optimizer", make, params=[])
    assert not isinstance(caught.value, ExperimentConfigError)
