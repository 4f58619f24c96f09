r"""Choosing in two steps, and learning from a teacher.

Some actions fall into parts: first decide to grasp, then where; first choose a tool, then what to do with
it. This tutorial splits the actions of the room in `minigrid_tutorial.py` artificially into two choices and
learns both, the second one *given the first*. On the way it shows three things that any experiment may need:
an action space with named parts, an expert that is imitated, and *teacher forcing*, in which the expert plays
in the agent's place at first and less and less often later.

Read `minigrid_tutorial.py` first; this file changes its task, its model and its training, and keeps the rest.
It needs the `minigrid` extra too.

    PYTHONPATH=. python allenact/main.py minigrid_tutorial_conds -b projects/tutorials \
        -o experiment_output/minigrid -s 12345

and, to see how well the *expert* does, with the agent only looking on:

    PYTHONPATH=. python allenact/main.py minigrid_tutorial_conds -b projects/tutorials \
        -m 1 -o experiment_output/minigrid -s 12345 --test_expert \
        --eval --checkpoint experiment_output/minigrid/checkpoints/MiniGridTutorialConds/START_DATE
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from gymnasium.spaces import Box, Dict, Discrete
from minigrid.core.actions import Actions
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.imitation import Imitation
from allenact.algorithms.onpolicy_sync.losses.ppo import PPO, PPOConfig
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel, ObservationType
from allenact.base_abstractions.distributions import CategoricalDistr, ConditionalDistr, SequentialDistr
from allenact.base_abstractions.experiment_config import TaskSampler
from allenact.base_abstractions.misc import ActorCriticOutput, Memory, RLStepResult
from allenact.base_abstractions.sensor import ExpertActionSensor, SensorSuite
from allenact.utils.experiment_utils import Builder, LinearDecay, PipelineStage, TrainingPipeline
from allenact_plugins.minigrid_plugin.minigrid_environments import grid_world
from allenact_plugins.minigrid_plugin.minigrid_models import MiniGridSimpleConvRNN
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask, MiniGridTaskSampler
from projects.tutorials.minigrid_tutorial import MiniGridTutorialExperimentConfig

"""
## An action with two parts

The agent first makes the choice `higher`: to turn (0) or to do something else (1). Then it makes the choice
`lower`: if it turns, left (0) or right (1); if not, forward (0) or, to have four combinations, an attempt
to pick something up (1), which in an empty room does nothing.

An action space with named parts is a `Dict` of spaces. The task gets an action as a dict with the same
names, and turns it into one of MiniGrid's.

The expert of `MiniGridTask` knows the shortest path in terms of the four actions. The framework asks for
each part separately and says which in `expert_sensor_group_name`, so we split the answer. Both parts have to
come from the same answer, which is why it is kept for the rest of the step.
"""

ACTION_SPACE = Dict({"higher": Discrete(2), "lower": Discrete(2)})


class ConditionedMiniGridTask(MiniGridTask):
    """A MiniGrid task whose action is a dict of two choices, `higher` and `lower`."""

    _ACTION_NAMES = ("left", "right", "forward", "pickup")
    _ACTION_IND_TO_MINIGRID_IND = tuple(Actions[name].value for name in _ACTION_NAMES)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._answer: tuple[int, bool] = (0, False)
        self._answered_at = -1  # the step of the environment that the answer belongs to

    @property
    def action_space(self) -> Dict:  # type: ignore[override]  # the parent's is discrete
        return ACTION_SPACE

    def _step(self, action: dict[str, int]) -> RLStepResult:
        return super()._step(2 * action["higher"] + action["lower"])

    def query_expert(self, *, expert_sensor_group_name: str, **kwargs: Any) -> tuple[int, bool]:
        step = grid_world(self.env).step_count
        if self._answered_at != step:  # both parts are of one answer
            self._answer, self._answered_at = super().query_expert(**kwargs), step
        action, success = self._answer
        if not success:
            return 0, False
        return (action // 2 if expert_sensor_group_name == "higher" else action % 2), True


"""
## A policy with two parts

The model of the first tutorial ends in a linear layer, its *head*, that turns what the recurrent network
knows into action probabilities and a value. Everything before the head can stay; we write another head.

