r"""Finding a goal in a small room.

An agent stands somewhere in an empty room of 3 x 3 cells, looking in some direction. A green cell in the
bottom right corner is the goal. The agent can turn left, turn right and go forward; it sees the cells in
front of it, and is paid for standing on the goal, more if it gets there sooner. In this tutorial it learns
to walk straight to the goal, in a few minutes on a laptop.

The task is small, but it has what larger ones have: a partial view, and rewards that come once, at the end.
It is the quickest way to see the whole framework at work. It needs the `minigrid` extra:

    pip install -e ".[minigrid]"

## The three commands

Train, with seed 12345 (`-s`) and as many processes for the tasks as there are cores (`-m` would say how many at most):

    PYTHONPATH=. python allenact/main.py minigrid_tutorial -b projects/tutorials \
        -o experiment_output/minigrid -s 12345

Watch, while it trains:

    tensorboard --logdir experiment_output/minigrid

Evaluate every checkpoint of a run. `START_DATE` is the name of the folder that training made:

    PYTHONPATH=. python allenact/main.py minigrid_tutorial -b projects/tutorials \
        -m 1 -o experiment_output/minigrid -s 12345 \
        --eval --checkpoint experiment_output/minigrid/checkpoints/MiniGridTutorial/START_DATE

To see the whole path work in seconds, add `--config_kwargs configs/minigrid/smoke.json` to the first and the
last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium.spaces import Discrete
from minigrid.envs import EmptyEnv
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO, PPOConfig
from allenact.base_abstractions.experiment_config import ExperimentConfig, TaskSampler
from allenact.base_abstractions.sensor import SensorSuite
from allenact.utils.experiment_utils import Builder, LinearDecay, PipelineStage, TrainingPipeline
from allenact_plugins.minigrid_plugin.minigrid_models import MiniGridSimpleConvRNN
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask, MiniGridTaskSampler


class MiniGridTutorialExperimentConfig(ExperimentConfig):
    """PPO in a room of 3 x 3 cells (5 x 5 with its walls).

    Args:
        total_steps: environment steps to train for, summed over all samplers; the learning rate ends at 0.
        num_steps: length of one rollout, in steps of each sampler.
        num_train_samplers: rooms in which experience is gathered side by side.
        num_eval_samplers: rooms played side by side in validation and test.
        num_mini_batch: groups that the samplers are split into for one gradient step each.
        update_repeats: passes over each rollout.
        save_interval: environment steps between checkpoints; each checkpoint is also validated.
        metric_interval: environment steps between two lines in the log; 1 means one line for each rollout.
        num_valid_tasks: episodes of each sampler in validation; twice as many are played in test.
        learning_rate: of Adam, at the start.
    """

    def __init__(
        self,
        *,
        total_steps: int = 150_000,
        num_steps: int = 16,
        num_train_samplers: int = 128,
        num_eval_samplers: int = 16,
        num_mini_batch: int = 4,
        update_repeats: int = 3,
        save_interval: int = 10_000,
        metric_interval: int = 1,
        num_valid_tasks: int = 20,
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.num_steps = num_steps
        self.num_train_samplers = num_train_samplers
        self.num_eval_samplers = num_eval_samplers
        self.num_mini_batch = num_mini_batch
        self.update_repeats = update_repeats
        self.save_interval = save_interval
        self.metric_interval = metric_interval
        self.num_valid_tasks = num_valid_tasks
        self.learning_rate = learning_rate

    @classmethod
    def tag(cls) -> str:
        return "MiniGridTutorial"

    """
    ## What the agent sees

    The sensor returns the 5 x 5 cells in front of the agent, itself in the middle of the last row. Each cell
    is three small numbers: which kind of object, which colour, which state (of doors). In this room one
    channel would do, but the model below takes all three.
    """

    SENSORS = [EgocentricMiniGridSensor(agent_view_size=5, view_channels=3)]

    """
    ## The model

    Numbers that stand for kinds of objects are no quantities, so each channel of each cell goes through an
    embedding, a learned table with eight numbers for each kind. The embeddings of the whole view are the input
    of a recurrent network (a GRU), whose state is the agent's memory, and two linear layers on top give the
    probabilities of the actions and the expected return. The sensor knows how large the tables have to be.
    """

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        view = cls.SENSORS[0]
        return MiniGridSimpleConvRNN(
            action_space=Discrete(len(MiniGridTask.class_action_names())),
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            num_objects=view.num_objects,
            num_colors=view.num_colors,
            num_states=view.num_states,
        )

    """
    ## Where tasks come from

    One task is one episode. A sampler owns one environment and hands out tasks in it, one after the other;
    what tells them apart is the seed that the environment is reset with. MiniGrid's empty room of size 5
    counts the walls, and `agent_start_pos=None` puts the agent on a random cell.
    """

    @staticmethod
    def make_env(**kwargs: Any) -> EmptyEnv:
        return EmptyEnv(size=5, agent_start_pos=None, **kwargs)

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return MiniGridTaskSampler(env_class=cls.make_env, env_info={}, **kwargs)

    """
    Training tasks never run out and are all different. Each sampler has a seed of its own, derived from
    `-s`, so a run depends on its seed and not on how many processes carried it out.
    """

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

    """
    Validation and test play the same tasks every time, so that two checkpoints can be compared. Sampler `i`
    plays its own `num_tasks` seeds, once each, in order: 16 samplers play 320 tasks for each validation.
    """

    def _evaluation_args(self, process_ind: int, seeds: Sequence[int] | None, num_tasks: int) -> dict[str, Any]:
        first = process_ind * num_tasks
        return {
            "sensors": self.SENSORS,
            "max_tasks": num_tasks,
            "task_seeds_list": list(range(first, first + num_tasks)),
            "deterministic_sampling": True,
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
        return self._evaluation_args(process_ind, seeds, num_tasks=self.num_valid_tasks)

    def test_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        return self._evaluation_args(process_ind, seeds, num_tasks=2 * self.num_valid_tasks)

    """
    ## Which machine does the work

    A step in this room costs microseconds, so many samplers are cheap: 128 rooms in training, spread over the
    processes that `-m` allows. No `devices` means the CPU.
    """

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        return {
            "nprocesses": self.num_train_samplers if mode == "train" else self.num_eval_samplers,
            "devices": [],
        }

    """
    ## How the model is trained

    One stage of PPO, until `total_steps`. An iteration goes like this.

    1. The 128 samplers take 16 steps each: a rollout of 2048 environment steps.
    2. Returns and advantages are computed backwards through the rollout.
    3. The rollout is visited three times, each time in four mini-batches of 32 samplers, so there are twelve
       gradient steps of 512 environment steps each. A mini-batch holds whole sequences of 16 steps, because
       the recurrent network has to be run through them in order.
    4. The learning rate takes one step down its line to 0.

    74 iterations take 151,552 steps, the first multiple of 2048 above 150,000. A checkpoint is written after
    every fifth iteration and at the end.
    """

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"ppo_loss": Builder(PPO, default=PPOConfig)},
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=self.total_steps)],
            optimizer_builder=Builder(optim.Adam, {"lr": self.learning_rate}),
            lr_scheduler_builder=Builder(LambdaLR, {"lr_lambda": LinearDecay(steps=self.total_steps)}),
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

`train-metrics/success` is the share of episodes that end on the goal, and rises towards 1 within the run.
`train-metrics/ep_length` falls from tens of steps to about five, and `train-metrics/reward`, which is
`1 - 0.9 * steps / 100` for an episode that ends on the goal, follows.

## What to try next

- Another room: any environment of `minigrid.envs`, from `make_env`. `CrossingEnv` has rivers of lava.
- A model without memory: `allenact_plugins/minigrid_plugin/configs/minigrid_nomemory.py` changes one method
  of this class.
- A teacher: `MiniGridTask` knows the shortest path. `minigrid_tutorial_conds.py` imitates it.
"""
