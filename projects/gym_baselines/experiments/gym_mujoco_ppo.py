"""The modern PPO recipe for MuJoCo tasks; every part of it can be switched off by name."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Box
from torch import nn, optim

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.base_abstractions.sensor import SensorSuite
from allenact.utils.experiment_utils import Builder, GeometricDecay, PipelineStage, TrainingPipeline
from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic
from projects.gym_baselines.experiments.gym_base import GymBaseConfig


class GymMuJoCoModernPPOConfig(GymBaseConfig):
    """Short rollouts of many samplers, normalised observations and returns, and a rate that follows the policy.

    Most settings are those of rl_games for Ant (Makoviichuk and Makoviychuk, 2021). What differs:

    - Mini-batches are half as large.
    - The policy is compared with the one that acted; rl_games compares it, on each mini-batch, with that of the pass
      before, so its target of 0.008 is another quantity than `kl_target`, and a stricter one here.
    - The target falls: large steps early, which find out how to walk, and small ones later, which cost no falls.
    - The first standard deviation is 0.37 and not 1. Random actions of 1 cost an ant more than it is paid for staying
      upright.
    - The moments of the values are updated after an update, from the returns; in rl_games before it, from the values
      predicted when acting and the returns.
    - Normalised returns are not clamped; in rl_games to [-5, 5].
    - An episode that the time limit cuts is worth the value of its final observation; in rl_games that of the
      observation before.

    Args:
        total_steps: environment steps to train for, summed over all samplers; None: `TOTAL_STEPS`.
        save_interval: environment steps between checkpoints; each checkpoint is also validated. The default is the
            whole number of rollouts that comes nearest to half a million.
        metric_interval: environment steps between two lines in the log.
        num_samplers: task samplers.
        num_steps: length of one rollout, in steps of each sampler.
        num_mini_batch: mini-batches in each pass over a rollout.
        mini_batches_over: "steps" or "samplers"; see `TrainingSettings`.
        update_repeats: passes over each rollout.
        lr: learning rate, at first where `kl_target` is given.
        kl_target: nats, at first if it falls; None: a constant learning rate. See `TrainingSettings`, also for
            `kl_judged` and `kl_stop`.
        kl_target_end: nats, to which a higher target falls geometrically over `kl_target_steps`; None: it stays.
        kl_target_steps: environment steps; None: `KL_TARGET_STEPS`.
        kl_judged: "mini_batch", "pass" or "update".
        kl_stop: nats; None: all passes are made.
        max_grad_norm: the 2-norm to which the whole gradient is clipped.
        gamma: discount per environment step; None: `GAMMA`.
        gae_lambda: of the advantage estimates.
        bootstrap_truncated: whether an episode that the time limit cuts is worth more than was paid.
        clip_param: range of the probability ratio, and of the values if they are clipped.
        use_clipped_value_loss: whether they are.
        value_loss_coef: weight of half the squared error of the normalised values.
        entropy_coef: weight of the entropy bonus.
        unit_actions: whether actions are clipped to [-1, 1] and stretched to the range of the motors.
        initial_log_std: logarithm of the standard deviation of every entry of the action, at first.
        model: further arguments of `NormalizedActorCritic`.

    Attributes:
        NUM_ACTIONS: entries of an action.
        TOTAL_STEPS: environment steps where `total_steps` is not given; measured for Ant only, elsewhere a guess.
        KL_TARGET_STEPS: over which the KL target falls. Small steps are wanted sooner where less is to be learned, and
            where an action has few entries, each of which then moves further for the same divergence.
        GAMMA: discount per environment step.
    """

    NUM_ACTIONS: int
    TOTAL_STEPS = 5_000_000
    KL_TARGET_STEPS = 3_000_000
    GAMMA = 0.99

    def __init__(
        self,
        *,
        total_steps: int | None = None,
        save_interval: int = 122 * 4096,
        metric_interval: int = 50_000,
        num_samplers: int = 64,
        num_steps: int = 64,
        num_mini_batch: int = 4,
        mini_batches_over: str = "steps",
        update_repeats: int = 4,
        lr: float = 3e-4,
        kl_target: float | None = 0.05,
        kl_target_end: float | None = 0.01,
        kl_target_steps: int | None = None,
        kl_judged: str = "mini_batch",
        kl_stop: float | None = None,
        max_grad_norm: float = 1.0,
        gamma: float | None = None,
        gae_lambda: float = 0.95,
        bootstrap_truncated: bool = True,
        clip_param: float = 0.2,
        use_clipped_value_loss: bool = True,
        value_loss_coef: float = 2.0,
        entropy_coef: float = 0.0,
        unit_actions: bool = True,
        initial_log_std: float = -1.0,
        model: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.total_steps = self.TOTAL_STEPS if total_steps is None else total_steps
        self.num_samplers = num_samplers
        self.lr = lr
        self.unit_actions = unit_actions
        self.model = {"initial_log_std": initial_log_std, **(model or {})}
        self.loss = PPO(
            clip_param=clip_param,
            value_loss_coef=value_loss_coef,
            entropy_coef=entropy_coef,
            use_clipped_value_loss=use_clipped_value_loss,
        )
        self.settings: dict[str, Any] = {
            "num_steps": num_steps,
            "num_mini_batch": num_mini_batch,
            "mini_batches_over": mini_batches_over,
            "update_repeats": update_repeats,
            "max_grad_norm": max_grad_norm,
            "gamma": self.GAMMA if gamma is None else gamma,
            "use_gae": True,
            "gae_lambda": gae_lambda,
            "bootstrap_truncated": bootstrap_truncated,
            "kl_target": _falling(
                kl_target, kl_target_end, self.KL_TARGET_STEPS if kl_target_steps is None else kl_target_steps
            ),
            "kl_judged": kl_judged,
            "kl_stop": kl_stop,
            "advance_scene_rollout_period": None,
            "save_interval": save_interval,
            "metric_accumulate_interval": metric_interval,
        }

    @classmethod
    def tag(cls) -> str:
        return f"Gym-MuJoCo-{cls.ENV_NAME}-Modern-PPO"

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"ppo_loss": self.loss},
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=self.total_steps)],
            optimizer_builder=Builder(optim.Adam, {"lr": self.lr}),
            **self.settings,
        )

    def create_model(self, **kwargs: Any) -> nn.Module:
        return NormalizedActorCritic(
            input_uuid="gym_mujoco_data",
            action_space=Box(-1.0, 1.0, (self.NUM_ACTIONS,)),
            observation_space=SensorSuite(self.SENSORS).observation_spaces,
            **self.model,
        )

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        return {"nprocesses": self.num_samplers if mode == "train" else 1, "devices": []}

    def train_task_sampler_args(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().train_task_sampler_args(*args, **kwargs), "gym_env_kwargs": self._env_kwargs()}

    def valid_task_sampler_args(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().valid_task_sampler_args(*args, **kwargs), "gym_env_kwargs": self._env_kwargs()}

    def _env_kwargs(self) -> dict[str, Any]:
        return {"unit_actions": True} if self.unit_actions else {}


def _falling(start: float | None, end: float | None, steps: int) -> float | GeometricDecay | None:
    return start if start is None or end is None or start <= end else GeometricDecay(steps, start, end)
