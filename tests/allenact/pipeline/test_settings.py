"""TrainingSettings: names, ranges, precedence, copies."""

import copy
import pickle

import numpy as np
import pytest

from allenact.errors import ExperimentConfigError
from allenact.pipeline.schedules import LinearDecay
from allenact.pipeline.settings import TrainingSettings
from allenact.pipeline.stage import PipelineStage

UPSTREAM_NAMES = {
    "num_mini_batch",
    "update_repeats",
    "max_grad_norm",
    "num_steps",
    "gamma",
    "use_gae",
    "gae_lambda",
    "advance_scene_rollout_period",
    "save_interval",
    "metric_accumulate_interval",
}


def test_nothing_is_set_at_first():
    settings = TrainingSettings()
    assert {name: getattr(settings, name) for name in UPSTREAM_NAMES} == dict.fromkeys(UPSTREAM_NAMES)
    assert settings.bootstrap_truncated is False
    assert settings.mini_batches_over == "samplers"
    assert set(settings.keys()) == UPSTREAM_NAMES | {
        "bootstrap_truncated",
        "mini_batches_over",
        "kl_target",
        "kl_judged",
        "kl_stop",
    }
    assert (settings.kl_target, settings.kl_judged, settings.kl_stop) == (None, "mini_batch", None)
    assert settings.has_key("gamma")
    assert not settings.has_key("gama")


def test_an_unset_value_is_looked_up_when_it_is_read():
    pipeline, stage, component = (TrainingSettings() for _ in range(3))
    stage.set_defaults(pipeline)
    component.set_defaults(stage)
    assert component.num_steps is None
    pipeline.num_steps = 128
    assert (component.num_steps, stage.num_steps) == (128, 128)
    stage.num_steps = 64
    assert component.num_steps == 64
    pipeline.bootstrap_truncated = True
    assert component.bootstrap_truncated is True
    component.bootstrap_truncated = False
    assert component.bootstrap_truncated is False
    stage.num_steps = None
    assert component.num_steps == 128


def test_zero_is_a_value():
    pipeline, stage = TrainingSettings(update_repeats=4, num_mini_batch=2), TrainingSettings(update_repeats=0)
    stage.set_defaults(pipeline)
    assert stage.update_repeats == 0
    assert stage.num_mini_batch == 2


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("num_steps", 1e6, 1_000_000),
        ("num_steps", np.int64(5), 5),
        ("save_interval", 2**31, 2**31),
        ("save_interval", -1, -1),
        ("max_grad_norm", float("inf"), float("inf")),
        ("update_repeats", [3, 1], (3, 1)),
        ("gamma", 1, 1.0),
        ("use_gae", np.bool_(True), True),
        ("mini_batches_over", "steps", "steps"),
        ("num_mini_batch", 0, 0),
        ("advance_scene_rollout_period", None, None),
    ],
)
def test_values_that_are_taken(name, value, stored):
    settings = TrainingSettings(**{name: value})
    assert getattr(settings, name) == stored
    assert type(getattr(settings, name)) is type(stored)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_steps", 0, "a whole number >= 1"),
        ("num_steps", 2.5, "a whole number >= 1"),
        ("num_steps", True, "a whole number >= 1"),
        ("num_steps", "128", "a whole number >= 1"),
        ("num_mini_batch", -1, "a whole number >= 0"),
        ("save_interval", 0.5, "a whole number"),
        ("save_interval", float("inf"), "a whole number"),
        ("update_repeats", [1, -1], "also one for each loss"),
        ("update_repeats", "3", "a whole number >= 0"),
        ("gamma", 1.5, "a number from 0 to 1"),
        ("gae_lambda", float("nan"), "a number from 0 to 1"),
        ("use_gae", 2, "True or False"),
        ("max_grad_norm", 0, "a number above 0"),
        ("metric_accumulate_interval", -1, "a whole number >= 0"),
        ("mini_batches_over", "rows", '"samplers" or "steps"'),
        ("kl_target", 0, "a number above 0, or a schedule"),
        ("kl_target", LinearDecay, "a number above 0, or a schedule"),
        ("kl_judged", "epoch", '"mini_batch", "pass" or "update"'),
    ],
)
def test_values_that_are_refused(name, value, expected):
    with pytest.raises(ExperimentConfigError) as error:
        TrainingSettings(**{name: value})
    assert f"{name} must be" in str(error.value)
    assert expected in str(error.value)
    settings = TrainingSettings()
    with pytest.raises(ExperimentConfigError):
        setattr(settings, name, value)
    assert getattr(settings, name) == getattr(TrainingSettings(), name)


def test_unknown_names_are_refused_with_the_nearest_one():
    with pytest.raises(ExperimentConfigError, match='did you mean "num_mini_batch"'):
        TrainingSettings(num_mini_batches=4)
    with pytest.raises(ExperimentConfigError, match='did you mean "gamma"'):
        TrainingSettings().gama = 0.9


def test_two_owners_cannot_share_settings():
    settings = TrainingSettings(gamma=0.9)
    settings.set_defaults(TrainingSettings())
    with pytest.raises(ExperimentConfigError, match="used in two places"):
        settings.set_defaults(TrainingSettings())


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_independent(duplicate):
    settings, pipeline = TrainingSettings(num_steps=5), TrainingSettings(gamma=0.9)
    settings.set_defaults(pipeline)
    other = duplicate(settings)
    assert (other.num_steps, other.gamma, other.use_gae) == (5, 0.9, None)
    other.num_steps = 6
    assert settings.num_steps == 5
    assert repr(other) == "TrainingSettings(num_steps=6)"


def test_offpolicy_components_of_old_files_are_told_what_replaced_them():
    with pytest.raises(ExperimentConfigError, match=r"(?s)OffPolicyPipelineComponent.*StageComponent"):
        PipelineStage(loss_names=[], max_stage_steps=1, offpolicy_component=object())


def test_the_length_of_a_stage_may_be_a_number_of_numpy():
    assert not PipelineStage(loss_names=[], max_stage_steps=np.int64(3)).is_complete
