"""Tasks of several samplers advanced together by one engine.

A plugin that can step many simulations at once (MuJoCo's batched stepping, EnvPool, a GPU simulator)
implements `TaskBatch` and returns it from `TaskSampler.make_batch`. Nothing above it changes: observations,
rewards and finished episodes are what the samplers would have produced one by one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from allenact.base_abstractions.sensor import SensorSuite
    from allenact.base_abstractions.task import Task, TaskSampler

ObservationDict = dict[str, Any]
"""Sensor uuid -> np.ndarray [N, O...], or a nested dict of such arrays."""


@dataclass(slots=True)
class FinishedEpisode:
    """What is known about one episode once it is over.

    Attributes:
        sampler: position among the active samplers of this step.
        metrics: `task.metrics()`; empty if there are none.
        callback_data: observations of the callback sensors on the finished task, None without such sensors.
    """

    sampler: int
    metrics: dict[str, Any]
    callback_data: dict[str, Any] | None


def callback_data(suite: SensorSuite | None, task: Task) -> dict[str, Any] | None:
    """Returns what callback sensors observe on a finished task; None without such sensors.

    It is a copy: a sensor may return an array that its environment goes on writing to, long before the data are logged.
    """
    return None if suite is None else copy.deepcopy(suite.get_observations(env=task.env, task=task))


@dataclass(slots=True)
class StepBatch:
    """What N active samplers answered to one step. Arrays may be overwritten by the next step.

    Attributes:
        observations: leaves [N, O...], the next observation; where done, the first one of the new task;
            undefined for exhausted samplers.
        rewards: [N] float32.
        dones: [N] bool, the episode ended with this step.
        truncated: [N] bool, it ended because of a limit, not because of the task itself.
        final_observations: position -> last observation (leaves [O...]) of each *truncated* episode.
        episodes: the episodes that ended with this step, in order of position.
        exhausted: positions of samplers that have no next task.
    """

    observations: ObservationDict
    rewards: np.ndarray
    dones: np.ndarray
    truncated: np.ndarray
    final_observations: dict[int, ObservationDict]
    episodes: list[FinishedEpisode]
    exhausted: list[int]


class TaskBatch(ABC):
    """The current tasks of N samplers, advanced together.

    `active` always lists the indices of the samplers that take part, in ascending order; the results have one
    row for each of them, in that order.

    Attributes:
        samplers: the N samplers, in order.
        description: one line for the start-up report, such as "one MuJoCo batch on 2 threads".
        first_sampler: index of the first of them among all samplers, which messages are to name; set by the caller.
    """

    samplers: Sequence[TaskSampler]
    description: str
    first_sampler: int = 0

    @abstractmethod
    def observe(self, active: Sequence[int]) -> ObservationDict:
        """Returns the current observations, leaves [len(active), O...]."""

    @abstractmethod
    def step(self, actions: np.ndarray, active: Sequence[int]) -> StepBatch:
        """Takes one step in each active task and draws the next task where one ended.

        Args:
            actions: [len(active), A], flattened as `allenact.utils.spaces_utils.flatten` does.
            active: indices of the samplers that step.
        """

    @abstractmethod
    def next_tasks(self, active: Sequence[int], **kwargs: Any) -> None:
        """Abandons the current tasks and draws new ones with `sampler.next_task(**kwargs)`."""

    @abstractmethod
    def task(self, index: int) -> Task:
        """Returns the current task of sampler `index`, up to date, for rendering, metrics and attributes."""

    @abstractmethod
    def reset(self, active: Sequence[int]) -> None:
        """Calls `sampler.reset()` and draws the first task of each active sampler."""

    @abstractmethod
    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns one state for each sampler, its current task included; None where it cannot be saved."""

    @abstractmethod
    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Restores what `state_dict` returned; samplers whose state is None keep their current task."""

    @abstractmethod
    def close(self) -> None:
        """Frees the engine. Calling it again does nothing."""