It computes the probabilities of `higher` and the value as before. The probabilities of `lower` depend on
which `higher` was chosen, and that is not known yet when the head runs. So the head returns a recipe: a
`ConditionalDistr` holds a function that will be called with the choices made so far, here
`lower_policy(higher=...)`. A `SequentialDistr` puts the parts in order. To sample, it samples the first part,
hands it to the second, and so on; to compute the log-probability of an action, it does the same with the
action's parts and adds up.
"""


class ConditionedLinearActorCritic(ActorCriticModel[SequentialDistr]):
    """Linear critic, linear policy for `higher`, and a linear policy for `lower` given `higher`.

    Args:
        input_uuid: the observation, [T, N, features].
        action_space: dict of `higher` and `lower`, both discrete.
        observation_space: holds the observation.
    """

    def __init__(self, input_uuid: str, action_space: Dict, observation_space: Dict) -> None:
        super().__init__(action_space=action_space, observation_space=observation_space)
        self.input_uuid = input_uuid
        input_size = cast(Box, observation_space[input_uuid]).shape[0]
        num_higher, num_lower = (int(cast(Discrete, action_space[name]).n) for name in ("higher", "lower"))

        self.higher_and_critic = nn.Linear(input_size, num_higher + 1)
        self.embed_higher = nn.Embedding(num_higher, input_size)
        self.lower = nn.Linear(2 * input_size, num_lower)
        for layer in (self.higher_and_critic, self.lower):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _recurrent_memory_specification(self) -> None:
        return None

    def forward(
        self, observations: ObservationType, memory: Memory, prev_actions: Any, masks: torch.Tensor
    ) -> tuple[ActorCriticOutput[SequentialDistr], None]:
        features = cast(torch.Tensor, observations[self.input_uuid])  # [T, N, features]
        higher_and_value = self.higher_and_critic(features)  # [T, N, 2 + 1]

        def lower_policy(higher: torch.Tensor) -> CategoricalDistr:
            given = torch.cat([features, self.embed_higher(higher)], dim=-1)  # [T, N, 2 * features]
            return CategoricalDistr(logits=self.lower(given))

        policy = SequentialDistr(
            ConditionalDistr(CategoricalDistr(logits=higher_and_value[..., :-1]), "higher"),
            ConditionalDistr(lower_policy, "lower"),
        )
        return ActorCriticOutput(distributions=policy, values=higher_and_value[..., -1:], extras={}), None


class ConditionedMiniGridSimpleConvRNN(MiniGridSimpleConvRNN):
    """The first tutorial's model with the head above."""

    def __init__(self, *args: Any, head_type: Callable[..., Any] = ConditionedLinearActorCritic, **kwargs: Any) -> None:
        super().__init__(*args, head_type=head_type, **kwargs)


class MiniGridTutorialCondsExperimentConfig(MiniGridTutorialExperimentConfig):
    """Imitation, then PPO, with an action of two parts; arguments as in the first tutorial."""

    @classmethod
    def tag(cls) -> str:
        return "MiniGridTutorialConds"

    """
    ## A teacher in the observations

    What the expert would do is an observation like any other, `expert_action`. It knows the parts from the
    action space, and holds for each part the expert's choice and whether the expert had one.
    """

    SENSORS = [
        EgocentricMiniGridSensor(agent_view_size=5, view_channels=3),
        ExpertActionSensor(action_space=ACTION_SPACE),
    ]

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        view = cast(EgocentricMiniGridSensor, cls.SENSORS[0])
        return ConditionedMiniGridSimpleConvRNN(
            action_space=ACTION_SPACE,
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            num_objects=view.num_objects,
            num_colors=view.num_colors,
            num_states=view.num_states,
        )

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return MiniGridTaskSampler(env_class=cls.make_env, env_info={}, task_class=ConditionedMiniGridTask, **kwargs)

    """
    ## Imitation first, PPO throughout

    Two losses are added up. `Imitation` raises the probability of what the expert would do, part by part, in
    every state that was visited. `PPO` works as before; it only has to be told which entropy to use, since
    the entropy of a sequence of choices is not available in closed form, while the sum of the entropies of
    the parts, given the choices that were made, is.

    Which states are visited is up to whoever acts. With probability `teacher_forcing(steps)` that is the
    expert, separately for each sampler, step and part. The probability falls from 1 to 0 in the first half of the
    stage, so that the agent first sees what success looks like and later learns from its own mistakes.
    """

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        ppo_steps = self.total_steps
        return TrainingPipeline(
            named_losses={
                "imitation_loss": Imitation(cast(ExpertActionSensor, self.SENSORS[1])),
                "ppo_loss": Builder(PPO, {"entropy_method_name": "conditional_entropy"}, default=PPOConfig),
            },
            pipeline_stages=[
                PipelineStage(
                    loss_names=["imitation_loss", "ppo_loss"],
                    max_stage_steps=ppo_steps,
                    teacher_forcing=LinearDecay(startp=1.0, endp=0.0, steps=ppo_steps // 2),
                )
            ],
            optimizer_builder=Builder(optim.Adam, {"lr": self.learning_rate}),
            lr_scheduler_builder=Builder(LambdaLR, {"lr_lambda": LinearDecay(steps=ppo_steps)}),
            num_steps=self.num_steps,
            num_mini_batch=self.num_mini_batch,
            update_repeats=self.update_repeats,
            max_grad_norm=0.5,
            gamma=0.99,
            use_gae=True,
            gae_lambda=0.95,
            advance_scene_rollout_period=None,
            save_interval=self.save_interval,
            metric_accumulate_interval=self.metric_interval,
        )


"""
## What to expect

At the beginning the expert acts, so `train-metrics/ep_length` is that of shortest paths, below five, and
`train-misc/teacher_ratio/enforced` is near 1. As the teacher withdraws, episodes get a little longer, unless
the agent has already learned to do the same; the imitation losses `higher_cross_entropy` and
`lower_cross_entropy` tell how far it has come.
"""
