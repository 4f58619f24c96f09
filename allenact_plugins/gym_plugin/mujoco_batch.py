"""Task samplers of one MuJoCo task, stepped together: one call of the engine for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from allenact.base_abstractions.sensor import SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import (
    FinishedEpisode,
    ObservationDict,
    StepBatch,
    TaskBatch,
    callback_data,
)
from allenact.errors import TaskError
from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from allenact_plugins.gym_plugin.gym_tasks import GymContinuousTask, GymTaskSampler
from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv
from allenact_plugins.gym_plugin.mujoco_simulations import MuJoCoSimulations
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS


def batch_obstacle(samplers: Sequence[TaskSampler]) -> str | None:
    """Returns why `MuJoCoTaskBatch` cannot take these samplers, None if it can."""
    uuids = set()
    for sampler in samplers:
        if type(sampler) is not GymTaskSampler:
            return f"{type(sampler).__name__} may do more than GymTaskSampler"
        first = samplers[0]
        assert isinstance(first, GymTaskSampler)
        if sampler.gym_env_type not in MUJOCO_TASKS:
            return f"{sampler.gym_env_type} is not one of the MuJoCo -v2 tasks"
        if (sampler.gym_env_type, sampler.gym_env_kwargs) != (first.gym_env_type, first.gym_env_kwargs):
            return "the samplers have different environments"
        if sampler.task_class is not GymContinuousTask:
            return f"{sampler.task_class.__name__} may do more than GymContinuousTask"
        sensors = sampler.sensor_list()
        if len(sensors) != 1 or type(sensors[0]) is not GymMuJoCoSensor:
            names = ", ".join(type(sensor).__name__ for sensor in sensors)
            return f"only one GymMuJoCoSensor can be batched, not {names or 'none'}"
        uuids.add(sensors[0].uuid)
        if sampler.env.mujoco_env is None:
            return f"{sampler.gym_env_type} has been registered anew, or wrapped"
    return "the samplers' sensors have different uuids" if len(uuids) > 1 else None


class MuJoCoTaskBatch(TaskBatch):
    """The tasks of N samplers on one engine, equal bit for bit to the same samplers on their own.

    A step is one call of the engine and a few NumPy lines for all samplers. Tasks and environments of the samplers
    hear of it when an episode ends, or when somebody asks for them; each draws its next task as it would on its own.

    Args:
        samplers: for which `batch_obstacle` returned None.
        num_threads: threads of the engine.

    Attributes:
        callback_suite: sensors to read on every finished task, if any.

    Raises:
        TaskError: a sampler has no first task.
    """

    def __init__(self, samplers: Sequence[TaskSampler], num_threads: int) -> None:
        self.samplers: list[GymTaskSampler] = [s for s in samplers if isinstance(s, GymTaskSampler)]
        self.callback_suite: SensorSuite | None = None
        envs = [_mujoco_env(sampler) for sampler in self.samplers]
        n = len(envs)
        self.simulations = MuJoCoSimulations(envs[0].task, n, num_threads)
        for index, env in enumerate(envs):
            env.attach(self.simulations, index)
        self._uuid = self.samplers[0].sensor_list()[0].uuid
        self._tasks: list[GymContinuousTask | None] = [None] * n
        self._observations = np.zeros((n, envs[0].task.observation_size))  # [N, O] float64
        self._steps = np.zeros(n, dtype=np.int64)  # [N] environment steps of the current episodes
        self._returns = np.zeros(n)  # [N] sums of their rewards
        self._limits = np.zeros(n, dtype=np.int64)  # [N] environment steps an episode may take
        count = self.simulations.num_threads
        threads = f"{count} thread" if count == 1 else f"{count} threads"
        self.description = f"stepped as one MuJoCo batch of {envs[0].task_id} on {threads}"
        for index in range(n):
            self._begin(index)

    def observe(self, active: Sequence[int]) -> ObservationDict:
        """Returns the current observations, [len(active), O] float32."""
        everyone = len(active) == len(self.samplers)
        observations = self._observations if everyone else self._observations[np.asarray(active)]
        return {self._uuid: observations.astype(np.float32)}  # [n, O]

    def step(self, actions: np.ndarray, active: Sequence[int]) -> StepBatch:
        """Takes one step in each active task and draws the next task where one ended."""
        step = self.simulations.step(actions, active)
        if len(active) == len(self.samplers):  # without indices, because each call of NumPy is dear here
            self._observations = step.observations  # a new array in every step
            self._returns += step.rewards
            self._steps += 1
            due = self._steps >= self._limits  # [n]
        else:
            rows = np.asarray(active)
            self._observations[rows] = step.observations
            self._returns[rows] += step.rewards
            self._steps[rows] += 1
            due = self._steps[rows] >= self._limits[rows]  # [n]
        truncated = due & ~step.terminated  # [n]
        result = StepBatch(
            observations={},
            rewards=step.rewards.astype(np.float32),  # [n]
            dones=step.terminated | truncated,  # [n]
            truncated=truncated,
            final_observations={},
            episodes=[],
            exhausted=[],
        )
        if np.count_nonzero(result.dones):
            for position in np.flatnonzero(result.dones):
                self._end_episode(int(position), active[int(position)], result)
        result.observations = self.observe(active)
        return result

    def next_tasks(self, active: Sequence[int], **kwargs: Any) -> None:
        """Abandons the current tasks and draws new ones."""
        for index in active:
            self.task(index)  # up to date, because the sampler may look at what it earned
            self._begin(index, **kwargs)

    def reset(self, active: Sequence[int]) -> None:
        """Calls `sampler.reset()` and draws the first task of each active sampler."""
        for index in active:
            self.samplers[index].reset()
            self._begin(index)

    def task(self, index: int) -> GymContinuousTask:
        """Returns the current task of sampler `index`, up to date."""
        return self._synchronised_task(index, terminated=False, truncated=False)

    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns the state of each sampler and its task; they are those the samplers would give on their own."""
        return [
            None if self._tasks[index] is None else sampler.state_dict(self.task(index))
            for index, sampler in enumerate(self.samplers)
        ]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Restores what `state_dict` returned; samplers whose state is None keep their current task."""
        for index, state in enumerate(states):
            if state is not None:
                self._adopt(index, self.samplers[index].load_state_dict(state))

    def close(self) -> None:
        """Closes the samplers and, with them, the engine."""
        for sampler in self.samplers:
            sampler.close()

    def _begin(self, index: int, **kwargs: Any) -> None:
        task = self.samplers[index].next_task(**kwargs)
        if task is None:
            raise TaskError(
                f"task sampler {self.first_sampler + index} has no task left.",
                given=f"max_tasks={self.samplers[index].max_tasks}",
                do="allow more tasks, or use fewer samplers.",
            )
        self._adopt(index, task)

    def _adopt(self, index: int, task: Any) -> None:
        """Takes a task that the sampler has just begun or restored as the current one."""
        self._tasks[index] = task
        self._observations[index] = task.env.current_observation
        self._steps[index] = task.num_steps_taken()
        self._returns[index] = task.cumulative_reward
        self._limits[index] = task.max_steps

    def _end_episode(self, position: int, index: int, result: StepBatch) -> None:
        """Reports a finished episode and begins the sampler's next one."""
        truncated = bool(result.truncated[position])
        task = self._synchronised_task(index, terminated=not truncated, truncated=truncated)
        result.episodes.append(FinishedEpisode(position, task.metrics(), callback_data(self.callback_suite, task)))
        if truncated:
            result.final_observations[position] = {
                self._uuid: self._observations[index].astype(np.float32)  # [O]
            }
        next_task = self.samplers[index].next_task()
        if next_task is None:
            self._tasks[index] = None
            result.exhausted.append(position)
        else:
            self._adopt(index, next_task)

    def _synchronised_task(self, index: int, terminated: bool, truncated: bool) -> GymContinuousTask:
        """Tells a task and its environment what happened to them."""
        task = self._tasks[index]
        if task is None:
            which = f"task sampler {self.first_sampler + index}"
            raise TaskError(f"{which} has no task left.", do="pause it once it is exhausted.")
        steps = int(self._steps[index])
        task.synchronise(steps, float(self._returns[index]), done=terminated or truncated)
        task.env.synchronise(self._observations[index].copy(), steps, terminated, truncated)
        return task


def _mujoco_env(sampler: GymTaskSampler) -> MuJoCoEnv:
    env = sampler.env.mujoco_env
    assert env is not None, "batch_obstacle was not asked"
    return env
