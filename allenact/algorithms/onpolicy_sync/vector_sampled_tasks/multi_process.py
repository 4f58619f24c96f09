"""The samplers spread over worker processes: what the serial class does, several at a time.

Each worker runs a contiguous part of the samplers, one after another or as a batch. Actions, observations,
rewards and flags of `step_batch` are rows of arrays in shared memory; all else travels over the workers' pipes,
including rollouts that workers collect by themselves.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import (
    FlatActions,
    ListVectorTasks,
    as_array,
    callback_suite,
    common_observation_space,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    Layout,
    Selection,
    StepArrays,
    create_shared_memory,
    layout_error,
    map_shared_memory,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker import WorkerSpec
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker_pool import WorkerPool, prepared
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker_rollouts import RolloutChunk, RolloutRequest
from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict, StepBatch
from allenact.errors import ExperimentConfigError
from allenact.utils.cores import usable_cores
from allenact.utils.misc_utils import partition_sequence
from allenact.utils.seeding import preserve_rng_state, worker_seeds
from allenact.utils.spaces_utils import flatdim
from allenact.utils.system import get_logger

READ_TIMEOUT_S = 60.0
"""Seconds to wait for a worker's answer."""


class Span(NamedTuple):
    """The active samplers of one worker: positions `start` to `stop` among all active ones."""

    worker: int
    start: int
    stop: int


