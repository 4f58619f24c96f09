"""Toy tasks: each needs one ability of a learner, and none needs more than seconds.

| task | action | what must be learned |
| --- | --- | --- |
| `CopyTask` | Discrete | do what the observation shows |
| `PushRightTask` | Box | push a point to the right |
| `RememberTask` | Discrete | do at the end what only the first observation showed (needs memory) |
| `EndlessRewardTask` | Discrete | nothing: reward 1 for ever, cut by a time limit; V = 1 / (1 - gamma) |

With `dict_actions=True` the action space is `Dict(higher=Discrete(2), lower=...)`: `lower` is the action above, and
counts only if `higher` is 1. Each task knows its expert action. All randomness is the sampler's generator.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task import Task, TaskSampler


class ToyWorld:
    """The state that sampler, tasks and sensors share.

    Attributes:
        rng: the sampler's generator.
        observation: [O] float32, what the sensor sees now.
        values: the task's own numbers, by name.
    """

    def __init__(self, observation_size: int) -> None:
        self.rng = np.random.default_rng()
        self.observation = np.zeros(observation_size, np.float32)
        self.values: dict[str, float] = {}

    def show(self, entry: int | None) -> None:
        """Makes the observation one-hot, or zero for None."""
        self.observation = np.zeros_like(self.observation)
        if entry is not None:
            self.observation[entry] = 1.0


class ToySensor(Sensor[ToyWorld, Any]):
    """What the world shows: [O] float32 between -1 and 1.

    Args:
        size: O, which is `observation_size` of the task class.
        uuid: its name.
    """

    def __init__(self, size: int, uuid: str = "toy") -> None:
        super().__init__(uuid, gym.spaces.Box(-1.0, 1.0, shape=(size,), dtype=np.float32))

    def get_observation(self, env: ToyWorld, task: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns a copy of the world's observation."""
        return env.observation.copy()


class ToyTask(Task[ToyWorld]):
    """What the toys have in common.

    Args:
        env: the sampler's world.
        sensors: what is observed.
        task_info: the episode's `id`.
        max_steps: environment steps after which the episode is cut.
        dict_actions: whether actions are `{"higher": 0 or 1, "lower": ...}`.
    """

    observation_size: int
    lower_action_space: gym.Space

    def __init__(
        self,
        env: ToyWorld,
        sensors: Any,
        task_info: dict[str, Any],
        max_steps: int,
        dict_actions: bool = False,
    ) -> None:
        super().__init__(env=env, sensors=sensors, task_info=task_info, max_steps=max_steps)
        self.dict_actions = dict_actions

    def begin(self) -> None:
        """Puts the world into the first state of a new episode."""
        raise NotImplementedError

    def play(self, action: Any) -> float:
        """Advances the world by one step and returns the reward; None stands for no action."""
        raise NotImplementedError

    def expert_action(self) -> Any:
        """Returns the best action (`lower` with a dict action space)."""
        raise NotImplementedError

    @property
    def action_space(self) -> gym.Space:
        """The toy's action space, or the dict space around it."""
        return toy_action_space(type(self), self.dict_actions)

    def _step(self, action: Any) -> RLStepResult:
        if self.dict_actions:
            action = action["lower"] if action["higher"] == 1 else None
        reward = self.play(action)
        return RLStepResult(self.get_observations(), reward, None, {})

    def reached_terminal_state(self) -> bool:
        """Whether the toy is over, limits aside."""
        return False

    def query_expert(self, **kwargs: Any) -> tuple[Any, bool]:
        """Returns the expert's action, or that of the group `expert_sensor_group_name`, and True."""
        group = kwargs.get("expert_sensor_group_name")
        if self.dict_actions and group in ("higher", "lower"):
            return (1 if group == "higher" else self.expert_action()), True
        if self.dict_actions:
            return OrderedDict(higher=1, lower=self.expert_action()), True
        return self.expert_action(), True

    def render(self, mode: str = "rgb", *args: Any, **kwargs: Any) -> np.ndarray:
        """Draws each entry of the observation as a column of grey: [8, O, 3] uint8."""
        grey = np.clip((self.env.observation + 1) * 127.5, 0, 255).astype(np.uint8)  # [O]
        return np.broadcast_to(grey[None, :, None], (8, len(grey), 3)).copy()  # [8, O, 3]

    def close(self) -> None:
        """Nothing to free."""


