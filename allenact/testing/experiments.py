"""A whole experiment on a toy task, which trains in a second; for tests of the framework, of plugins and of losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.imitation import Imitation
from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, LinearActorHead
from allenact.base_abstractions.distributions import ConditionalDistr, Distr, SequentialDistr
from allenact.base_abstractions.experiment_config import ExperimentConfig, MachineParams
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.base_abstractions.sensor import ExpertActionSensor, Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.embodiedai.models.basic_models import LinearActorCritic, RNNActorCritic
from allenact.pipeline.builder import Builder
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.pipeline.schedules import LinearDecay
from allenact.pipeline.stage import PipelineStage
from allenact.testing.tasks import (
    CopyTask,
    EndlessRewardTask,
    PushRightTask,
    RememberTask,
    ToySensor,
    ToyTask,
    ToyTaskSampler,
    toy_action_space,
)

TOYS: dict[str, type[ToyTask]] = {
    "copy": CopyTask,
    "push_right": PushRightTask,
    "remember": RememberTask,
    "endless": EndlessRewardTask,
}


class ToyExperiment(ExperimentConfig):
    """PPO, or imitation, on a toy task.

    Args:
        task: "copy", "push_right", "remember" or "endless".
        recurrent: whether the model has a memory.
        dict_actions: whether actions are `{"higher": ..., "lower": ...}`.
        stage_steps: environment steps of each stage.
        imitate: whether the first stage imitates the expert, with teacher forcing that ends with the stage.
        num_samplers: training samplers.
        num_steps: steps in a rollout of one sampler.
        max_steps: step limit of an episode.
        lr: learning rate at the start, which decays to 0 over all stages unless `constant_lr`.
        constant_lr: keeps the learning rate.
        save_interval: environment steps between two checkpoints.
        metric_interval: environment steps between two logs.
        num_eval_samplers: samplers of validation and test; 0: no validation.
        num_eval_tasks: tasks of each of them.
        use_clipped_value_loss: whether PPO clips the change of the value.
        **settings: any other training settings of the pipeline.
    """

    def __init__(
        self,
        task: str = "copy",
        *,
        recurrent: bool = False,
        dict_actions: bool = False,
        stage_steps: Sequence[int] = (128,),
        imitate: bool = False,
        num_samplers: int = 4,
        num_steps: int = 8,
        max_steps: int = 6,
        lr: float = 1e-2,
        constant_lr: bool = False,
        save_interval: int | None = 64,
        metric_interval: int = 32,
        num_eval_samplers: int = 2,
        num_eval_tasks: int = 3,
        use_clipped_value_loss: bool = True,
        **settings: Any,
    ) -> None:
        self.task_class = TOYS[task]
        self.recurrent = recurrent
        self.dict_actions = dict_actions
        self.stage_steps = list(stage_steps)
        self.imitate = imitate
        self.num_samplers = num_samplers
        self.max_steps = max_steps
        self.lr = lr
        self.constant_lr = constant_lr
        self.num_eval_samplers = num_eval_samplers
        self.num_eval_tasks = num_eval_tasks
        self.use_clipped_value_loss = use_clipped_value_loss
        defaults: dict[str, Any] = {
            "num_mini_batch": 2,
            "update_repeats": 2,
            "max_grad_norm": 0.5,
            "num_steps": num_steps,
            "gamma": 0.9,
            "use_gae": True,
            "gae_lambda": 0.95,
            "advance_scene_rollout_period": None,
            "save_interval": save_interval,
            "metric_accumulate_interval": metric_interval,
        }
        self.settings = {**defaults, **settings}

    def tag(self) -> str:
        """Returns the name of the experiment."""
        return "Toy"

    @property
    def action_space(self) -> gym.Space:
        """The action space of the toy."""
        return toy_action_space(self.task_class, self.dict_actions)

    @property
    def expert_sensor(self) -> ExpertActionSensor:
        """Shows the expert's action."""
        return ExpertActionSensor(self.action_space)

    @property
    def sensors(self) -> list[Sensor[Any, Any]]:
        """What the toy shows, and with imitation the expert's action."""
        sensors: list[Sensor[Any, Any]] = [ToySensor(self.task_class.observation_size)]
        return [*sensors, self.expert_sensor] if self.imitate else sensors

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        """Returns a stage of PPO for each entry of `stage_steps`; with imitation the first one imitates."""
        entropy = "conditional_entropy" if self.dict_actions else "entropy"
        ppo = PPO(0.2, 0.5, 0.0, use_clipped_value_loss=self.use_clipped_value_loss, entropy_method_name=entropy)
        losses: dict[str, Any] = {"ppo_loss": ppo}
        stages = [PipelineStage(loss_names=["ppo_loss"], max_stage_steps=steps) for steps in self.stage_steps]
        if self.imitate:
            losses["imitation_loss"] = Imitation(self.expert_sensor)
            stages[0] = PipelineStage(
                loss_names=["imitation_loss", "ppo_loss"],
                max_stage_steps=self.stage_steps[0],
                teacher_forcing=LinearDecay(steps=self.stage_steps[0], startp=1.0, endp=0.0),
            )
        decay = LinearDecay(steps=sum(self.stage_steps), startp=1.0, endp=1.0 if self.constant_lr else 0.0)
        schedule = Builder(LambdaLR, {"lr_lambda": decay})
        return TrainingPipeline(
            named_losses=losses,
            pipeline_stages=stages,
            optimizer_builder=Builder(optim.Adam, {"lr": self.lr}),
            lr_scheduler_builder=None if "kl_target" in self.settings else schedule,  # only one can set the rate
            **self.settings,
        )

    def machine_params(self, mode: str = "train", **kwargs: Any) -> MachineParams:
        """Returns the number of samplers of each mode; all on the CPU."""
        return MachineParams(nprocesses=self.num_samplers if mode == "train" else self.num_eval_samplers)

    def create_model(self, **kwargs: Any) -> ActorCriticModel[Any]:
        """Returns the smallest model that can do the task."""
        spaces = SensorSuite(self.sensors).observation_spaces
        if isinstance(self.action_space, (gym.spaces.Box, gym.spaces.Dict)):
            return ToyActorCritic(self.action_space, spaces)
        model = RNNActorCritic if self.recurrent else LinearActorCritic
        extra: dict[str, Any] = {"hidden_size": 16} if self.recurrent else {}
        return model("toy", self.action_space, spaces, **extra)

    def make_sampler_fn(self, **kwargs: Any) -> TaskSampler:
        """Returns a sampler of toy tasks."""
        return ToyTaskSampler(self.task_class, **kwargs)

    def _sampler_args(self, process_ind: int, seeds: list[int] | None, max_tasks: int | None) -> dict[str, Any]:
        return {
            "seed": None if seeds is None else seeds[process_ind],
            "max_steps": self.max_steps,
            "max_tasks": max_tasks,
            "dict_actions": self.dict_actions,
            "sensors": self.sensors,
        }

    def train_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Returns the arguments of an endless sampler."""
        return self._sampler_args(process_ind, seeds, None)

    def valid_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Returns the arguments of a finite sampler."""
        return self._sampler_args(process_ind, seeds, self.num_eval_tasks)

    test_task_sampler_args = valid_task_sampler_args


