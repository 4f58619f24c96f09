"""The experiments in projects/: what they promise, and that model, sensor and task fit together."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore
from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
from allenact.base_abstractions.experiment_config import ExperimentConfig, MachineParams
from allenact.utils import spaces_utils
from benchmarks.ablation import VARIANTS
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig
from projects.tutorials.gym_tutorial import GymTutorialExperimentConfig

ROOT = Path(__file__).resolve().parents[2]
BASELINES = sorted(
    path.stem for path in (ROOT / "projects/gym_baselines/experiments/mujoco").glob("gym_mujoco_*_ddppo.py")
)
MODERN = sorted(path.stem for path in (ROOT / "projects/gym_baselines/experiments/mujoco").glob("gym_mujoco_*_ppo.py"))
TAGS = [
    "Gym-MuJoCo-Ant-v2-PPO",
    "Gym-MuJoCo-HalfCheetah-v2-PPO",
    "Gym-MuJoCo-Hopper-v2-PPO",
    "Gym-MuJoCo-Humanoid-v2-PPO",
    "Gym-MuJoCo-InvertedDoublePendulum-v2-PPO",
    "Gym-MuJoCo-InvertedPendulum-v2-PPO",
    "Gym-MuJoCo-Reacher-v2-PPO",
    "Gym-MuJoCo-Swimmer-v2-PPO",
    "Gym-MuJoCo-Walker2d-v2-PPO",
]


def baseline(name: str, **kwargs) -> ExperimentConfig:
    module = importlib.import_module(f"projects.gym_baselines.experiments.mujoco.{name}")
    (config_class,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ExperimentConfig) and value.__module__ == module.__name__
    )
    return config_class(**kwargs)


def experiment(name: str) -> ExperimentConfig:
    if name == "gym_mujoco_tutorial":
        return GymMuJoCoTutorialExperimentConfig()
    if name == "gym_tutorial":
        pytest.importorskip("Box2D")
        return GymTutorialExperimentConfig()
    return baseline(name)


def act(model, observations):
    """One sampled action of a model for one observation dict, as the task takes it."""
    inputs = {uuid: torch.as_tensor(value)[None, None] for uuid, value in observations.items()}  # [1, 1, O]
    output, _ = model(observations=inputs, memory=None, prev_actions=None, masks=torch.ones(1, 1, 1))
    flat = spaces_utils.flatten(model.action_space, output.distributions.sample())  # [1, 1, A]
    return spaces_utils.action_list(model.action_space, flat)[0]


@pytest.mark.parametrize("name", ["gym_mujoco_tutorial", "gym_tutorial", *BASELINES, *MODERN])
def test_model_sensor_and_task_fit_together(name):
    config = experiment(name)
    args = config.train_task_sampler_args(process_ind=1, total_processes=2, seeds=[3, 4])
    sampler = config.make_sampler_fn(**args)
    try:
        task = sampler.next_task()
        model = config.create_model()
        assert task.action_space.shape == model.action_space.shape
        assert set(task.observation_space.spaces) == set(model.observation_space.spaces)

        observations = task.get_observations()
        for uuid, space in model.observation_space.spaces.items():
            assert observations[uuid].shape == space.shape
        for _ in range(3):
            result = task.step(act(model, observations))
            observations = result.observation
            assert isinstance(result.reward, float)
    finally:
        sampler.close()


def test_the_nine_baselines_have_a_tag_each():
    assert [baseline(name).tag() for name in BASELINES] == TAGS


@pytest.mark.parametrize("name", ["gym_mujoco_tutorial", *BASELINES])
def test_mujoco_recipe(name):
    """The recipe that results with AllenAct were obtained with; changing it invalidates them."""
    pipeline = experiment(name).training_pipeline()
    settings = pipeline.training_settings
    assert (settings.num_steps, settings.num_mini_batch, settings.update_repeats) == (2048, 4, 10)
    assert (settings.gamma, settings.use_gae, settings.gae_lambda) == (0.99, True, 0.95)
    assert (settings.max_grad_norm, settings.advance_scene_rollout_period) == (0.5, None)
    assert (settings.save_interval, settings.metric_accumulate_interval) == (200_000, 50_000)
    (stage,) = pipeline.pipeline_stages
    assert stage.max_stage_steps == 30_000_000

    loss = pipeline.get_loss("ppo_loss")
    assert (loss.clip_param, loss.value_loss_coef, loss.entropy_coef) == (0.2, 0.5, 0.0)
    optimizer = pipeline.optimizer_builder(params=[torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.param_groups[0]["lr"] == 3e-4
    pipeline.lr_scheduler_builder(optimizer=optimizer)
    (factor,) = (pipeline.lr_scheduler_builder.kwargs["lr_lambda"],)
    assert [factor(step) for step in (0, 15_000_000, 30_000_000, 40_000_000)] == [1.0, 0.5, 0.0, 0.0]


def test_the_modern_recipe_for_the_same_nine_tasks():
    assert [baseline(name).tag() for name in MODERN] == [tag.replace("-PPO", "-Modern-PPO") for tag in TAGS]
    assert all(baseline(name).training_pipeline().pipeline_stages[0].max_stage_steps > 0 for name in MODERN)


@pytest.mark.parametrize("name", MODERN)
def test_modern_recipe_trains_and_is_evaluated(name, tmp_path):
    sizes = {"total_steps": 48, "num_samplers": 4, "num_steps": 6, "metric_interval": 24, "save_interval": 0}
    config = baseline(name, **sizes, model={"hidden_sizes": [8]})
    config.NUM_EVAL_TASKS = 1
    packages = []
    store = CheckpointStore(tmp_path, "modern")
    with OnPolicyTrainer(config, seed=1, sampler_backend="batched", checkpoints=store, send=packages.append) as trainer:
        trainer.train()
        assert trainer.actor_critic.return_moments.count.item() == 48
    path = packages.pop()
    assert [package.training_steps for package in packages] == [24, 48]
    with OnPolicyInference(config, "test", sampler_backend="serial", deterministic_agents=True) as tester:
        assert len(tester.run_eval(str(path)).metrics) == 1


def test_lunar_lander_recipe():
    pipeline = GymTutorialExperimentConfig().training_pipeline()
    settings = pipeline.training_settings
    assert (settings.num_steps, settings.num_mini_batch, settings.update_repeats) == (2000, 1, 80)
    assert (settings.use_gae, settings.max_grad_norm) == (False, 100)
    assert pipeline.pipeline_stages[0].max_stage_steps == 1_200_000


@pytest.mark.parametrize("name", ["gym_mujoco_tutorial", "gym_tutorial", BASELINES[0]])
def test_eight_samplers_train_and_one_is_evaluated_and_filmed(name):
    config = experiment(name)
    params = {mode: MachineParams.instance_from(config.machine_params(mode)) for mode in ("train", "valid", "test")}
    assert {mode: list(each.nprocesses) for mode, each in params.items()} == {
        "train": [8],
        "valid": [1],
        "test": [1],
    }
    assert all(device.type == "cpu" for each in params.values() for device in each.devices)
    assert params["train"].visualizer is None
    assert params["valid"].visualizer is None
    assert params["test"].visualizer is not None


def test_ant_model():
    model = GymMuJoCoTutorialExperimentConfig().create_model()
    observations = {"gym_mujoco_data": torch.zeros(1, 2, 111)}  # [T, N, O]
    output, memory = model(observations=observations, memory=None, prev_actions=None, masks=torch.ones(1, 2, 1))
    assert memory is None
    assert output.values.shape == (1, 2, 1)
    assert output.distributions.sample().shape == (1, 2, 8)
    assert torch.equal(output.distributions.stddev, torch.full((1, 2, 8), 0.5))
    assert [tuple(p.shape) for n, p in model.named_parameters() if n.startswith("actor") and "weight" in n] == [
        (64, 111),
        (32, 64),
        (8, 32),
    ]


@pytest.mark.parametrize("mode", ["valid", "test"])
def test_evaluation_plays_fixed_episodes_once_each(mode):
    config = GymMuJoCoTutorialExperimentConfig(num_eval_tasks=4)
    make_args = getattr(config, f"{mode}_task_sampler_args")
    args = [make_args(process_ind=index, total_processes=2, seeds=[7, 8]) for index in range(2)]
    assert [each["task_seeds_list"] for each in args] == [[0, 1, 2, 3], [4, 5, 6, 7]]

    starts = []
    for _ in range(2):
        sampler = config.make_sampler_fn(**args[0])
        tasks = iter(sampler.next_task, None)
        starts.append([torch.as_tensor(task.get_observations()["gym_mujoco_data"]).tolist() for task in tasks])
        sampler.close()
    assert len(starts[0]) == 4
    assert starts[0] == starts[1]
    assert len({tuple(start) for start in starts[0]}) == 4


@pytest.mark.parametrize(
    ("config_class", "folder"),
    [(GymMuJoCoTutorialExperimentConfig, "gym_mujoco"), (GymTutorialExperimentConfig, "gym")],
)
def test_smoke_configuration_makes_a_run_of_a_few_rollouts(config_class, folder):
    kwargs = json.loads((ROOT / "configs" / folder / "smoke.json").read_text())
    config = config_class(**kwargs)
    settings = config.training_pipeline().training_settings
    rollout = settings.num_steps * config.num_train_samplers
    assert 2 <= kwargs["total_steps"] / rollout <= 8
    assert settings.save_interval < kwargs["total_steps"]  # at least two checkpoints


@pytest.mark.parametrize("config_class", [GymMuJoCoTutorialExperimentConfig, GymTutorialExperimentConfig])
def test_unknown_keyword_is_refused(config_class):
    with pytest.raises(TypeError, match="totalsteps"):
        config_class(totalsteps=1)


def test_settings_of_a_task_give_way_to_arguments():
    def settings(name, **kwargs):
        return baseline(f"gym_mujoco_{name}_ppo", **kwargs).training_pipeline().training_settings

    falling = {"ant": 3_000_000, "reacher": 300_000}
    for name, steps in falling.items():
        target = settings(name).kl_target
        assert [target(at) for at in (0, steps / 2, steps, 10 * steps)] == pytest.approx(
            [0.05, 0.0005**0.5, 0.01, 0.01]
        )
    assert settings("reacher", kl_target_steps=100).kl_target(100) == pytest.approx(0.01)
    assert settings("ant", kl_target_end=None).kl_target == 0.05
    assert settings("ant", kl_target=0.008).kl_target == 0.008, "it does not rise"
    assert settings("ant", kl_target=None).kl_target is None
    assert (settings("ant").gamma, settings("swimmer").gamma, settings("swimmer", gamma=0.9).gamma) == (
        0.99,
        0.999,
        0.9,
    )


@pytest.mark.parametrize("name", ["per-dimension", "fixed-std", "hand-written"])
def test_parts_of_the_modern_recipe_can_be_switched_off(name):
    small = {"total_steps": 256, "num_samplers": 8, "num_steps": 32, "update_repeats": 1}
    config = baseline("gym_mujoco_ant_ppo", **small, **VARIANTS[name].config_kwargs)
    with OnPolicyTrainer(config, seed=1, sampler_backend="batched", send=lambda message: None) as trainer:
        before = trainer.actor_critic.log_std.detach().clone()
        trainer.train()
        assert torch.equal(trainer.actor_critic.log_std, before) == (name == "fixed-std")
