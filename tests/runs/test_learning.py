"""Toys are learned in seconds: the cheapest proof that signs, shapes, masks and memory are right."""

import pytest

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.testing.experiments import ToyExperiment


def last_rewards(run, count=30):
    rewards = [episode["reward"] for package in run.packages for episode in package.metrics]
    return sum(rewards[-count:]) / count


def test_copying_the_observation_is_learned(train):
    run = train(ToyExperiment("copy", stage_steps=(6000,), num_samplers=8, num_steps=32, lr=0.03, update_repeats=4))
    assert last_rewards(run) > 4  # of five choices an episode; chance is 1.25


def test_pushing_right_is_learned(train):
    run = train(ToyExperiment("push_right", stage_steps=(12000,), num_samplers=8, num_steps=32, lr=0.03, max_steps=20))
    assert last_rewards(run) > 0.9  # from about -0.5 to 1; chance is about 0


@pytest.mark.learning
def test_remembering_is_learned_with_a_memory(train):
    run = train(
        ToyExperiment(
            "remember", recurrent=True, stage_steps=(30000,), num_samplers=16, num_steps=20, lr=0.02, update_repeats=4
        )
    )
    assert last_rewards(run) > 0.9  # chance is a third


def test_imitation_with_teacher_forcing_learns_from_the_expert(train):
    run = train(ToyExperiment("copy", dict_actions=True, imitate=True, stage_steps=(3000,), num_samplers=8, lr=0.05))
    assert last_rewards(run) > 4


def value_of_endless_reward(train, **settings):
    run = train(
        ToyExperiment(
            "endless",
            stage_steps=(30000,),
            num_samplers=8,
            num_steps=32,
            lr=0.2,
            max_steps=10,
            gamma=0.8,
            gae_lambda=0.95,
            update_repeats=2,
            use_clipped_value_loss=False,
            **settings,
        )
    )
    trainer = run.trainer
    storage = trainer.training_pipeline.rollout_storage
    return float(RolloutCollector.next_value(trainer.collector, storage).mean())


def test_a_time_limit_is_bootstrapped_through_only_if_asked_to(train):
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5; cut after ten steps and taken as an end, less."""
    assert value_of_endless_reward(train, bootstrap_truncated=True) == pytest.approx(5, abs=0.5)
    assert value_of_endless_reward(train) < 4
