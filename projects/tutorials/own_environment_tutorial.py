r"""An environment of your own.

Apples fall into a field, one after the other, and a basket at the bottom is to catch them. The episode ends with
the first apple that is missed. The environment is defined in this file, so is the model, and the experiment beside
them: everything that you need to train something new, in one file that you can copy and change. A basket that
catches everything takes less than a minute on one core.

## The three commands

Train, with seed 0 (`-s`), at most one process for the tasks (`-m`), and the most likely action instead of a sampled
one in validation (`-e`):

    allenact own_environment_tutorial -b projects/tutorials -m 1 -o experiment_output -s 0 -e

Draw its curves, to `curves.png`:

    python scripts/plot_runs.py experiment_output

Evaluate every checkpoint and record videos. `START_DATE` is the name of the folder that training made:

    allenact own_environment_tutorial -b projects/tutorials -m 1 -o experiment_output -s 0 -e \
        --eval --checkpoint experiment_output/checkpoints/OwnEnvironmentTutorial/START_DATE

Your own copy may lie anywhere: `allenact path/to/my_experiment.py -o somewhere` runs it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.experiment_config import ExperimentConfig, TaskSampler
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.base_abstractions.sensor import SensorSuite
from allenact.utils.experiment_utils import Builder, LinearDecay, PipelineStage, TrainingPipeline
from allenact.utils.viz_utils import AgentViewViz, VizSuite
from allenact_plugins.gym_plugin.gym_sensors import GymSensor
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler

"""
## The environment

