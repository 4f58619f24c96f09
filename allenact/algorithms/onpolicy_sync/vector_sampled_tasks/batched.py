"""Samplers whose tasks one engine advances together: the training loop's view of a `TaskBatch`."""

from __future__ import annotations

import contextlib
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
        first_sampler: index of the first sampler among all, for messages.

    Raises:
        DifferentObservationSpacesError: (a NotImplementedError) the tasks observe different things.
    """

    def __init__(self, batch: TaskBatch, action_space: gym.Space | None = None, first_sampler: int = 0) -> None:
        self.batch = batch
        batch.first_sampler = first_sampler
        super().__init__(len(batch.samplers))
        self.description = batch.description
        try:
            tasks = [batch.task(index) for index in self.active]
            self.observation_space = common_observation_space([task.observation_space for task in tasks], first_sampler)
        except BaseException:
            self.close()
            raise
        self.action_spaces = [task.action_space for task in tasks]
        self.action_space = self.action_spaces[0] if action_space is None else action_space

    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...]."""
        return self.batch.observe(self.active)

    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next."""
        return self.batch.step(as_array(flat_actions), self.active)

    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns for each sampler what is needed to continue, None where it cannot be saved."""
        return self.batch.state_dict()

    def load_state_dict(self, states: Sequence[dict[str, Any] | None], keep_unsaved: bool = False) -> list[int]:
        """Restores what `state_dict` returned; see `VectorTasks.load_state_dict`."""
        left = self._restore(states)
        restarted = [index for index in left if states[index] is not None or not keep_unsaved]
        if restarted:
            with preserve_rng_state():
                self.batch.reset(restarted)
        return left

    def _restore(self, states: Sequence[dict[str, Any] | None]) -> list[int]:
        """Restores samplers; returns those for which there is nothing to restore or it cannot be done."""
        with preserve_rng_state():
            try:
                self.batch.load_state_dict(states)
            except TaskError:  # that one costs the others nothing
                return [index for index in range(len(states)) if not self._restore_one(index, states)]
        return [index for index, state in enumerate(states) if state is None]

    def _restore_one(self, index: int, states: Sequence[dict[str, Any] | None]) -> bool:
        try:
            self.batch.load_state_dict([state if i == index else None for i, state in enumerate(states)])
        except TaskError as error:
            get_logger().warning(f"Task sampler {self.batch.first_sampler + index} starts anew: {error}")
            return False
        return states[index] is not None

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers. None can be stepped without the others."""
        return [self._answer(*question) for question in zip(positions, commands, data, strict=True)]

    def _answer(self, position: int, command: str, data: Any) -> Any:
        """Carries out one command for one sampler."""
        index = self.active[position]
        match command:
            case protocol.NEXT_TASK_COMMAND:
                self.batch.next_tasks([index], **(data or {}))
                return row_of(self.batch.observe([index]), 0)
            case protocol.RESET_COMMAND:
                with preserve_rng_state():
                    return self.batch.reset([index])
            case protocol.SEED_COMMAND:
                with preserve_rng_state():
                    return self.batch.samplers[index].set_seed(data)
            case protocol.SAMPLER_COMMAND | protocol.SAMPLER_ATTR_COMMAND:
                return protocol.answer(command, data, self.batch.samplers[index])
        return protocol.answer(command, data, self.batch.task(index))

    def close(self) -> None:
        """Closes the batch, which closes its samplers. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.batch.close()


def batch_of(samplers: Sequence[TaskSampler], suite: SensorSuite | None, num_threads: int) -> TaskBatch | str:
    """Makes samplers of one class a batch, or says why they cannot be one, and leaves them as they are.

    (They are closed if all that stands in the way are callback sensors: that shows in the batch only.)

    Args:
        samplers: fresh ones, at least one.
        suite: callback sensors to read on every finished task.
        num_threads: threads of the engine.
    """
    sampler_class = type(samplers[0])
    if not offers_batch(sampler_class):
        return f"{sampler_class.__name__} offers no batch"
    with preserve_rng_state():
        batch = sampler_class.make_batch(samplers, num_threads)
    if batch is None:
        return sampler_class.batch_obstacle(samplers)
    if suite is not None:
        if not hasattr(batch, "callback_suite"):
            batch.close()
            return f"{type(batch).__name__} does not read callback sensors"
        batch.callback_suite = suite
    return batch


def offers_batch(sampler_class: type[TaskSampler]) -> bool:
    """Whether a class of samplers, or one that it is derived from, has a `make_batch` of its own."""
    return any("make_batch" in base.__dict__ for base in sampler_class.__mro__ if base is not TaskSampler)


def build_samplers(
    make_sampler_fn: Callable[..., TaskSampler], sampler_fn_args: Sequence[dict[str, Any]], preserve_rng: bool = True
) -> list[TaskSampler]:
    """Builds samplers; if one of them cannot be built, the others are closed again.

    Args:
        make_sampler_fn: builds one sampler.
        sampler_fn_args: the arguments of each.
        preserve_rng: whether each finds, and leaves, the global random generators as they are now.
    """
    samplers: list[TaskSampler] = []
    try:
        for args in sampler_fn_args:
            with preserve_rng_state() if preserve_rng else contextlib.nullcontext():
                samplers.append(make_sampler_fn(**{"mp_ctx": None, **args}))
    except BaseException:
        close_samplers(samplers)
        raise
    return samplers


def row_of(observations: Mapping[str, Any], position: int) -> ObservationDict:
    """Returns the observation of one sampler out of arrays [N, O...]."""
    return {
        key: row_of(value, position) if isinstance(value, Mapping) else value[position].copy()
        for key, value in observations.items()
    }
