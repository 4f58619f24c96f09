"""Toys are learned in seconds: the cheapest proof that signs, shapes, masks and memory are right."""

import pytest

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference
from allenact.base_abstractions.sensor import SensorSuite
from allenact.testing.experiments import ToyExperiment
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic
from projects.gym_baselines.experiments.mujoco.gym_mujoco_invertedpendulum_ddppo import GymMuJoCoInvertedPendulumConfig


def last_rewards(run, count=30):
    rewards = [episode["reward"] for package in run.packages for episode in package.metrics]
    return sum(rewards[-count:]) / count


def test_copying_the_observation_is_learned(train):
    run = train(ToyExperiment("copy", stage_steps=(6000,), num_samplers=8, num_steps=32, lr=0.03, update_repeats=4))
    assert last_rewards(run) > 4  # of five choices an episode; chance is 1.25


def test_pushing_right_is_learned(train):
    run = train(ToyExperiment("push_right", stage_steps=(12000,), num_samplers=8, num_steps=32, lr=0.03, max_steps=20))
    assert last_rewards(run) > 0.9  # from about -0.5 to 1; chance is about 0


class NormalizedToy(ToyExperiment):
    """The toy with a model that normalises, and a rate that follows the policy."""

    def create_model(self, **kwargs):
        spaces = SensorSuite(self.sensors).observation_spaces
        return NormalizedActorCritic("toy", self.action_space, spaces, hidden_sizes=(16,), initial_log_std=-1.0)


def test_pushing_right_is_learned_with_everything_normalised(train):
    sizes = {"stage_steps": (6000,), "num_samplers": 8, "num_steps": 32, "lr": 1e-3, "max_steps": 20}
    run = train(NormalizedToy("push_right", kl_target=0.03, update_repeats=4, **sizes))
    assert last_rewards(run) > 0.9


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


@pytest.mark.slow
def test_a_time_limit_is_bootstrapped_through_only_if_asked_to(train):
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5; cut after ten steps and taken as an end, less."""
    assert value_of_endless_reward(train, bootstrap_truncated=True) == pytest.approx(5, abs=0.5)
    assert value_of_endless_reward(train) < 4


class QuickPendulum(GymMuJoCoInvertedPendulumConfig):
    """The baseline with a quieter policy, shorter rollouts and smaller mini-batches, for 200,000 steps."""

    def __init__(self):
        super().__init__(total_steps=200_000, num_steps=256, update_repeats=6, save_interval=0, metric_interval=10_000)

    def create_model(self, **kwargs):
        return MemorylessActorCritic(
            input_uuid="gym_mujoco_data",
            action_space=self.ACTION_SPACE,
            observation_space=SensorSuite(self.SENSORS).observation_spaces,
            action_std=0.3,
        )

    def machine_params(self, mode="train", **kwargs):
        return {"nprocesses": 8 if mode == "train" else 1, "devices": []}

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.optimizer_builder.kwargs["lr"] = 1e-3
        settings = pipeline.training_settings
        settings.num_mini_batch, settings.mini_batches_over, settings.bootstrap_truncated = 8, "steps", True
        return pipeline


@pytest.mark.learning
@pytest.mark.parametrize("seed", [1, 2])
def test_an_inverted_pendulum_is_balanced(seed, train):
    """Half a minute a seed on two cores. An episode pays 1 a step and is cut after 1000."""
    run = train(QuickPendulum(), seed=seed, backend="batched")
    assert run.trainer.training_pipeline.total_steps < 300_000
    assert last_rewards(run, count=20) >= 900
    with OnPolicyInference(QuickPendulum(), "test", sampler_backend="batched", deterministic_agents=True) as tester:
        rewards = [episode["reward"] for episode in tester.run_eval(str(run.checkpoints[-1])).metrics]
    assert rewards == [1000] * 4