class VectorSampledTasks(ListVectorTasks):
    """Steps its samplers in worker processes, several samplers each.

    Args:
        make_sampler_fn: called in the workers, as `make_sampler_fn(mp_ctx=context, **arguments)`.
        sampler_fn_args: the arguments of each sampler.
        callback_sensors: read on every finished task.
        auto_resample_when_done: whether to draw the next task when one ends; else the task stays finished.
        multiprocessing_start_method: "forkserver", "spawn" or "fork"; exactly one of this and `mp_ctx` is not None.
        mp_ctx: the multiprocessing context to start workers with.
        should_log: whether to log how many workers are started.
        max_processes: workers at most; None: the cores that this process may use.
        read_timeout: seconds to wait for an answer (the first takes up to five times that); None: for ever.
        action_space: the model's action space; None: that of the first task.
        keep_healthy: whether a failure in a worker leaves the others alive, so that `restart_lost` can go on.
        as_batches: whether each worker steps its samplers as a batch if they offer one; there are no lists then.

    Attributes:
        batch_obstacle: why some samplers are not stepped as a batch, None if they are or are not meant to.

    Raises:
        NoTaskError: (a RuntimeError) a sampler has no first task.
        DifferentObservationSpacesError: (a NotImplementedError) the tasks observe different things.
        TaskWorkerError: a worker died, raised or did not answer in time (here or in any method); all are closed then,
            unless `keep_healthy`.
    """

    def __init__(
        self,
        make_sampler_fn: Callable[..., TaskSampler],
        sampler_fn_args: Sequence[dict[str, Any]] | None = None,
        callback_sensors: SensorSuite | Sequence[Sensor] | None = None,
        auto_resample_when_done: bool = True,
        multiprocessing_start_method: str | None = protocol.DEFAULT_MP_CONTEXT_TYPE,
        mp_ctx: BaseContext | None = None,
        should_log: bool = True,
        max_processes: int | None = None,
        read_timeout: float | None = READ_TIMEOUT_S,
        *,
        action_space: gym.Space | None = None,
        keep_healthy: bool = False,
        as_batches: bool = False,
    ) -> None:
        args_list = list(sampler_fn_args or ())
        super().__init__(len(args_list))
        self._context = _context(multiprocessing_start_method, mp_ctx)
        parts = partition_sequence(args_list, min(max_processes or usable_cores(), len(args_list)))
        with preserve_rng_state():
            seeds = worker_seeds(len(parts), None)  # follow from the run's seed
        self._specs = specs = [
            WorkerSpec(
                make_sampler_fn=make_sampler_fn,
                sampler_args=[{"mp_ctx": self._context, **args} for args in part],
                callback_suite=callback_suite(callback_sensors),
                auto_resample_when_done=auto_resample_when_done,
                action_space=action_space,
                first_sampler=sum(len(earlier) for earlier in parts[:worker]),
                seed=seeds[worker],
                as_batch=as_batches,
            )
            for worker, part in enumerate(parts)
        ]
        self.description = (
            f"stepped in {len(specs)} worker {'process' if len(specs) == 1 else 'processes'}"
            f" ({self._context.get_start_method()})"
        )
        if should_log:
            get_logger().info("Starting %s.", self.description)
        self._arrays: StepArrays | None = None  # made by the first observe(), which knows shapes and types
        self._is_shared = False
        self._spans = self._compute_spans()
        self._pool = WorkerPool(self._context, specs, read_timeout, keep_healthy)
        try:
            greetings = [greeting for _, greeting in sorted(self._pool.receive_first().items())]
            spaces = [greeting.observation_space for greeting in greetings for _ in greeting.action_spaces]
            self.observation_space = common_observation_space(spaces)
        except BaseException:
            self.close()
            raise
        self.batch_obstacle = next((greeting.obstacle for greeting in greetings if greeting.obstacle), None)
        self._is_batched = any(greeting.batch for greeting in greetings)
        if all(greeting.batch for greeting in greetings):
            self.description += f", in each {greetings[0].batch.removeprefix('stepped ')}"
        self.action_spaces = [space for greeting in greetings for space in greeting.action_spaces]
        self.action_space = self.action_spaces[0] if action_space is None else action_space

    @property
    def mp_ctx(self) -> BaseContext:
        """The multiprocessing context of the workers."""
        return self._context

    @property
    def is_closed(self) -> bool:
        """Whether `close` has been called, also by a failure."""
        return self._closed or self._pool.is_closed

    # Which worker has which sampler

    def _compute_spans(self) -> list[Span]:
        """Returns the workers that have active samplers, with the positions of these."""
        spans, start = [], 0
        for worker, spec in enumerate(self._specs):
            last = spec.first_sampler + len(spec.sampler_args)
            stop = start + sum(spec.first_sampler <= sampler < last for sampler in self._active)
            if stop > start:
                spans.append(Span(worker, start, stop))
            start = stop
        return spans

    def pause_at(self, sampler_index: int) -> None:
        """Excludes the active sampler at that position; those after it move down by one."""
        position = range(self.num_unpaused_tasks)[sampler_index]
        span = next(span for span in self._spans if position < span.stop)
        self._pool.ask({span.worker: ("pause_at", (position - span.start,))})
        super().pause_at(position)
        self._spans = self._compute_spans()

    def resume_all(self) -> None:
        """Includes all samplers again, in their original order."""
        self._pool.ask({worker: ("resume_all", ()) for worker in range(len(self._specs))})
        super().resume_all()
        self._spans = self._compute_spans()

    def _ask_each(self, method: str, *per_sampler: Any) -> list[tuple[Span, Any]]:
        """Calls a method of every worker that has active samplers, with its part of each argument."""
        self._pool.send(
            {s.worker: (method, tuple(values[s.start : s.stop] for values in per_sampler)) for s in self._spans}
        )
        replies = self._pool.receive()
        return [(span, replies[span.worker]) for span in self._spans]

    # Arrays

    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...]."""
        layouts = self._ask_each("observe_rows")
        if self._arrays is None:
            self._make_arrays(layouts)
        return self._select()[0]

    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next."""
        if self._arrays is None:
            self.observe()
        if self._is_shared:
            assert self._arrays is not None
            self._arrays.actions[self._active] = as_array(flat_actions)  # [N, A]
            answers = self._ask_each("step_shared_rows")
        else:
            answers = self._ask_each("step_rows", as_array(flat_actions))
        batch = StepBatch(*self._select(), {}, [], [])
        for (_, start, _), (final_observations, episodes, exhausted) in answers:
            batch.final_observations.update((start + p, last) for p, last in final_observations.items())
            batch.episodes.extend(FinishedEpisode(start + e.sampler, e.metrics, e.callback_data) for e in episodes)
            batch.exhausted.extend(start + position for position in exhausted)
        return batch

    @property
    def can_collect_rollouts(self) -> bool:
        """Whether `collect_rollout` can be called now: not while samplers are paused."""
        return self.num_unpaused_tasks == self._num_samplers

    def collect_rollout(self, request: RolloutRequest) -> Generator[RolloutChunk]:
        """Lets the workers collect a rollout by themselves; yields its chunks as they come.

        Raises:
            ExperimentConfigError: the policy cannot be pickled.
        """
        packed, num_steps = request.to_bytes(), len(request.noise)
        try:
            self._pool.send({span.worker: ("start_rollout", (packed,)) for span in self._spans})
            while self._pool.is_busy:
                chunks = self._pool.receive_next()
                unfinished = [w for w, chunk in chunks.items() if chunk.end_step < num_steps and chunk.can_continue]
                self._pool.send({worker: ("continue_rollout", ()) for worker in unfinished}, others_busy=True)
                yield from chunks.values()
        finally:
            if not self.is_closed:
                self._pool.receive()  # the consumer gave up: the next request must not get an answer to the last one

    def _make_arrays(self, layouts: list[tuple[Span, Layout]]) -> None:
        """Allocates the arrays of all samplers, in shared memory if that can be had."""
        layout = layouts[0][1]
        for span, other in layouts:
            if set(other) != set(layout):
                raise layout_error(layout, other, self._active[span.start])
        self._arrays = self._share_memory(layout) or StepArrays(layout, self._num_samplers)

    def _share_memory(self, layout: Layout) -> StepArrays | None:
        """Returns arrays that every worker writes its rows of, None if they cannot be had."""
        size = (layout, self._num_samplers, flatdim(self.action_space))
        try:
            descriptor = create_shared_memory(StepArrays.num_bytes(*size))
        except OSError as error:
            get_logger().warning("no shared memory (%s): observations are copied through pipes, which is slower", error)
            return None
        try:
            arrays = StepArrays(*size, map_shared_memory(descriptor))
            rows = {
                worker: (*size, s.first_sampler, s.first_sampler + len(s.sampler_args))
                for worker, s in enumerate(self._specs)
            }
            self._pool.send({worker: ("share_memory", args) for worker, args in rows.items()}, descriptor)
            self._is_shared = all(self._pool.receive().values())
        finally:
            os.close(descriptor)
        return arrays if self._is_shared else None

    def _select(self) -> Selection:
        """Returns observations, rewards, dones and truncated of the active samplers."""
        assert self._arrays is not None
        if not self._is_shared:
            for span, rows in self._ask_each("select_rows"):
                self._arrays.put(self._active[span.start : span.stop], rows)
        return self._arrays.select(self._active)

    # Lists

    def async_step(self, actions: Sequence[Any]) -> None:
        """Sends the actions to the workers; `wait_step` returns the results."""
        n = self.num_unpaused_tasks
        self._send_commands(range(n), [protocol.STEP_COMMAND] * n, actions)

    def wait_step(self) -> list[RLStepResult]:
        """Waits for the results of the step that `async_step` started."""
        if not self._pool.is_busy:
            raise RuntimeError("wait_step() needs an async_step() before it")
        return self._receive_answers()

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers, by position."""
        self._send_commands(positions, commands, data)
        return self._receive_answers()

    def _send_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> None:
        if self._is_batched and protocol.STEP_COMMAND in commands:
            raise NotImplementedError("samplers that are stepped as a batch take arrays: step_batch(flat_actions)")
        requests = {}
        for worker, start, stop in self._spans:
            part = [i for i, position in enumerate(positions) if start <= position < stop]
            if part:
                args = (
                    [positions[i] - start for i in part],
                    [commands[i] for i in part],
                    [data[i] for i in part],
                )
                requests[worker] = ("run_commands", args)
        self._pool.send(requests)

    def _receive_answers(self) -> list[Any]:
        replies = self._pool.receive()
        return [answer for worker in sorted(replies) for answer in replies[worker]]

    # State

    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns for each sampler what is needed to continue, None where it cannot be saved."""
        return [state for _, states in self._ask_each("state_dict") for state in states]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None]) -> list[int]:
        """Restores what `state_dict` returned; returns the indices of samplers that had to be restarted."""
        answers = self._ask_each("load_state_dict", states)
        return [span.start + index for span, restarted in answers for index in restarted]

    def restart_lost(
        self, states: Sequence[dict[str, Any] | None], seeds: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Replaces the workers that a `TaskWorkerError` has told of; no sampler may be paused.

        The samplers of these workers begin new tasks. All others go back to `states`; where that is None, they go on
        with the tasks that they are playing.

        Args:
            states: for each sampler, what `state_dict` returned before the failure, or None.
            seeds: for each sampler, the seed of its generator if it begins a new task.

        Returns:
            The samplers that begin new tasks, and those of the others that have not gone back.

        Raises:
            TaskWorkerError: it happens again; all workers are closed then.
        """
        lost = self._pool.replace_lost()
        self._pool.receive_first()
        self._arrays, self._is_shared = None, False  # made anew, also for the new workers
        mine = {span.worker: slice(span.start, span.stop) for span in self._spans}
        self._pool.ask({worker: ("set_seeds", (seeds[mine[worker]],)) for worker in lost})
        new = [None] * self._num_samplers
        answers = self._pool.ask(
            {
                worker: ("load_state_dict", (new[part],)) if worker in lost else ("go_back", (states[part],))
                for worker, part in mine.items()
            }
        )
        restarted: list[int] = []
        playing_on: list[int] = []
        for worker, indices in sorted(answers.items()):
            (restarted if worker in lost else playing_on).extend(mine[worker].start + index for index in indices)
        return restarted, playing_on

    def close(self) -> None:
        """Closes the samplers, ends the workers and frees the shared memory. Calling it again does nothing."""
        self._closed = True
        self._arrays = None
        if hasattr(self, "_pool"):  # which it is not if the first worker could not be started
            self._pool.close()


def _context(start_method: str | None, mp_ctx: BaseContext | None) -> BaseContext:
    """Returns the multiprocessing context that one of the two arguments names."""
    if (start_method is None) == (mp_ctx is None):
        raise ExperimentConfigError(
            "exactly one of multiprocessing_start_method and mp_ctx has to be given.",
            f"multiprocessing_start_method={start_method!r}, mp_ctx={mp_ctx!r}",
        )
    methods = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in methods:
        raise ExperimentConfigError(
            f"this system cannot start processes by {start_method!r}.",
            f"multiprocessing_start_method={start_method!r}",
            f"use one of {', '.join(methods)}.",
        )
    return prepared(mp_ctx or multiprocessing.get_context(start_method))
