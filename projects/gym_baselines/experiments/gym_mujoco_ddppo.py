"""The training recipe of the MuJoCo baselines."""

from __future__ import annotations

from typing import Any

from torch import optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.utils.experiment_utils import Builder, LinearDecay, PipelineStage, TrainingPipeline
from projects.gym_baselines.experiments.gym_mujoco_base import GymMuJoCoBaseConfig


class GymMuJoCoPPOConfig(GymMuJoCoBaseConfig):
    """PPO: rollouts of 8 * 2048 steps, ten passes over each in four mini-batches.

    Args:
        total_steps: environment steps to train for, summed over all samplers; the learning rate ends at 0.
        num_steps: length of one rollout, in steps of each sampler.
        update_repeats: passes over each rollout.
        save_interval: environment steps between checkpoints; each checkpoint is also validated.
        metric_interval: environment steps between two lines in the log.
    """

    def __init__(
        self,
        *,
        total_steps: int = 30_000_000,
        num_steps: int = 2048,
        update_repeats: int = 10,
        save_interval: int = 200_000,
        metric_interval: int = 50_000,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.num_steps = num_steps
        self.update_repeats = update_repeats
        self.save_interval = save_interval
        self.metric_interval = metric_interval

    @classmethod
    def tag(cls) -> str:
        return f"Gym-MuJoCo-{cls.ENV_NAME}-PPO"

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"ppo_loss": PPO(clip_param=0.2, value_loss_coef=0.5, entropy_coef=0.0)},
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=self.total_steps)],
            optimizer_builder=Builder(optim.Adam, {"lr": 3e-4}),
            lr_scheduler_builder=Builder(LambdaLR, {"lr_lambda": LinearDecay(steps=self.total_steps)}),
            num_steps=self.num_steps,
            num_mini_batch=4,
            update_repeats=self.update_repeats,
            max_grad_norm=0.5,
            gamma=0.99,
            use_gae=True,
            gae_lambda=0.95,
            advance_scene_rollout_period=None,
            save_interval=self.save_interval,
            metric_accumulate_interval=self.metric_interval,
        )
