"""Whole runs on MuJoCo tasks: resumed equals uninterrupted, and how the tasks are stepped does not matter."""

import importlib

import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from projects.gym_baselines.experiments.mujoco.gym_mujoco_hopper_ddppo import GymMuJoCoHopperConfig
from projects.gym_baselines.experiments.mujoco.gym_mujoco_hopper_ppo import GymMuJoCoHopperModernConfig
from projects.gym_baselines.experiments.mujoco.gym_mujoco_invertedpendulum_ddppo import GymMuJoCoInvertedPendulumConfig

ROLLOUT = 3 * 30  # environment steps: of samplers, of each


class ShortMixin:
    """Four small rollouts; episodes end within them and across them."""

    def __init__(self, **settings):
        super().__init__(total_steps=4 * ROLLOUT, num_steps=30, update_repeats=2, save_interval=ROLLOUT)
        self.metric_interval = 1
        self.settings = settings

    def machine_params(self, mode="train", **kwargs):
        return {"nprocesses": 3 if mode == "train" else 1, "devices": []}

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        for name, value in {"num_mini_batch": 3, **self.settings}.items():
            setattr(pipeline.training_settings, name, value)
        return pipeline


class Pendulum(ShortMixin, GymMuJoCoInvertedPendulumConfig):
    """InvertedPendulum-v2."""


class Hopper(ShortMixin, GymMuJoCoHopperConfig):
    """Hopper-v2."""


def state_of(run):
    state = load_checkpoint(run.checkpoints[-1])
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


@pytest.mark.parametrize("backend", ["serial", "process", "batched"])
@pytest.mark.parametrize("config_class", [Pendulum, Hopper])
def test_resumed_run_equals_uninterrupted_run(config_class, backend, train, same_state):
    config = config_class()
    whole = train(config, backend=backend)
    assert sum(len(package.metrics) for package in whole.packages) > 0, "no episode ended"
    assert len(whole.checkpoints) == 4
    for first in whole.checkpoints[: 1 if backend == "process" else 2]:
        rest = train(config, checkpoint=first, seed=99, backend=backend)
        same_state(state_of(whole), state_of(rest))
        same_state(whole.parameters, rest.parameters)
        same_state(whole.logged[-len(rest.logged) :], rest.logged)


def test_a_run_can_go_on_with_another_backend(train, same_state):
    config = Hopper()
    whole = train(config, backend="serial")
    rest = train(config, checkpoint=whole.checkpoints[1], backend="batched")
    same_state(whole.parameters, rest.parameters)


@pytest.mark.parametrize("settings", [{}, {"bootstrap_truncated": True, "mini_batches_over": "steps"}])
@pytest.mark.parametrize("config_class", [Pendulum, Hopper])
def test_backends_train_the_same(config_class, settings, train, same_state):
    config = config_class(**settings)
    serial = train(config, backend="serial")
    others = [train(config, backend="batched"), train(config, backend="process", max_sampler_processes=2)]
    if config_class is Hopper and not settings:
        others.append(train(config, backend="process", max_sampler_processes=1))
    for other in others:
        same_state(serial.parameters, other.parameters)
        same_state(serial.logged, other.logged)


def test_a_batch_stepped_by_one_thread_or_two_is_the_same(train, same_state, monkeypatch):
    runs = []
    for cores in (1, 2):
        factory = importlib.import_module("allenact.algorithms.onpolicy_sync.vector_sampled_tasks.factory")
        monkeypatch.setattr(factory, "usable_cores", lambda cores=cores: cores)
        runs.append(train(Hopper(), backend="batched"))
    same_state(runs[0].parameters, runs[1].parameters)
    same_state(runs[0].logged, runs[1].logged)


def modern_hopper(**kwargs):
    return GymMuJoCoHopperModernConfig(
        **{
            "total_steps": 4 * ROLLOUT,
            "num_samplers": 3,
            "num_mini_batch": 3,
            "num_steps": 30,
            "save_interval": ROLLOUT,
            "metric_interval": 1,
            "model": {"hidden_sizes": [16, 16]},
            **kwargs,
        }
    )


def test_statistics_and_rate_are_resumed_exactly(train, same_state):
    config = modern_hopper()
    whole = train(config, backend="batched")
    assert whole.parameters["observation_moments.count"] == whole.parameters["return_moments.count"] == 4 * ROLLOUT
    assert whole.trainer.optimizer.param_groups[0]["lr"] != config.lr
    for first in whole.checkpoints[:2]:
        rest = train(config, checkpoint=first, seed=99, backend="batched")
        same_state(state_of(whole), state_of(rest))
        same_state(whole.parameters, rest.parameters)
        same_state(whole.logged[-len(rest.logged) :], rest.logged)


@pytest.mark.parametrize("mini_batches", [1, 8, 11])
def test_an_update_broken_off_gives_back_statistics_and_rate(mini_batches, train, same_state, monkeypatch):
    config = modern_hopper()
    whole = train(config, backend="batched")
    monkeypatch.setattr("allenact.algorithms.onpolicy_sync.engine._LONG_UPDATE_S", 0.0)
    stopped = train(config, backend="batched", stop_after_mini_batches=mini_batches)
    assert stopped.trainer.training_pipeline.total_steps < 4 * ROLLOUT
    rest = train(config, checkpoint=stopped.checkpoints[-1], backend="batched")
    same_state(state_of(whole), state_of(rest))


def test_the_policy_that_acted_is_the_one_that_updates_begin_with(train):
    """Also after the statistics have moved: the first mini-batch sees no divergence."""
    run = train(modern_hopper(num_mini_batch=1, update_repeats=1), backend="batched")
    assert len(run.packages) == 4
    for package in run.packages:
        assert package.scalars["train-onpolicy-misc/kl"][0] == pytest.approx(0, abs=1e-5)


def test_modern_recipe_trains_the_same_serial_and_batched(train, same_state):
    serial, batched = (train(modern_hopper(), backend=backend) for backend in ("serial", "batched"))
    same_state(serial.parameters, batched.parameters)
    same_state(serial.logged, batched.logged)
