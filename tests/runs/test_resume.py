"""A resumed run equals an uninterrupted one, bit for bit, wherever it was interrupted."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.pipeline.schedules import GeometricDecay
from allenact.testing.experiments import ToyExperiment

CASES = {
    "copy": {"task": "copy"},
    "remember, with memory": {"task": "remember", "recurrent": True},
    "continuous, truncation bootstrap": {"task": "push_right", "max_steps": 5, "bootstrap_truncated": True},
    "imitation with teacher forcing": {"task": "copy", "imitate": True},
    "dict actions": {"task": "copy", "dict_actions": True, "imitate": True},
    "several stages": {"task": "copy", "stage_steps": (64, 64)},
    "shuffled steps": {"task": "copy", "mini_batches_over": "steps", "num_mini_batch": 3},
    "adaptive rate": {"task": "push_right", "kl_target": 0.01, "kl_stop": 0.1},
    "falling target": {"task": "push_right", "kl_target": GeometricDecay(128, startp=0.05, endp=1e-4)},
    "forced new scenes": {"task": "copy", "advance_scene_rollout_period": 2},
    "rare logs": {"task": "copy", "metric_interval": 96},
}


def state_of(run):
    state = load_checkpoint(run.checkpoints[-1])
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


@pytest.mark.parametrize("backend", ["serial", "process"])
@pytest.mark.parametrize("case", CASES)
def test_resumed_run_equals_uninterrupted_run(case, backend, train, same_state):
    if backend == "process" and case not in ("copy", "remember, with memory"):
        pytest.skip("one case of each kind is enough for the slower backend")
    config = ToyExperiment(**CASES[case])
    whole = train(config, backend=backend)
    first = next(path for path in whole.checkpoints if "steps_000000000064" in path.name)
    rest = train(config, checkpoint=first, seed=99, backend=backend)

    same_state(state_of(whole), state_of(rest))
    same_state(whole.parameters, rest.parameters)
    later = [entry for entry in whole.logged if entry[0] > 64]
    assert later, "nothing was logged after the interruption"
    same_state(later, rest.logged)


@pytest.mark.parametrize("task", ["remember", "copy"])
@pytest.mark.parametrize("stop_after", [4, 32, 33, 64, 80, 100])
def test_stopping_within_a_rollout_loses_nothing(stop_after, task, train, same_state):
    config = ToyExperiment(task, recurrent=task == "remember")
    whole = train(config)
    stopped = train(config, stop_after=stop_after)
    assert stopped.trainer.training_pipeline.total_steps < 128
    rest = train(config, checkpoint=stopped.checkpoints[-1])
    same_state(state_of(whole), state_of(rest))
    same_state(whole.logged, stopped.logged + rest.logged)


@pytest.mark.parametrize("mini_batches", [1, 5, 9])
def test_stopping_within_a_long_update_goes_back_to_before_it(mini_batches, train, same_state, monkeypatch):
    config = ToyExperiment("copy")
    whole = train(config)
    monkeypatch.setattr("allenact.algorithms.onpolicy_sync.engine._LONG_UPDATE_S", 0.0)
    stopped = train(config, stop_after_mini_batches=mini_batches)
    steps = stopped.checkpoints[-1].name
    assert f"steps_{32 * ((mini_batches - 1) // 4):012d}" in steps, "four mini-batches to a rollout of 32 steps"
    rest = train(config, checkpoint=stopped.checkpoints[-1])
    same_state(state_of(whole), state_of(rest))


def test_saving_does_not_change_the_run(train, same_state):
    often = train(ToyExperiment("copy", save_interval=32))
    never = train(ToyExperiment("copy", save_interval=None))
    same_state(often.parameters, never.parameters)
    assert len(often.checkpoints) == 4
    assert never.checkpoints == []


def test_restarting_the_pipeline_takes_only_the_weights(train):
    config = ToyExperiment("copy", constant_lr=True)
    whole = train(config)
    again = train(config, checkpoint=whole.checkpoints[0], restart_pipeline=True)
    assert again.trainer.training_pipeline.total_steps == 128
    assert [package.training_steps for package in again.packages] == [32, 64, 96, 128]


def test_a_finished_run_has_nothing_to_resume(train):
    config = ToyExperiment("copy")
    whole = train(config)
    again = train(config, checkpoint=whole.checkpoints[-1])
    assert again.packages == []
    assert torch.equal(again.parameters["linear.weight"], whole.parameters["linear.weight"])


def test_another_number_of_samplers_is_said(train, caplog):
    whole = train(ToyExperiment("copy", num_samplers=4))
    with caplog.at_level("WARNING", logger="allenact"):
        train(ToyExperiment("copy", num_samplers=2), checkpoint=whole.checkpoints[0])
    assert "4 task samplers and the experiment 2" in caplog.text
