"""Tasks (one episode each) and task samplers (where episodes come from)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

import gymnasium as gym
import numpy as np

from allenact.base_abstractions.misc import EnvType, RLStepResult, SubTaskType
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.errors import TaskError

if TYPE_CHECKING:
    from allenact.base_abstractions.task_batch import TaskBatch

__all__ = ["SubTaskType", "Task", "TaskSampler"]


class Task(abc.ABC, Generic[EnvType]):
    """One episode: an environment, what is sensed in it, and when it is over.

    The framework calls `step` until `is_done()`, then `metrics()` once, and asks the sampler for the next
    task.

    Args:
        env: the environment of the task; usually shared by all tasks of a sampler.
        sensors: a suite, or the sensors to make one of.
        task_info: what describes this episode (`task_info["id"]`, a string, identifies it in visualisations).
        max_steps: environment steps after which the episode is cut.
        kwargs: ignored, so that subclasses can pass all their arguments on.

    Attributes:
        env, task_info, max_steps: as given.
        sensor_suite: the sensors as a suite.
        observation_space: dict space of the suite.
    """

    env: EnvType
    sensor_suite: SensorSuite[EnvType]
    task_info: dict[str, Any]
    max_steps: int
    observation_space: gym.spaces.Dict

    def __init__(
        self,
        env: EnvType,
        sensors: SensorSuite | Sequence[Sensor],
        task_info: dict[str, Any],
        max_steps: int,
        **kwargs: Any,
    ) -> None:
        self.env = env
        self.sensor_suite = sensors if isinstance(sensors, SensorSuite) else SensorSuite(sensors)
        self.task_info = task_info
        self.max_steps = max_steps
        self.observation_space = self.sensor_suite.observation_spaces
        self._num_steps_taken = 0
        self._total_reward: float | list[float] = 0.0

    @property
    @abc.abstractmethod
    def action_space(self) -> gym.Space:
        """Actions the task accepts."""

    @abc.abstractmethod
    def render(self, mode: str = "rgb", *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the current view as an RGB image, [H, W, 3] uint8."""

    @abc.abstractmethod
    def _step(self, action: Any) -> RLStepResult:
        """Takes one environment step. The step counter still has its old value here."""

    @abc.abstractmethod
    def reached_terminal_state(self) -> bool:
        """Whether the episode is over for a reason other than its step limit."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees what belongs to this task alone."""

    def step(self, action: Any) -> RLStepResult:
        """Takes one environment step; not to be overridden (override `_step`).

        Args:
            action: a plain Python value: int (Discrete), list (Box, MultiDiscrete, MultiBinary), or a tuple
                or dict of such values.

        Raises:
            TaskError: the episode is already over.
        """
        if self.is_done():
            raise TaskError(
                f"{type(self).__name__} was asked for a step after its episode had ended.",
                f"{self._num_steps_taken} environment steps taken, max_steps={self.max_steps}",
                "draw the next task from the sampler once is_done() is true.",
            )
        result = self._step(action)
        self._add_reward(result.reward)
        self._increment_num_steps_taken()
        return result._replace(done=bool(result.done or self.is_done()))

    def _increment_num_steps_taken(self) -> None:
        """Counts one step; tasks that count more than that override it."""
        self._num_steps_taken += 1

    def _add_reward(self, reward: Any) -> None:
        """Adds a reward, or one reward for each agent, to the total."""
        total = self._total_reward
        if not isinstance(reward, Sequence):
            self._total_reward = total + float(reward)  # type: ignore[operator]  # one number every step
        elif isinstance(total, list):
            self._total_reward = [a + float(b) for a, b in zip(total, reward, strict=True)]
        else:
            self._total_reward = [float(r) for r in reward]

    def get_observations(self, **kwargs: Any) -> Any:
        """Returns sensor uuid -> current observation; keywords are passed to every sensor."""
        return self.sensor_suite.get_observations(env=self.env, task=self, **kwargs)

    def reached_max_steps(self) -> bool:
        """Whether the step limit has been reached."""
        return self.num_steps_taken() >= self.max_steps

    def is_done(self) -> bool:
        """Whether the episode is over."""
        return self.reached_terminal_state() or self.reached_max_steps()

    def was_truncated(self) -> bool:
        """Whether a limit ended the episode rather than the task itself."""
        return self.reached_max_steps() and not self.reached_terminal_state()

    def num_steps_taken(self) -> int:
        """Returns the number of environment steps taken."""
        return self._num_steps_taken

    @property
    def cumulative_reward(self) -> float:
        """Sum of the rewards so far; their mean over agents if there are several."""
        if isinstance(self._total_reward, list):
            return sum(self._total_reward) / len(self._total_reward)
        return self._total_reward

    def metrics(self) -> dict[str, Any]:
        """Returns what to report about the finished episode.

        Values are numbers (averaged over episodes); `task_info` is passed on as it is. A dict that is empty,
        has nothing but `task_info`, or has `success` None is not counted.
        """
        return {
            "ep_length": self.num_steps_taken(),
            "reward": self.cumulative_reward,
            "task_info": self.task_info,
        }

    def query_expert(self, **kwargs: Any) -> tuple[Any, bool]:
        """(Deprecated: write an expert sensor.) Returns the expert's action and whether it has one."""
        return None, False

    def action_names(self) -> tuple[str, ...]:
        """(Deprecated.) Returns the names of the actions if the class defines `class_action_names()`."""
        if hasattr(self, "class_action_names"):
            return self.class_action_names()
        raise NotImplementedError(f"{type(self).__name__} does not name its actions")


class TaskSampler(abc.ABC):
    """Hands out tasks, one after another; owns the environment and the random generator they use."""

    @property
    @abc.abstractmethod
    def length(self) -> float:
        """Number of tasks still to be handed out, infinite if there is no limit; finite in evaluation."""

    @property
    @abc.abstractmethod
    def last_sampled_task(self) -> Task | None:
        """The task handed out last."""

    @property
    @abc.abstractmethod
    def all_observation_spaces_equal(self) -> bool:
        """Whether all tasks have the same observation space."""

    @abc.abstractmethod
    def next_task(self, force_advance_scene: bool = False) -> Task | None:
        """Returns the next task, or None if there is none left.

        Called at the start (must not be None), after every finished task, after `reset()` (must not be None),
        and with `force_advance_scene=True` every `advance_scene_rollout_period` rollouts.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the environment."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Starts over, as if no task had been handed out; called after every evaluation."""

    @abc.abstractmethod
    def set_seed(self, seed: int) -> None:
        """Seeds the sampler's random generator."""

    @classmethod
    def make_batch(cls, samplers: Sequence[TaskSampler], num_threads: int) -> TaskBatch | None:
        """Returns these samplers' tasks as one batch that steps together, or None if that cannot be done."""
        return None

    @classmethod
    def batch_obstacle(cls, samplers: Sequence[TaskSampler]) -> str:
        """Returns the reason why `make_batch` returns None for these samplers."""
        return f"{cls.__name__} offers no batch for them"

    def state_dict(self, task: Task | None) -> dict[str, Any] | None:
        """Returns everything needed to continue `task` and to draw the same tasks after it.

        It consists of dicts, lists, tuples, strings, bytes, numbers, None, NumPy arrays and torch tensors
        only. It is None if this sampler cannot be saved: it is then restarted on resume.
        """
        return None

    def load_state_dict(self, state: dict[str, Any]) -> Task:
        """Restores what `state_dict` returned, and returns the task that was running.

        Raises:
            TaskError: it cannot be done any more; the sampler is restarted.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be restored from a saved state")