It is an ordinary [gymnasium environment](https://gymnasium.farama.org/introduction/create_custom_env/): nothing in
it knows of AllenAct. Four things deserve attention.

- All chance comes from `self.np_random`, which `super().reset(seed=seed)` seeds. That is what makes a run a
  function of its seed, and validation the same episodes every time.
- Observations are float32 arrays, of the order of 1.
- `step` says *terminated* when the task is over, here with a missed apple. A time limit is no business of the
  environment: it is registered below, and gymnasium says *truncated* when it is reached.
- `render` returns a picture, an array [height, width, 3] of bytes, if `render_mode` is "rgb_array". Videos need it,
  training does not.

Three things are optional. What `metrics()` returns at the end of an episode is logged under these names.
`was_successful` decides what counts as a success; without it, a positive return does. And `state_dict` and
`load_state_dict` say all that decides the rest of an episode, and take it over: with them a run that is resumed equals
one that was never interrupted. Without them its episodes begin anew, and the log says so.
"""


class AppleField(gymnasium.Env[np.ndarray, int]):
    """A field from -1 to 1, an apple that falls through it in 25 steps, and a basket 0.3 wide.

    The observation is four numbers: position of the basket, position and height of the apple (1 at the top, -1 at the
    bottom), and how far the wind will carry it before it lands. The actions are left, stay and right; a step is 0.1.
    Each apple that is caught is worth 1.

    Args:
        render_mode: "rgb_array" if pictures will be wanted.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = Box(-2.0, 2.0, (4,), np.float32)
    action_space = Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.basket = 0.0
        self.num_caught = self.num_moves = self.num_steps = 0
        self._next_apple()
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.basket = min(max(self.basket + 0.1 * (action - 1), -1.0), 1.0)
        self.apple += self.wind
        if abs(self.apple) > 1.0:  # a fence on both sides
            self.apple -= 2 * self.wind
            self.wind = -self.wind
        self.steps_to_ground -= 1
        self.num_moves += int(action != 1)
        self.num_steps += 1
        if self.steps_to_ground > 0:
            return self._observation(), 0.0, False, False, {}
        caught = abs(self.apple - self.basket) <= 0.15
        if caught:
            self.num_caught += 1
            self._next_apple()
        return self._observation(), float(caught), not caught, False, {}

    def render(self) -> np.ndarray:  # type: ignore[override]  # of all that gymnasium allows, this is an array
        picture = np.full((200, 200, 3), (215, 235, 250), np.uint8)
        x, y = int(100 + 80 * self.apple), int(100 - 90 * self._height())
        picture[max(y - 6, 0) : y + 6, x - 6 : x + 6] = (200, 40, 40)
        x = int(100 + 80 * self.basket)
        picture[188:, x - 12 : x + 12] = (120, 80, 40)
        return picture

    def metrics(self) -> dict[str, float]:
        """Returns what is logged about an episode beside its length, reward and success."""
        return {"apples": self.num_caught, "share_of_moves": self.num_moves / max(self.num_steps, 1)}

    @property
    def was_successful(self) -> bool:
        """Whether ten apples were caught."""
        return self.num_caught >= 10

    def state_dict(self) -> dict[str, Any]:
        names = ("basket", "apple", "wind", "steps_to_ground", "num_caught", "num_moves", "num_steps")
        return {"generator": self.np_random.bit_generator.state, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.np_random.bit_generator.state = state["generator"]
        vars(self).update({name: value for name, value in state.items() if name != "generator"})

    def _next_apple(self) -> None:
        self.steps_to_ground = 25
        self.apple = self.np_random.uniform(-1.0, 1.0)
        self.wind = self.np_random.uniform(-0.05, 0.05)

    def _height(self) -> float:
        return 2 * self.steps_to_ground / 25 - 1

    def _observation(self) -> np.ndarray:
        return np.array([self.basket, self.apple, self._height(), 25 * self.wind], np.float32)


"""
Registering gives the class a name, by which sensor and sampler make it, and its time limit: 500 steps are twenty
apples. It is done where the file is imported, because processes that step tasks import it, too.
"""

gymnasium.register("AppleField-v0", entry_point=AppleField, max_episode_steps=500)


"""
## The model

Any `ActorCriticModel` will do. `forward` gets the observations of T steps of N samplers and returns a distribution
over actions and a value for each of them. One of n choices is a `CategoricalDistr`, made from n logits. No memory
is needed, so its specification is None, and so is the memory that goes in and comes out.
"""


class Catcher(ActorCriticModel[CategoricalDistr]):
    """Two layers of 64 for the action, and two for the value.

    Args:
        uuid: sensor that gives the observation, a vector.
        action_space: how many choices there are.
        observation_space: dict space with `uuid`.
    """

    def __init__(self, uuid: str, action_space: Discrete, observation_space: Dict) -> None:
        super().__init__(action_space, observation_space)
        self.uuid = uuid
        (size,) = observation_space[uuid].shape or ()
        self.actor = self._network(size, int(action_space.n))
        self.critic = self._network(size, 1)

    @staticmethod
    def _network(size_in: int, size_out: int) -> nn.Sequential:
        hidden = [nn.Linear(size_in, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(64, size_out))

    def _recurrent_memory_specification(self) -> None:
        return None

    def forward(
        self, observations: Any, memory: Memory, prev_actions: Any, masks: Tensor
    ) -> tuple[ActorCriticOutput[CategoricalDistr], Memory | None]:
        x = observations[self.uuid]  # [T, N, 4]
        choice = CategoricalDistr(logits=self.actor(x))  # of 3, [T, N]
        return ActorCriticOutput(choice, self.critic(x), {}), None  # the values are [T, N, 1]


"""
## The experiment

The constructor takes what may be changed without editing the file, as in
`--config_kwargs total_steps=500000`.
"""


class OwnEnvironmentTutorialExperimentConfig(ExperimentConfig):
    """PPO in the field of apples.

    Args:
        total_steps: environment steps to train for, summed over all samplers; the learning rate ends at 0.
        num_steps: length of one rollout, in steps of each sampler.
        num_train_samplers: fields in which experience is gathered side by side.
        save_interval: environment steps between checkpoints; each checkpoint is also validated.
        metric_interval: environment steps between two lines in the log.
        num_eval_tasks: episodes per validation and test.
        learning_rate: of Adam, at the start.
    """

    def __init__(
        self,
        *,
        total_steps: int = 200_000,
        num_steps: int = 128,
        num_train_samplers: int = 16,
        save_interval: int = 40_000,
        metric_interval: int = 10_000,
        num_eval_tasks: int = 20,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.num_steps = num_steps
        self.num_train_samplers = num_train_samplers
        self.save_interval = save_interval
        self.metric_interval = metric_interval
        self.num_eval_tasks = num_eval_tasks
        self.learning_rate = learning_rate

    @classmethod
    def tag(cls) -> str:
        return "OwnEnvironmentTutorial"

    """
    ## What the agent sees

    `GymSensor` hands over what `reset` and `step` return. `uuid` is the name under which the model finds it.
    """

    SENSORS = [GymSensor("AppleField-v0", uuid="field")]

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        return Catcher("field", AppleField.action_space, SensorSuite(cls.SENSORS).observation_spaces)

    """
    ## Where tasks come from

    `GymTaskSampler` makes the environment by its name and hands out its episodes as tasks. It looks at the action
    space to know which kind of task that is: actions that are vectors reach `step` as arrays, choices as numbers.

    In training, each sampler draws a new seed for every episode, for ever. In validation and test, sampler `i` plays
    a list of seeds of its own, once each, in order, so that two checkpoints can be compared. The framework calls
    these methods with five keywords, of which we need one.
    """

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return GymTaskSampler("AppleField-v0", sensors=cls.SENSORS, **kwargs)

    def train_task_sampler_args(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def valid_task_sampler_args(self, process_ind: int, *args: Any, **kwargs: Any) -> dict[str, Any]:
        first = process_ind * self.num_eval_tasks
        return {
            "max_tasks": self.num_eval_tasks,
            "task_seeds_list": list(range(first, first + self.num_eval_tasks)),
            "deterministic_sampling": True,
        }

    def test_task_sampler_args(self, process_ind: int, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.valid_task_sampler_args(process_ind)

    """
    ## Which machine does the work

    Sixteen fields in training, on the CPU. In test mode each episode is filmed.
    """

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        video = AgentViewViz(label="episode_vid", vector_task_source=("render", {"mode": "rgb_array"}), fps=30)
        return {
            "nprocesses": self.num_train_samplers if mode == "train" else 1,
            "devices": [],
            "visualizer": VizSuite(mode="test", video=video) if mode == "test" else None,
        }

    """
    ## How the model is trained

    One stage of PPO. A rollout of 16 samplers times 128 steps is visited four times, each time in four mini-batches of
    512 steps. Values are not clipped: PPO would let them change by 0.2 in a rollout, which is slow where returns are
    large. `bootstrap_truncated` says that a basket which is still catching when the time is up would have gone
    on: an episode that was truncated is worth more than what was paid, one that terminated is not.
    """

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        loss = PPO(clip_param=0.2, value_loss_coef=0.5, entropy_coef=0.01, use_clipped_value_loss=False)
        return TrainingPipeline(
            named_losses={"ppo_loss": loss},
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=self.total_steps)],
            optimizer_builder=Builder(optim.Adam, {"lr": self.learning_rate}),
            lr_scheduler_builder=Builder(LambdaLR, {"lr_lambda": LinearDecay(steps=self.total_steps)}),
            num_steps=self.num_steps,
            num_mini_batch=4,
            mini_batches_over="steps",
            update_repeats=4,
            max_grad_norm=0.5,
            gamma=0.99,
            use_gae=True,
            gae_lambda=0.95,
            bootstrap_truncated=True,
            advance_scene_rollout_period=None,
            save_interval=self.save_interval,
            metric_accumulate_interval=self.metric_interval,
        )


"""
## What to expect

In 500 steps 20 apples fall. `valid-metrics/apples`, the mean over 20 episodes, was, for the seeds 0, 1 and 2:

| environment steps | apples caught |
|---|---|
| 40,960 | 5.4, 3.1, 8.8 |
| 81,920 | 20.0, 16.3, 15.6 |
| 122,880 | 20.0, 20.0, 19.6 |
| 200,704 | 20.0, 20.0, 20.0 |

It took 14 to 16 seconds of one core, not counting validation, which has a process of its own.
`train-metrics/reward` is lower than `valid-metrics/reward`, because in training the basket now and then tries something
else. [What each number means](../metrics.md).

## Is it right?

Before a long training, ask gymnasium whether your class is an environment, and the framework whether its episodes are
tasks: same seed, same episode; observations that fit their space; a state that brings the same rest of the episode.

    from gymnasium.utils.env_checker import check_env
    from allenact.testing.contracts import check_task_sampler
    from my_experiment import AppleField, OwnEnvironmentTutorialExperimentConfig as Config

    check_env(AppleField())
    check_task_sampler(lambda: Config.make_sampler_fn(**Config().valid_task_sampler_args(0)), check_render=True)

## Other environments

**One that gymnasium has.** Leave out the class and its registration, and use the registered name, say `CartPole-v1`,
and `Discrete(2)` for the model; after 100,000 environment steps, seeds 0 and 1 balanced the pole to the end in all 20
episodes. Environments of other packages are named `"package:Name-v0"`, which imports the package.

**Actions that are vectors.** Give the environment the action space `Box(-1.0, 1.0, (A,))`, and instead of `Catcher` use

    from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic

    NormalizedActorCritic("field", Box(-1.0, 1.0, (A,)), SensorSuite(cls.SENSORS).observation_spaces)

which makes Gaussians and normalises what it sees and predicts. Its actions are of the order of 1 and not limited. Where
the range is another one, wrappers stretch and clip, as for Pendulum's -2 to 2:

    gymnasium.register(
        "UnitPendulum-v0",
        entry_point="gymnasium.envs.classic_control:PendulumEnv",
        max_episode_steps=200,
        additional_wrappers=(RescaleAction.wrapper_spec(min_action=-1.0, max_action=1.0), ClipAction.wrapper_spec()),
    )

**Observations that are not vectors.** `additional_wrappers=(FlattenObservation.wrapper_spec(),)` makes one vector of
numbered states, tuples and dicts. Pictures stay bytes; `MiniGridSimpleConvRNN` and `RNNActorCritic` are models to start
from, for pictures and for memory.

Sensors, losses, models with memory and several stages, with code to copy: [extending](../extending.md).
"""
