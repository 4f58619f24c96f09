"""2k rollouts equal k, a stop in the next one, and k more, bit for bit; and what is said where they cannot."""

import pytest

pytest.importorskip("minigrid")
pytest.importorskip("Box2D")

from allenact.algorithms.onpolicy_sync import resume
from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.testing.experiments import ToyExperiment
from projects.gym_baselines.experiments.mujoco.gym_mujoco_hopper_ppo import GymMuJoCoHopperModernConfig
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig
from projects.tutorials.gym_tutorial import GymTutorialExperimentConfig
from projects.tutorials.minigrid_tutorial import MiniGridTutorialExperimentConfig
from projects.tutorials.minigrid_tutorial_conds import MiniGridTutorialCondsExperimentConfig

K = 3  # rollouts before the stop, and after it
SHORT = {"metric_interval": 1, "save_interval": 10**9}


def tutorial():
    """Ant, 2 samplers x 24 steps."""
    return GymMuJoCoTutorialExperimentConfig(
        total_steps=2 * K * 48, num_steps=24, num_train_samplers=2, num_mini_batch=2, update_repeats=2, **SHORT
    )


def statistics():
    """Observations and returns are normalised by their running statistics."""
    return GymMuJoCoHopperModernConfig(
        total_steps=2 * K * 48, num_steps=24, num_samplers=2, num_mini_batch=2, model={"hidden_sizes": [16]}, **SHORT
    )


def toy(**kwargs):
    """4 samplers x 8 steps."""
    return ToyExperiment(**{"stage_steps": (2 * K * 32,), "metric_interval": 1, "save_interval": 10**9, **kwargs})


def grid(config=MiniGridTutorialExperimentConfig):
    """2 samplers x 6 steps, and episodes that go on across rollouts."""
    return config(
        total_steps=2 * K * 12, num_steps=6, num_train_samplers=2, num_mini_batch=1, update_repeats=1, **SHORT
    )


def lander():
    """Box2D, 2 samplers x 60 steps."""
    return GymTutorialExperimentConfig(
        total_steps=2 * K * 120, num_steps=60, num_train_samplers=2, update_repeats=2, **SHORT
    )


CASES = {
    "tutorial, batched": (tutorial, "batched"),
    "tutorial, batches in processes": (tutorial, "process"),
    "tutorial, serial": (tutorial, "serial"),
    "memory": (lambda: toy(task="remember", recurrent=True), "serial"),
    "memory, processes": (lambda: toy(task="remember", recurrent=True), "process"),
    "several stages": (lambda: toy(stage_steps=(64, 32, 96)), "serial"),
    "teacher forcing": (lambda: toy(task="remember", recurrent=True, imitate=True), "serial"),
    "teacher forcing, processes": (lambda: toy(imitate=True), "process"),
    "teacher forcing, then PPO": (lambda: toy(imitate=True, stage_steps=(96, 96), dict_actions=True), "serial"),
    "statistics": (statistics, "batched"),
    "grid world with memory": (grid, "serial"),
    "grid world, processes": (grid, "process"),
    "grid world, teacher forcing": (lambda: grid(MiniGridTutorialCondsExperimentConfig), "serial"),
}


def state_of(run):
    return vars(load_checkpoint(run.checkpoints[-1]))


def stop_and_go_on(config, backend, train, steps):
    """Stops in the middle of rollout k + 1, and goes on with another seed on the command line."""
    stopped = train(config, backend=backend, stop_after=steps)
    assert len(stopped.checkpoints) >= 1
    rest = train(config, backend=backend, checkpoint=stopped.checkpoints[-1], seed=99)
    return stopped, rest


@pytest.mark.slow
@pytest.mark.faults("stopped after k of 2k rollouts, then resumed", "equals 2k rollouts, bit for bit", "nothing")
@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_is_the_same_run(case, train, same_state):
    make, backend = CASES[case]
    whole = train(make(), backend=backend)
    total = whole.trainer.training_pipeline.total_steps
    stopped, rest = stop_and_go_on(make(), backend, train, total // 2 + 1)
    assert stopped.trainer.training_pipeline.total_steps == total // 2
    same_state(state_of(whole), state_of(rest))
    same_state(whole.parameters, rest.parameters)
    same_state(whole.logged, stopped.logged + rest.logged)


@pytest.mark.slow
@pytest.mark.faults(
    "stopped after k of 2k rollouts, then resumed, Box2D", "said when it is saved", "the rest of the running episodes"
)
def test_box2d_begins_new_episodes_and_says_so(train, same_state, caplog):
    with caplog.at_level("INFO", logger="allenact"):
        stopped, rest = stop_and_go_on(lander(), "serial", train, K * 120 + 1)
    said = [record.getMessage() for record in caplog.records]
    assert any("2 of 2 task samplers cannot be saved" in line for line in said), "when it is saved"
    assert any("Task samplers [0, 1] could not be saved: their episodes start anew" in line for line in said)
    again = train(lander(), checkpoint=stopped.checkpoints[-1], seed=98)
    same_state(rest.parameters, again.parameters)
    ids = [
        [episode["task_info"]["id"] for package in run.packages for episode in package.metrics]
        for run in (stopped, rest)
    ]
    assert all(ids)
    assert not set(ids[0]) & set(ids[1]), "new episodes, not once more the first ones of the run"


@pytest.mark.slow
@pytest.mark.faults("resumed under other library versions", "said; training goes on", "equality in the last bits")
def test_other_versions_are_named(train, caplog, monkeypatch):
    first = train(toy())
    here = resume.library_versions()
    monkeypatch.setattr(resume, "library_versions", lambda: {**here, "torch": "0.1"})
    with caplog.at_level("WARNING", logger="allenact"):
        train(toy(stage_steps=(4 * K * 32,)), checkpoint=first.checkpoints[-1])
    assert f"was written with torch {here['torch']}, this is" in caplog.text
    assert "torch 0.1" in caplog.text
    assert "may differ in rounding" in caplog.text