class CopyTask(ToyTask):
    """Shows a number in 0 to 3 at every step; reward 1 for choosing it. Ends by itself after `max_steps` - 1 steps."""

    observation_size = 4
    lower_action_space = gym.spaces.Discrete(4)

    def begin(self) -> None:
        """Shows the first number."""
        self._draw()

    def play(self, action: int | None) -> float:
        """Compares and shows the next number."""
        reward = float(action == self.expert_action())
        self._draw()
        return reward

    def _draw(self) -> None:
        self.env.values["shown"] = int(self.env.rng.integers(self.observation_size))
        self.env.show(int(self.env.values["shown"]))

    def expert_action(self) -> int:
        """Returns the number that is shown."""
        return int(self.env.values["shown"])

    def reached_terminal_state(self) -> bool:
        """Whether enough numbers have been shown."""
        return self.num_steps_taken() >= self.max_steps - 1


class PushRightTask(ToyTask):
    """A point between -1 and 1: the action in [-1, 1] moves it by a tenth of itself, which is also the reward.

    Ends by itself when the point is at 1; the step limit cuts it (a truncation).
    """

    observation_size = 1
    lower_action_space = gym.spaces.Box(-1.0, 1.0, shape=(1,), dtype=np.float32)

    def begin(self) -> None:
        """Puts the point somewhere left of the middle."""
        self._place(float(self.env.rng.uniform(-1.0, 0.0)))

    def play(self, action: list[float] | None) -> float:
        """Moves the point."""
        before = self.env.values["x"]
        push = 0.0 if action is None else float(np.clip(action[0], -1.0, 1.0))
        self._place(float(np.clip(before + push / 10, -1.0, 1.0)))
        return self.env.values["x"] - before

    def _place(self, x: float) -> None:
        self.env.values["x"] = x
        self.env.observation = np.array([x], np.float32)  # [1]

    def expert_action(self) -> np.ndarray:
        """Returns the strongest push to the right."""
        return np.ones(1, np.float32)

    def reached_terminal_state(self) -> bool:
        """Whether the point has arrived."""
        return self.env.values["x"] >= 1.0


class RememberTask(ToyTask):
    """Shows a number in 0 to 2 once, then nothing, then a question mark; reward 1 for then choosing the number.

    Ends by itself after that answer, at step `max_steps` - 1.
    """

    observation_size = 4  # three numbers and the question mark
    lower_action_space = gym.spaces.Discrete(3)

    def begin(self) -> None:
        """Shows the number to remember."""
        self.env.values["cue"] = int(self.env.rng.integers(3))
        self.env.show(int(self.env.values["cue"]))

    def play(self, action: int | None) -> float:
        """Hides the number, asks for it at the last step."""
        asked = self.num_steps_taken() == self.max_steps - 2
        reward = float(asked and action == self.expert_action())
        self.env.show(3 if self.num_steps_taken() == self.max_steps - 3 else None)
        return reward

    def expert_action(self) -> int:
        """Returns the number that was shown."""
        return int(self.env.values["cue"])

    def reached_terminal_state(self) -> bool:
        """Whether the question has been answered."""
        return self.num_steps_taken() >= self.max_steps - 1


class EndlessRewardTask(ToyTask):
    """Reward 1 at every step, whatever the action; only the step limit ends it (a truncation)."""

    observation_size = 1
    lower_action_space = gym.spaces.Discrete(2)

    def begin(self) -> None:
        """Shows a constant."""
        self.env.show(0)

    def play(self, action: int | None) -> float:
        """Changes nothing."""
        return 1.0

    def expert_action(self) -> int:
        """Returns any action."""
        return 0


