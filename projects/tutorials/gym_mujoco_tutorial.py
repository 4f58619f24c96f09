r"""Teaching an ant to walk.

The ant is a torso with four legs and eight motors, simulated by MuJoCo. It is paid for speed in the
direction of x and for every step in which its torso stays at a sensible height, and charged for effort and
for contact forces. Nobody tells it what walking is. In this tutorial it finds out, with PPO, on an ordinary
CPU.

An AllenAct experiment is one Python file with one class in it. The class answers five questions: what does
the agent see, what is the model, where do tasks come from, which machine does the work, and how is the
model trained. The rest (stepping tasks in parallel, computing returns, saving, validating, logging) is the
framework's job. This file is both the text you are reading and the experiment itself, so everything you see
here is what runs.

## The three commands

Train, with at most eight processes for the tasks (`-m`), seed 0 (`-s`), and the most likely action instead
of a sampled one in validation (`-e`):

    PYTHONPATH=. python allenact/main.py gym_mujoco_tutorial -b projects/tutorials \
        -m 8 -o experiment_output -s 0 -e

Watch, while it trains:

    tensorboard --logdir experiment_output

Evaluate every checkpoint of a run and record videos. `START_DATE` is the name of the folder that training
made:

    PYTHONPATH=. python allenact/main.py gym_mujoco_tutorial -b projects/tutorials \
        -m 1 -o experiment_output -s 0 -e \
        --eval --checkpoint experiment_output/checkpoints/GymMuJoCoTutorial/START_DATE

The full recipe takes 30 million environment steps. To see the whole path work in seconds, add
`--config_kwargs configs/gym_mujoco/smoke.json` to the first and the last.
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
from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler

"""
## The experiment class

Only `tag` and the five answers below are required. The constructor is ours: every number that somebody may
want to change without editing the file is a keyword argument, and `--config_kwargs` fills it in, as
`total_steps=1000000` or from JSON. A keyword that does not exist is
refused, so a typing error cannot train the wrong thing for a day.
"""


class GymMuJoCoTutorialExperimentConfig(ExperimentConfig):
    """PPO on Ant-v2.

    Args:
        total_steps: environment steps to train for, summed over all samplers; the learning rate ends at 0.
        num_steps: length of one rollout, in steps of each sampler.
        num_train_samplers: ants that gather experience side by side.
        num_mini_batch: groups that the samplers are split into for one gradient step each.
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
        total_steps: int = 30_000_000,
        num_steps: int = 2048,
        num_train_samplers: int = 8,
        num_mini_batch: int = 4,
        update_repeats: int = 10,
        save_interval: int = 200_000,
        metric_interval: int = 50_000,
        num_eval_tasks: int = 4,
        max_video_length: int = -1,
        learning_rate: float = 3e-4,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.num_steps = num_steps
        self.num_train_samplers = num_train_samplers
        self.num_mini_batch = num_mini_batch
        self.update_repeats = update_repeats
        self.save_interval = save_interval
        self.metric_interval = metric_interval
        self.num_eval_tasks = num_eval_tasks
        self.max_video_length = max_video_length
        self.learning_rate = learning_rate

    """
    The tag names the folders of a run: `checkpoints/GymMuJoCoTutorial`, `tb/GymMuJoCoTutorial` and so on.
    """

    @classmethod
    def tag(cls) -> str:
        return "GymMuJoCoTutorial"

    """
    ## What the agent sees

    A sensor turns the state of a task into one observation. This one hands over the vector of the
    environment: 111 numbers for `Ant-v2`, 13 positions of the body and its joints, 14 velocities, and 84
    contact forces. The `uuid` is the name under which the model will find it.
    """

    SENSORS = [GymMuJoCoSensor("Ant-v2", uuid="gym_mujoco_data")]

    """
    ## The model

    Two small networks that share nothing: the actor maps an observation to the mean of a Gaussian over the
    eight motor torques, the critic maps it to the expected return. The standard deviation is fixed at 0.5,
    which is the exploration. There is no memory, because one observation already holds positions and
    velocities.
    """

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        return MemorylessActorCritic(
            input_uuid="gym_mujoco_data",
            action_space=Box(-3.0, 3.0, (8,)),
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            action_std=0.5,
            mlp_hidden_dims=(64, 32),
        )

    """
    ## Where tasks come from

    A task is one episode; a task sampler hands out one after the other. The framework builds each sampler
    by calling `make_sampler_fn` with the arguments that one of the three methods after it returned.
    """

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return GymTaskSampler(gym_env_type="Ant-v2", **kwargs)

    """
    Training tasks never run out and start from random states. Each sampler has a seed of its own, derived
    from `-s`, so a run depends on its seed and not on how many processes carried it out.
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
    Validation and test use the same few starting states every time, so that two checkpoints can be
    compared: sampler `i` plays the seeds `4 i` to `4 i + 3`, once each, in that order.
    """

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

    """
    ## Which machine does the work

    Eight ants train, one is validated beside them. No `devices` means the CPU, which for networks of this
    size is also the fastest place. In test mode a visualiser records each episode; the video appears in
    TensorBoard under "Images", as `test/episode_vid_group0`. Drawing takes longer than simulating;
    `max_video_length` limits it.
    """

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
    ## How the model is trained

    A pipeline is a list of stages, and this one has a single stage: PPO until `total_steps`. One iteration
    goes like this.

    1. The eight samplers take 2048 steps each: 16,384 environment steps.
    2. Returns and advantages are computed backwards through the rollout, with discount `gamma` and
       generalised advantage estimation ([Schulman et al., 2016](https://arxiv.org/abs/1506.02438)).
    3. The rollout is visited ten times, each time in four mini-batches of two samplers, so there are 40
       gradient steps. PPO ([Schulman et al., 2017](https://arxiv.org/abs/1707.06347)) stops rewarding a
       change of the policy once the probability of an action has moved by more than `clip_param`.
    4. The learning rate takes one step down its line to 0.

    An ant that is still standing after 1000 steps is stopped, and what it could have earned afterwards
    counts as nothing. That is how AllenAct has always done it, and this tutorial keeps it.
    `bootstrap_truncated=True` among the settings below treats the limit as what it is, the end of our
    patience rather than of the ant.
    """

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"ppo_loss": PPO(clip_param=0.2, value_loss_coef=0.5, entropy_coef=0.0)},
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

Each step pays 1 for staying at a sensible height, so an ant that stands still for 1000 steps earns 1000: do
not be impressed by a `valid-metrics/reward` of that size. Exploration costs as much as standing pays: noise
of standard deviation 0.5 on eight motors is charged 0.5 * 8 * 0.5² = 1 per step on average, however well the
ant walks. So `train-metrics/reward` starts near zero and keeps that handicap for ever, while
`valid-metrics/reward`, played without noise because of `-e`, does not have it. The second one is the number
to compare.

`docs/metrics.md` says what each curve means. What our runs reached, with the command for each number, is in
`benchmarks/README.md`.

## What to try next

- Another animal: replace `Ant-v2` and the size of the action space, or run one of the nine files in
  `projects/gym_baselines/experiments/mujoco`.
- Another length: `--config_kwargs total_steps=1000000`.
- Another policy: any `ActorCriticModel` may be returned by `create_model`; `MemorylessActorCritic` is short
  enough to start from.
"""
