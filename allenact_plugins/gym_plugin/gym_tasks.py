"""The sampler that hands out episodes of a Gymnasium environment, and the names of the tasks that these are."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.utils.legacy_seeding import OldStyleGenerator
from allenact.utils.system import get_logger
from allenact_plugins.gym_plugin.gym_environment import GymEnvironment
from allenact_plugins.gym_plugin.gym_sensors import GymSensor
from allenact_plugins.gym_plugin.gym_task_classes import (
    GymContinuousTask,
    GymDiscreteTask,
    GymTask,
    default_task_selector,
    sensor_selector,
)

if TYPE_CHECKING:
    from allenact.base_abstractions.task_batch import TaskBatch

__all__ = [
    "GymContinuousTask",
    "GymDiscreteTask",
    "GymTask",
    "GymTaskSampler",
    "default_task_selector",
    "sensor_selector",
]


class GymTaskSampler(TaskSampler):
    """Hands out episodes of one environment, each begun with a seed of its own.

    All random choices (seeds and ids of tasks) come from one generator that belongs to this sampler. The global
    generators of the process are neither used nor seeded, so a sampler hands out the same episodes wherever it runs.

    Args:
        gym_env_type: id of the environment.
        sensors: a suite, or the sensors to make one of; None: the usual one for this environment.
        max_tasks: number of tasks to hand out; None: no limit.
        num_unique_seeds: use the seeds 0 to `num_unique_seeds` - 1 only.
        task_seeds_list: use these seeds only.
        deterministic_sampling: take the seeds in order, over and over, and not at random.
        task_selector: id of the environment -> class of the task; the usual one looks at the action space.
        repeat_failed_task_for_min_steps: begin a task that earned exactly 0 with the same seed again, until this
            many environment steps have been spent on it.
        extra_task_kwargs: for the constructor of the task.
        seed: of the sampler's generator; None: a new one every time.
        gym_env_kwargs: for `gymnasium.make`, e.g. `{"contact_forces": "zero"}`.
        kwargs: `mp_ctx` is accepted and not needed; others are ignored with a warning.

    Raises:
        ExperimentConfigError: arguments contradict each other.
    """

    def __init__(
        self,
        gym_env_type: str = "LunarLanderContinuous-v2",
        sensors: SensorSuite | Sequence[Sensor] | None = None,
        max_tasks: int | None = None,
        num_unique_seeds: int | None = None,
        task_seeds_list: Sequence[int] | None = None,
        deterministic_sampling: bool = False,
        task_selector: Callable[..., type[GymTask]] = default_task_selector,
        repeat_failed_task_for_min_steps: int = 0,
        extra_task_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        gym_env_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _warn_of_unknown_arguments(kwargs)
        self.gym_env_type = gym_env_type
        self.gym_env_kwargs = dict(gym_env_kwargs or {})
        self.sensors = [sensor_selector(gym_env_type)] if sensors is None else sensors
        self.max_tasks = max_tasks
        if task_seeds_list is None and num_unique_seeds is not None:
            task_seeds_list = range(num_unique_seeds)
        self.task_seeds_list = None if task_seeds_list is None else [int(seed) for seed in task_seeds_list]
        self.num_unique_seeds = None if self.task_seeds_list is None else len(self.task_seeds_list)
        self.deterministic_sampling = deterministic_sampling
        self.repeat_failed_task_for_min_steps = repeat_failed_task_for_min_steps
        self._check_arguments()
        selects_by_default = task_selector is default_task_selector
        self.task_class = task_selector(gym_env_type, **(self.gym_env_kwargs if selects_by_default else {}))
        self.extra_task_kwargs = dict(extra_task_kwargs or {})

        self.num_tasks_generated = 0
        self._env: GymEnvironment | None = None
        self._sensor_suite: SensorSuite | None = None
        self._last_task: GymTask | None = None
        self._task_seed: int | None = None
        self._steps_spent_on_seed = 0
        self._rng = np.random.default_rng(seed)

    def _check_arguments(self) -> None:
        if self.task_seeds_list == []:
            raise ExperimentConfigError(
                "there is no seed to begin a task with.",
                given=f"task_seeds_list={self.task_seeds_list}, num_unique_seeds={self.num_unique_seeds}",
                do="give at least one seed, or neither argument.",
            )
        if self.repeat_failed_task_for_min_steps > 0 and self.task_seeds_list is not None:
            raise ExperimentConfigError(
                "failed tasks cannot be repeated when tasks have a fixed set of seeds.",
                given=f"repeat_failed_task_for_min_steps={self.repeat_failed_task_for_min_steps}, "
                f"{self.num_unique_seeds} unique seeds",
                do="give one of the two.",
            )
        if self.deterministic_sampling and self.task_seeds_list is None:
            raise ExperimentConfigError(
                "deterministic sampling needs seeds to take in order.",
                given="deterministic_sampling=True without num_unique_seeds or task_seeds_list",
                do="give task_seeds_list, e.g. list(range(max_tasks)).",
            )
        if not self.deterministic_sampling and self.max_tasks:
            get_logger().warning(
                "GymTaskSampler hands out %d tasks with random seeds, so two evaluations run different episodes; "
                "deterministic_sampling=True with task_seeds_list makes them comparable.",
                self.max_tasks,
            )

    @property
    def env(self) -> GymEnvironment:
        """The environment that all tasks share, made when it is first needed."""
        if self._env is None:
            self._env = GymEnvironment(self.gym_env_type, **self.gym_env_kwargs)
            for sensor in self.sensor_list():
                if isinstance(sensor, GymSensor):
                    sensor.check_matches(self._env)
        return self._env

    @env.setter
    def env(self, env: GymEnvironment) -> None:
        self._env = env

    @property
    def length(self) -> float:
        """Number of tasks still to be handed out, or infinity."""
        return math.inf if self.max_tasks is None else self.max_tasks - self.num_tasks_generated

    @property
    def total_unique(self) -> float:
        """Number of different tasks, or infinity."""
        return math.inf if self.num_unique_seeds is None else self.num_unique_seeds

    @property
    def last_sampled_task(self) -> GymTask | None:
        """The task handed out last."""
        return self._last_task

    @property
    def all_observation_spaces_equal(self) -> bool:
        """True: there is only one environment."""
        return True

    def next_task(self, force_advance_scene: bool = False) -> GymTask | None:
        """Returns the next task, or None if `max_tasks` have been handed out."""
        if self.length <= 0:
            return None
        repeat = not force_advance_scene and self._failed_too_early()
        if not repeat:
            self._task_seed = self._draw_seed()
            self._steps_spent_on_seed = 0
        if repeat and hasattr(self.env, "same_seed_reset"):
            self.env.same_seed_reset()
        else:
            self.env.saved_seed = self._task_seed
            self.env.reset(seed=self._task_seed)
        self.num_tasks_generated += 1
        self._last_task = self._make_task({"id": f"random{self._rng.integers(2**63 - 1)}", "seed": self._task_seed})
        return self._last_task

    def _failed_too_early(self) -> bool:
        """Whether the last task earned nothing and not enough steps have been spent on its seed."""
        if self._last_task is None or self.repeat_failed_task_for_min_steps <= 0:
            return False
        self._steps_spent_on_seed += self._last_task.num_steps_taken()
        enough = self._steps_spent_on_seed >= self.repeat_failed_task_for_min_steps
        return self._last_task.cumulative_reward == 0 and not enough

    def _draw_seed(self) -> int:
        if self.task_seeds_list is None:
            return int(self._rng.integers(2**31 - 1))
        if self.deterministic_sampling:
            return self.task_seeds_list[self.num_tasks_generated % len(self.task_seeds_list)]
        return self.task_seeds_list[int(self._rng.integers(len(self.task_seeds_list)))]

    def _make_task(self, task_info: dict[str, Any]) -> GymTask:
        if self._sensor_suite is None:  # made once: short episodes would spend much of their time on it
            self._sensor_suite = self.sensors if isinstance(self.sensors, SensorSuite) else SensorSuite(self.sensors)
        return self.task_class(
            **{"env": self.env, "sensors": self._sensor_suite, "task_info": task_info, **self.extra_task_kwargs}
        )

    def sensor_list(self) -> list[Sensor]:
        """Returns the sensors, in order."""
        return list(self.sensors.sensors.values() if isinstance(self.sensors, SensorSuite) else self.sensors)

    @property
    def np_seeded_random_gen(self) -> OldStyleGenerator:
        """The sampler's own generator, under its name in AllenAct."""
        return OldStyleGenerator(self._rng.bit_generator)

    def set_seed(self, seed: int) -> None:
        """Seeds the sampler's generator, and nothing else."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Starts over: `max_tasks` tasks are left, and the first seed of a deterministic sequence comes next."""
        self.num_tasks_generated = 0
        self._last_task = None

    def close(self) -> None:
        """Closes the environment."""
        if self._env is not None:
            self._env.close()

    def state_dict(self, task: Any) -> dict[str, Any] | None:
        """Returns everything needed to continue `task` and to draw the next ones.

        None for environments that cannot be saved (`GymEnvironment.state_dict` says which can), and for task classes
        that may hold more than `GymTask.state_dict` knows of.
        """
        if not isinstance(task, GymTask) or not _is_saveable(type(task)):
            return None
        env = self.env.state_dict()
        if env is None:
            return None
        return {
            "generator": self._rng.bit_generator.state,
            "num_tasks_generated": self.num_tasks_generated,
            "task_seed": self._task_seed,
            "steps_spent_on_seed": self._steps_spent_on_seed,
            "env": env,
            "task": task.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> GymTask:
        """Restores what `state_dict` returned, and returns the task that was running."""
        self._rng.bit_generator.state = state["generator"]
        self.num_tasks_generated = state["num_tasks_generated"]
        self._task_seed = state["task_seed"]
        self._steps_spent_on_seed = state["steps_spent_on_seed"]
        self.env.load_state_dict(state["env"], elapsed_steps=state["task"]["num_steps_taken"])
        self._last_task = self._make_task(state["task"]["task_info"])
        self._last_task.load_state_dict(state["task"])
        return self._last_task

    @classmethod
    def make_batch(cls, samplers: Sequence[TaskSampler], num_threads: int) -> TaskBatch | None:
        """Returns one MuJoCo batch for samplers of the same `-v2` task, None for others."""
        from allenact_plugins.gym_plugin.mujoco_batch import MuJoCoTaskBatch, batch_obstacle

        return None if batch_obstacle(samplers) else MuJoCoTaskBatch(samplers, num_threads)

    @classmethod
    def batch_obstacle(cls, samplers: Sequence[TaskSampler]) -> str:
        """Returns the reason why `make_batch` returns None for these samplers."""
        from allenact_plugins.gym_plugin.mujoco_batch import batch_obstacle

        return batch_obstacle(samplers) or "nothing stands in the way"


def _is_saveable(task_class: type[GymTask]) -> bool:
    return task_class in (GymContinuousTask, GymDiscreteTask) or task_class.state_dict is not GymTask.state_dict


_warned_of: set[str] = set()  # arguments already warned of in this process


def _warn_of_unknown_arguments(kwargs: dict[str, Any]) -> None:
    for name in kwargs:
        if name == "mp_ctx" or name in _warned_of:
            continue
        _warned_of.add(name)
        known = [known for known in inspect.signature(GymTaskSampler).parameters if known != "kwargs"]
        get_logger().warning('GymTaskSampler ignores the unknown argument "%s". %s', name, did_you_mean(name, known))
