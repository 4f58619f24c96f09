"""The tutorial about an environment of one's own: environment, model and pipeline work, and learn."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore
from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
from allenact.testing.contracts import check_task_sampler
from allenact_plugins.gym_plugin.gym_tasks import GymDiscreteTask
from projects.tutorials.own_environment_tutorial import OwnEnvironmentTutorialExperimentConfig

ROOT = Path(__file__).resolve().parents[2]


def train_and_test(config, folder):
    """Trains, plays the test episodes with the most likely actions, and returns their metrics."""
    packages = []
    store = CheckpointStore(folder, "apples")
    with OnPolicyTrainer(config, seed=0, sampler_backend="serial", checkpoints=store, send=packages.append) as trainer:
        trainer.train()
    with OnPolicyInference(config, "test", sampler_backend="serial", deterministic_agents=True) as tester:
        return tester.run_eval(str(packages[-1])).metrics


def evaluation_sampler():
    config = OwnEnvironmentTutorialExperimentConfig(num_eval_tasks=3)
    return config.make_sampler_fn(**config.valid_task_sampler_args(process_ind=0))


def test_gymnasium_and_the_framework_accept_the_environment():
    check_env(gymnasium.make("AppleField-v0", render_mode="rgb_array").unwrapped)
    check_task_sampler(evaluation_sampler, check_render=True)


def test_following_the_apple_catches_all_until_the_time_is_up():
    task = evaluation_sampler().next_task()
    assert type(task) is GymDiscreteTask
    while not task.is_done():
        basket, apple, _, _ = task.get_observations()["field"]
        task.step(int(apple > basket - 0.05) + int(apple > basket + 0.05))
    metrics = task.metrics()
    assert (metrics["apples"], metrics["reward"], metrics["success"], metrics["ep_length"]) == (20, 20, 1, 500)
    assert task.was_truncated()


def test_an_episode_is_saved_and_goes_on():
    sampler, other = evaluation_sampler(), evaluation_sampler()
    task = sampler.next_task()
    for step in range(40):
        task.step(step % 3)
        if task.is_done():
            task = sampler.next_task()
    again = other.load_state_dict(sampler.state_dict(task))
    while not task.is_done():
        assert task.step(2).observation["field"].tolist() == again.step(2).observation["field"].tolist()
    assert again.metrics() == task.metrics()


def test_standing_still_ends_with_the_first_apple_that_is_missed():
    task = evaluation_sampler().next_task()
    while not task.is_done():
        task.step(1)
    assert task.num_steps_taken() == 25 * (task.metrics()["apples"] + 1)
    assert task.metrics()["share_of_moves"] == 0
    assert not task.was_truncated()


def test_it_trains_and_is_evaluated_and_filmed(tmp_path):
    smoke = json.loads((ROOT / "configs/own_environment/smoke.json").read_text())
    config = OwnEnvironmentTutorialExperimentConfig(**smoke)
    assert len(train_and_test(config, tmp_path)) == smoke["num_eval_tasks"]
    assert [config.machine_params(mode)["visualizer"] is not None for mode in ("train", "test")] == [False, True]


@pytest.mark.learning
@pytest.mark.timeout(900)  # it takes 20 seconds of one core, where there is one
def test_nearly_all_apples_are_caught(tmp_path):
    episodes = train_and_test(OwnEnvironmentTutorialExperimentConfig(), tmp_path)
    assert sum(episode["apples"] for episode in episodes) / len(episodes) > 17  # of 20; at first, less than one