class ToyNormal(torch.distributions.Normal, Distr):
    """A Gaussian of each action dimension."""

    def mode(self) -> torch.Tensor:  # type: ignore[override]  # a property of torch's, a method of ours
        """Returns the mean."""
        return self.loc


class ToyActorCritic(ActorCriticModel[Any]):
    """A linear policy and value for Box actions, or for the dict actions of the toys."""

    def __init__(self, action_space: gym.Space, observation_space: gym.spaces.Dict) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        size = int(observation_space["toy"].shape[0])  # type: ignore[index]  # toys observe a vector
        self.critic = nn.Linear(size, 1)
        if isinstance(action_space, gym.spaces.Dict):
            self.higher: nn.Module = LinearActorHead(size, 2)
            self.lower: nn.Module = LinearActorHead(size + 1, int(action_space["lower"].n))  # type: ignore[attr-defined]  # Discrete
        else:
            self.actor = nn.Linear(size, int(action_space.shape[0]))  # type: ignore[index]  # Box of one dimension

    def _recurrent_memory_specification(self) -> None:
        return None

    def forward(
        self, observations: dict[str, Any], memory: Memory, prev_actions: Any, masks: torch.Tensor
    ) -> tuple[ActorCriticOutput[Any], Memory | None]:
        """Returns distributions and values [T, N, 1]."""
        x = observations["toy"]  # [T, N, O]
        distributions: Distr
        if isinstance(self.action_space, gym.spaces.Dict):
            distributions = SequentialDistr(
                ConditionalDistr(distr_conditioned_on_input_fn_or_instance=self.higher(x), action_group_name="higher"),
                ConditionalDistr(
                    distr_conditioned_on_input_fn_or_instance=partial(self._lower, x), action_group_name="lower"
                ),
            )
        else:
            mean = self.actor(x)  # [T, N, A]
            distributions = ToyNormal(mean, torch.full_like(mean, 0.5))
        return ActorCriticOutput(distributions=distributions, values=self.critic(x), extras={}), None

    def _lower(self, x: torch.Tensor, higher: torch.Tensor) -> Any:
        return self.lower(torch.cat((x, higher.unsqueeze(-1).to(x)), dim=-1))  # distribution over [T, N]
