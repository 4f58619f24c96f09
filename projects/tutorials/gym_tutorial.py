r"""Landing on the moon.

A lander falls towards a pad between two flags. It has a main engine and two side engines, and how hard each
fires is a real number: the *continuous* version of gymnasium's LunarLander. Coming to rest on the pad is
worth 100 to 140 points, a crash costs 100, fuel costs a little.

This tutorial needs the `box2d` extra:

    pip install -e ".[box2d]"

Train, watch and evaluate with

    PYTHONPATH=. python allenact/main.py gym_tutorial -b projects/tutorials \
        -o experiment_output -s 0 -e
    tensorboard --logdir experiment_output
    PYTHONPATH=. python allenact/main.py gym_tutorial -b projects/tutorials \
        -m 1 -o experiment_output -s 0 -e \
        --eval --checkpoint experiment_output/checkpoints/GymTutorial/START_DATE

and add `--config_kwargs configs/gym/smoke.json` to the first and the last for a run of seconds. If you have
not seen an experiment file before, read `gym_mujoco_tutorial.py` first: it explains each method, while this
page dwells on what is different.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium.spaces import Box
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.base_abstractions.experiment_config import ExperimentConfig, TaskSampler
from allenact.base_abstractions.sensor import SensorSuite
from allenact.utils.experiment_utils import Builder, LinearDecay, PipelineStage, TrainingPipeline
from allenact.utils.viz_utils import AgentViewViz, VizSuite
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from allenact_plugins.gym_plugin.gym_sensors import GymBox2DSensor
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler


class GymTutorialExperimentConfig(ExperimentConfig):
    """PPO on LunarLanderContinuous-v2.

    Args:
        total_steps: environment steps to train for, summed over all samplers; the learning rate ends at 0.
        num_steps: length of one rollout, in steps of each sampler.
        num_train_samplers: landers that gather experience side by side.
        update_repeats: passes over each rollout.
        save_interval: environment steps between checkpoints; each checkpoint is also validated.
        metric_interval: environment steps between two lines in the log.
        num_eval_tasks: episodes per validation and test.
        max_video_length: frames recorded of each test episode; -1 for all.
        learning_rate: of Adam, at the start.
    """

    def __init__(
        self,
        *,
        total_steps: int = 1_200_000,
        num_steps: int = 2000,
        num_train_samplers: int = 8,
        update_repeats: int = 80,
        save_interval: int = 200_000,
        metric_interval: int = 50_000,
        num_eval_tasks: int = 3,
        max_video_length: int = -1,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.num_steps = num_steps
        self.num_train_samplers = num_train_samplers
        self.update_repeats = update_repeats
        self.save_interval = save_interval
        self.metric_interval = metric_interval
        self.num_eval_tasks = num_eval_tasks
        self.max_video_length = max_video_length
        self.learning_rate = learning_rate

    @classmethod
    def tag(cls) -> str:
        return "GymTutorial"

    """
    ## Eight numbers in, two numbers out

    The observation is the position, velocity, angle and angular velocity of the lander, and whether each
    leg touches the ground. The action is the throttle of the main engine and of the side engines.
    `LunarLanderContinuous-v2` is the name that AllenAct experiments use; the plugin opens gymnasium's
    present version of the same task and says so.
    """

    SENSORS = [GymBox2DSensor("LunarLanderContinuous-v2", uuid="gym_box_data")]

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        return MemorylessActorCritic(
            input_uuid="gym_box_data",
            action_space=Box(-1.0, 1.0, (2,)),
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            action_std=0.5,
        )

    """
    ## Tasks

    Training samplers draw a new terrain and a new push for every episode. The validation sampler plays
    three fixed episodes, in order.
    """

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return GymTaskSampler(gym_env_type="LunarLanderContinuous-v2", **kwargs)

    def train_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        return {
            "sensors": self.SENSORS,
            "max_tasks": None,
            "deterministic_sampling": False,
            "seed": seeds[process_ind] if seeds is not None else None,
        }

    def valid_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        first = process_ind * self.num_eval_tasks
        return {
            "sensors": self.SENSORS,
            "max_tasks": self.num_eval_tasks,
            "task_seeds_list": list(range(first, first + self.num_eval_tasks)),
            "deterministic_sampling": True,
            "seed": seeds[process_ind] if seeds is not None else None,
        }

    def test_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        return self.valid_task_sampler_args(process_ind, total_processes, devices, seeds, deterministic_cudnn)

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        visualizer = None
        if mode == "test":
            visualizer = VizSuite(
                mode="test",
                video=AgentViewViz(
                    label="episode_vid",
                    max_clip_length=400,
                    max_video_length=self.max_video_length,
                    vector_task_source=("render", {"mode": "rgb_array"}),
                    fps=30,
                ),
            )
        return {
            "nprocesses": self.num_train_samplers if mode == "train" else 1,
            "devices": [],
            "visualizer": visualizer,
        }

    """
    ## Few rollouts, many passes

    The recipe differs from the ant's in three places.

    - Each rollout of 16,000 steps is visited 80 times, always as one single mini-batch. That is a lot of
      gradient steps on the same data, and it works because PPO's clipping ends each sample's say once the
      policy has moved far enough.
    - The target of the critic is the plain discounted return to the end of the rollout: `use_gae` is off,
      so nothing but `gamma` trades bias for variance.
    - Gradients are clipped at a norm of 100, which is to say hardly ever.
    """

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"ppo_loss": PPO(clip_param=0.2, value_loss_coef=0.5, entropy_coef=0.0)},
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=self.total_steps)],
            optimizer_builder=Builder(optim.Adam, {"lr": self.learning_rate}),
            lr_scheduler_builder=Builder(LambdaLR, {"lr_lambda": LinearDecay(steps=self.total_steps)}),
            num_steps=self.num_steps,
            num_mini_batch=1,
            update_repeats=self.update_repeats,
            max_grad_norm=100.0,
            gamma=0.99,
            use_gae=False,
            gae_lambda=1.0,
            advance_scene_rollout_period=None,
            save_interval=self.save_interval,
            metric_accumulate_interval=self.metric_interval,
        )


"""
## What to expect

An untrained lander tumbles and crashes, for a return well below zero. The first thing it learns is not to
tumble, the second is to hover, which is safe but burns fuel until the time runs out, the third to come
down. Gymnasium calls the task solved at a mean return of
200. `valid-metrics/reward` is the curve to watch; `docs/metrics.md` explains the others.
"""