def toy_action_space(task_class: type[ToyTask], dict_actions: bool = False) -> gym.Space:
    """Returns the action space of a toy, for building models."""
    lower = task_class.lower_action_space
    if not dict_actions:
        return lower
    return gym.spaces.Dict(OrderedDict(higher=gym.spaces.Discrete(2), lower=lower))


class ToyTaskSampler(TaskSampler):
    """Hands out toy tasks.

    Args:
        task_class: which toy.
        seed: seeds the generator; None: an arbitrary one.
        max_steps: step limit of every task.
        max_tasks: number of tasks, None: no end.
        dict_actions: whether actions are `{"higher": ..., "lower": ...}`.
        sensors: what is observed; None: a `ToySensor` called "toy".
        mp_ctx: ignored; given by the framework.
    """

    def __init__(
        self,
        task_class: type[ToyTask],
        seed: int | None = 0,
        max_steps: int = 8,
        max_tasks: int | None = None,
        dict_actions: bool = False,
        sensors: list[Sensor] | None = None,
        mp_ctx: Any = None,
    ) -> None:
        self.task_class = task_class
        self.max_steps = max_steps
        self.max_tasks = max_tasks
        self.dict_actions = dict_actions
        self.sensors = sensors or [ToySensor(task_class.observation_size)]
        self.world = ToyWorld(task_class.observation_size)
        self.tasks_drawn = 0
        self._last_task: ToyTask | None = None
        if seed is not None:
            self.set_seed(seed)

    @property
    def length(self) -> float:
        """Number of tasks left."""
        return float("inf") if self.max_tasks is None else self.max_tasks - self.tasks_drawn

    @property
    def last_sampled_task(self) -> ToyTask | None:
        """The task handed out last."""
        return self._last_task

    @property
    def all_observation_spaces_equal(self) -> bool:
        """Always."""
        return True

    def next_task(self, force_advance_scene: bool = False) -> ToyTask | None:
        """Returns a new task, None if all have been handed out."""
        if self.length <= 0:
            return None
        task = self._new_task(str(self.tasks_drawn))
        task.begin()
        self.tasks_drawn += 1
        return task

    def _new_task(self, task_id: str) -> ToyTask:
        info = {"id": task_id}
        self._last_task = self.task_class(self.world, self.sensors, info, self.max_steps, self.dict_actions)
        return self._last_task

    def reset(self) -> None:
        """Hands out as many tasks again; the generator goes on."""
        self.tasks_drawn = 0

    def set_seed(self, seed: int) -> None:
        """Seeds the generator."""
        self.world.rng = np.random.default_rng(seed)

    def close(self) -> None:
        """Nothing to free."""

    def state_dict(self, task: Task | None) -> dict[str, Any] | None:
        """Returns generator, counters, world and the task's progress; None if there is no task to continue."""
        if task is None:
            return None
        return {
            "rng": self.world.rng.bit_generator.state,
            "tasks_drawn": self.tasks_drawn,
            "observation": self.world.observation.copy(),
            "values": dict(self.world.values),
            "task_id": task.task_info["id"],
            "num_steps_taken": task.num_steps_taken(),
            "total_reward": task.cumulative_reward,
        }

    def load_state_dict(self, state: dict[str, Any]) -> ToyTask:
        """Restores what `state_dict` returned, and returns the task being played."""
        self.world.rng = np.random.default_rng()
        self.world.rng.bit_generator.state = state["rng"]
        self.tasks_drawn = state["tasks_drawn"]
        self.world.observation = np.array(state["observation"])
        self.world.values = dict(state["values"])
        task = self._new_task(state["task_id"])
        task._num_steps_taken = state["num_steps_taken"]
        task._total_reward = state["total_reward"]
        return task
