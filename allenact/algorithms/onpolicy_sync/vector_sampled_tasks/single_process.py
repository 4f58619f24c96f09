"""The reference: task samplers and tasks as plain objects in lists, stepped one after another in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import (
    FlatActions,
    NoTaskError,
    as_array,
    callback_suite,
    close_samplers,
    common_observation_space,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.list_interface import ListVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    StepArrays,
    copy_observation,
    layout_of,
)
from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import Task, TaskSampler
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict, StepBatch, callback_data
from allenact.errors import TaskError
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.spaces_utils import action_rows
from allenact.utils.system import get_logger


class EpisodeEnd(NamedTuple):
    """What is known when a task is over, before the next one replaces it."""

    metrics: dict[str, Any]
    callback_data: dict[str, Any] | None
    truncated: bool
    final_observation: ObservationDict | None  # of truncated episodes only


class SingleProcessVectorSampledTasks(ListVectorTasks):
    """Steps its samplers one after another, in this process.

    The global random generators of this process stay as they are while samplers are built, seeded, reset and
    restored, so that the trainer's random numbers do not depend on where the samplers live.

    Args:
        make_sampler_fn: called as `make_sampler_fn(mp_ctx=None, **arguments)`.
        sampler_fn_args_list: the arguments of each sampler.
        callback_sensor_suite: read on every finished task.
        auto_resample_when_done: whether to draw the next task when one ends; else the task stays finished.
        should_log: accepted for compatibility; there is nothing to log.
        action_space: the model's action space; None: that of the first task.
        first_sampler: index of the first sampler among all, for messages.
        preserve_rng: False lets samplers seed the global generators, as they may in a process of their own.

    Raises:
        NoTaskError: (a RuntimeError) a sampler has no first task.
        DifferentObservationSpacesError: (a NotImplementedError) the tasks observe different things.
    """

    mp_ctx = None

    def __init__(
        self,
        make_sampler_fn: Callable[..., TaskSampler],
        sampler_fn_args_list: Sequence[dict[str, Any]] | None = None,
        callback_sensor_suite: SensorSuite | Sequence[Sensor] | None = None,
        auto_resample_when_done: bool = True,
        should_log: bool = True,
        *,
        action_space: gym.Space | None = None,
        first_sampler: int = 0,
        preserve_rng: bool = True,
    ) -> None:
        self._samplers: list[TaskSampler] = []
        self._tasks: list[Task | None] = []
        self._callback_suite = callback_suite(callback_sensor_suite)
        self._auto_resample = auto_resample_when_done
        self._first_sampler = first_sampler
        self._rng_guard = preserve_rng_state if preserve_rng else contextlib.nullcontext
        self._arrays: StepArrays | None = None  # made by the first observe(), which knows shapes and types
        self._results: list[RLStepResult] | None = None  # between async_step and wait_step
        super().__init__(len(sampler_fn_args_list or ()))
        try:
            for args in sampler_fn_args_list or ():
                with self._rng_guard():
                    self._samplers.append(make_sampler_fn(**{"mp_ctx": None, **args}))
            self._tasks = [self._first_task(index) for index in self.active]
            first_tasks = [self._task(index) for index in self.active]
            self.observation_space = common_observation_space(
                [task.observation_space for task in first_tasks], first_sampler
            )
            self.action_spaces = [task.action_space for task in first_tasks]
        except BaseException:
            self.close()
            raise
        self.action_space = self.action_spaces[0] if action_space is None else action_space
        self.description = "stepped one after another in this process"

    @classmethod
    def from_samplers(cls, samplers: Sequence[TaskSampler], **kwargs: Any) -> Self:
        """Takes over samplers that exist already; keywords as for the constructor."""
        return cls(lambda sampler, **_: sampler, [{"sampler": sampler} for sampler in samplers], **kwargs)

    def _first_task(self, index: int) -> Task:
        task = self._samplers[index].next_task()
        if task is None:
            raise NoTaskError(
                f"task sampler {self._first_sampler + index} has no task to begin with.",
                f"its first next_task() returned None ({type(self._samplers[index]).__name__})",
                "give every sampler at least one task, or use fewer samplers (nprocesses in machine_params).",
            )
        return task

    def _task(self, index: int) -> Task:
        task = self._tasks[index]
        if task is None:
            raise TaskError(
                f"task sampler {self._first_sampler + index} has no task left.",
                do="pause a sampler (pause_at) once it is exhausted.",
            )
        return task

    def _next_task(self, index: int, **kwargs: Any) -> ObservationDict | None:
        """Replaces the current task and returns the first observation of the new one, None if there is none."""
        task = self._tasks[index] = self._samplers[index].next_task(**kwargs)
        return None if task is None else task.get_observations()

    def _advance(self, index: int, action: Any) -> tuple[RLStepResult, EpisodeEnd | None]:
        """Takes one step with one sampler; where its task ends, draws the next."""
        task = self._task(index)
        result = task.step(action)
        if not (result.done and task.is_done()):
            return result, None
        was_truncated: Any = task.was_truncated  # of a task written before it was a method, perhaps a flag
        truncated = bool(was_truncated() if callable(was_truncated) else was_truncated)
        end = EpisodeEnd(
            metrics=task.metrics(),
            callback_data=callback_data(self._callback_suite, task),
            truncated=truncated,
            # a copy, because sensors may write their next observation to the same array
            final_observation=copy_observation(result.observation) if truncated else None,
        )
        if self._auto_resample:
            result = result._replace(observation=self._next_task(index))
        return result, end

    # Arrays

    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...]."""
        observations = [self._task(index).get_observations() for index in self.active]
        if self._arrays is None:
            self._arrays = StepArrays.allocate(layout_of(observations[0]), self.num_samplers)
        for index, observation in zip(self.active, observations, strict=True):
            self._arrays.write(index, observation, self._first_sampler + index)
        return self._arrays.select(self.active)[0]

    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next."""
        if self._arrays is None:
            self.observe()
        arrays = self._arrays
        assert arrays is not None
        final_observations: dict[int, ObservationDict] = {}
        episodes: list[FinishedEpisode] = []
        exhausted: list[int] = []
        actions = action_rows(self.action_space, as_array(flat_actions))
        for position, (index, action) in enumerate(zip(self.active, actions, strict=True)):
            result, end = self._advance(index, action)
            arrays.rewards[index] = _scalar(result.reward)
            arrays.dones[index] = result.done
            arrays.truncated[index] = end is not None and end.truncated
            if end is not None:
                episodes.append(FinishedEpisode(position, end.metrics, end.callback_data))
                if end.final_observation is not None:
                    final_observations[position] = end.final_observation
            if result.observation is None:
                exhausted.append(position)
            else:
                arrays.write(index, result.observation, self._first_sampler + index)
        return StepBatch(*arrays.select(self.active), final_observations, episodes, exhausted)

    # Lists

    def async_step(self, actions: Sequence[Any]) -> None:
        """Takes the step at once; `wait_step` returns the results."""
        if self._results is not None:
            raise RuntimeError("wait_step() has to come before the next async_step()")
        self._results = self.command(protocol.STEP_COMMAND, actions)

    def wait_step(self) -> list[RLStepResult]:
        """Returns the results of the step that `async_step` took."""
        results, self._results = self._results, None
        if results is None:
            raise RuntimeError("wait_step() needs an async_step() before it")
        return results

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers, by position."""
        return [
            self._answer(self.active[position], command, item)
            for position, command, item in zip(positions, commands, data, strict=True)
        ]

    def _answer(self, index: int, command: str, data: Any) -> Any:
        """Carries out one command for one sampler."""
        sampler = self._samplers[index]
        match command:
            case protocol.STEP_COMMAND:
                result, end = self._advance(index, data)
                return result if end is None else _with_info(result, end)
            case protocol.NEXT_TASK_COMMAND:
                return self._next_task(index, **(data or {}))
            case protocol.RESET_COMMAND:
                self._restart(index)
                return None
            case protocol.SEED_COMMAND:
                with self._rng_guard():
                    return sampler.set_seed(data)
            case protocol.SAMPLER_COMMAND | protocol.SAMPLER_ATTR_COMMAND:
                return protocol.answer(command, data, sampler)
        return protocol.answer(command, data, self._task(index))

    def _restart(self, index: int) -> None:
        with self._rng_guard():
            self._samplers[index].reset()
        self._tasks[index] = self._first_task(index)

    # State

    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns for each sampler what is needed to continue, None where it cannot be saved."""
        return [sampler.state_dict(task) for sampler, task in zip(self._samplers, self._tasks, strict=True)]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None], keep_unsaved: bool = False) -> list[int]:
        """Restores what `state_dict` returned; see `VectorTasks.load_state_dict`."""
        left = [index for index, state in enumerate(states) if not self._restore(index, state)]
        for index in left:
            if states[index] is not None or not keep_unsaved:
                self._restart(index)
        return left

    def _restore(self, index: int, state: dict[str, Any] | None) -> bool:
        """Restores one sampler; returns False if there is nothing to restore or it cannot be done."""
        if state is None:
            return False
        try:
            with self._rng_guard():
                self._tasks[index] = self._samplers[index].load_state_dict(state)
        except TaskError as error:
            get_logger().warning(f"Task sampler {self._first_sampler + index} starts anew: {error}")
            return False
        return True

    def close(self) -> None:
        """Closes the samplers. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        close_samplers(self._samplers, self._first_sampler)
        self._arrays = None


def _with_info(result: RLStepResult, end: EpisodeEnd) -> RLStepResult:
    """Puts what is known about the finished episode where AllenAct's users look for it."""
    info = dict(result.info or {})
    if end.metrics:
        info[protocol.COMPLETE_TASK_METRICS_KEY] = end.metrics
    if end.callback_data is not None:
        info[protocol.COMPLETE_TASK_CALLBACK_KEY] = end.callback_data
    return result._replace(info=info)


def _scalar(reward: Any) -> float:
    try:
        return float(reward)
    except (TypeError, ValueError):
        raise NotImplementedError(
            f"a task returned the reward {reward!r}; training needs one number, also from several agents"
        ) from None
