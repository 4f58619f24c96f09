"""Samplers whose tasks one engine advances together: the training loop's view of a `TaskBatch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import (
    FlatActions,
    VectorTasks,
    as_array,
    close_samplers,
    common_observation_space,
)
from allenact.base_abstractions.sensor import SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import ObservationDict, StepBatch, TaskBatch
from allenact.errors import TaskError
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.system import get_logger


class BatchedVectorTasks(VectorTasks):
    """Steps the samplers of a `TaskBatch`, leaving out the paused ones.

    As with the serial class, the global random generators stay as they are while samplers are seeded, reset and
    restored.

    Args:
        batch: fresh from `TaskSampler.make_batch`, its first tasks drawn.
        action_space: the model's action space; None: that of the first task.

    Raises:
        DifferentObservationSpacesError: (a NotImplementedError) the tasks observe different things.
    """

    def __init__(self, batch: TaskBatch, action_space: gym.Space | None = None) -> None:
        self.batch = batch
        super().__init__(len(batch.samplers))
        self.description = batch.description
        try:
            tasks = [batch.task(index) for index in self._active]
            self.observation_space = common_observation_space([task.observation_space for task in tasks])
        except BaseException:
            self.close()
            raise
        self.action_spaces = [task.action_space for task in tasks]
        self.action_space = self.action_spaces[0] if action_space is None else action_space

    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...]."""
        return self.batch.observe(self._active)

    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next."""
        return self.batch.step(as_array(flat_actions), self._active)

    def next_task(self, **kwargs: Any) -> list[Any]:
        """Abandons the current tasks and draws new ones; returns their first observations."""
        self.batch.next_tasks(self._active, **kwargs)
        observations = self.observe()
        return [row_of(observations, position) for position in range(self.num_unpaused_tasks)]

    def reset_all(self) -> None:
        """Calls `sampler.reset()` and draws the first task of every active sampler."""
        with preserve_rng_state():
            self.batch.reset(self._active)

    def set_seeds(self, seeds: Sequence[int]) -> None:
        """Seeds the generators of the active samplers, one seed each."""
        with preserve_rng_state():
            for index, seed in zip(self._active, seeds, strict=True):
                self.batch.samplers[index].set_seed(seed)

    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns for each sampler what is needed to continue, None where it cannot be saved."""
        return self.batch.state_dict()

    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> list[int]:
        """Restores what `state_dict` returned; returns the indices of samplers that had to be restarted."""
        restarted = [index for index, state in enumerate(states) if not self._restore(index, state)]
        with preserve_rng_state():
            self.batch.reset(restarted)
        return restarted

    def _restore(self, index: int, state: dict[str, Any] | None) -> bool:
        """Restores one sampler; returns False if there is nothing to restore or it cannot be done."""
        states: list[dict[str, Any] | None] = [None] * self._num_samplers
        states[index] = state
        try:
            with preserve_rng_state():
                self.batch.load_state_dict(states)
        except TaskError as error:
            get_logger().warning(f"Task sampler {index} starts anew: {error}")
            return False
        return state is not None

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers commands that do not advance tasks, which goes by `step_batch` and `next_task` here."""
        answers = []
        for position, command, item in zip(positions, commands, data, strict=True):
            index = self._active[position]
            is_for_sampler = command in (protocol.SAMPLER_COMMAND, protocol.SAMPLER_ATTR_COMMAND)
            target = self.batch.samplers[index] if is_for_sampler else self.batch.task(index)
            answers.append(protocol.answer(command, item, target))
        return answers

    def close(self) -> None:
        """Closes the batch, which closes its samplers. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.batch.close()


def batch_of(
    make_sampler_fn: Callable[..., TaskSampler],
    suite: SensorSuite | None,
    sampler_fn_args: Sequence[dict[str, Any]],
    num_threads: int,
) -> TaskBatch | str:
    """Builds samplers as one batch, or says why they cannot be one; in the latter case they are closed again.

    The global random generators stay as they are.

    Args:
        make_sampler_fn: builds one sampler.
        suite: callback sensors to read on every finished task.
        sampler_fn_args: the arguments of each sampler, at least one.
        num_threads: threads of the engine.
    """
    samplers: list[TaskSampler] = []
    batch = None
    try:
        _build(make_sampler_fn, sampler_fn_args[:1], samplers)
        sampler_class = type(samplers[0])
        if not any("make_batch" in base.__dict__ for base in sampler_class.__mro__ if base is not TaskSampler):
            return f"{sampler_class.__name__} offers no batch"
        _build(make_sampler_fn, sampler_fn_args[1:], samplers)
        with preserve_rng_state():
            batch = sampler_class.make_batch(samplers, num_threads)
        if batch is None:
            return sampler_class.batch_obstacle(samplers)
    finally:
        if batch is None:
            close_samplers(samplers)
    if suite is not None:
        if not hasattr(batch, "callback_suite"):
            batch.close()
            return f"{type(batch).__name__} does not read callback sensors"
        batch.callback_suite = suite
    return batch


def _build(
    make_sampler_fn: Callable[..., TaskSampler],
    args_list: Sequence[dict[str, Any]],
    samplers: list[TaskSampler],
) -> None:
    """Appends new samplers to `samplers`, leaving the global random generators as they are."""
    for args in args_list:
        with preserve_rng_state():
            samplers.append(make_sampler_fn(**{"mp_ctx": None, **args}))


def row_of(observations: Mapping[str, Any], position: int) -> ObservationDict:
    """Returns the observation of one sampler out of arrays [N, O...]."""
    return {
        key: row_of(value, position) if isinstance(value, Mapping) else value[position].copy()
        for key, value in observations.items()
    }
