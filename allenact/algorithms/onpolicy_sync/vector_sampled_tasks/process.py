"""ProcessVectorTasks: samplers spread over worker processes, several of which step at a time.

Each worker runs a contiguous part of the samplers, one after another or as a batch. Actions, observations,
rewards and flags of `step_batch` are rows of arrays in shared memory; all else travels over the workers' pipes,
including rollouts that workers collect by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import gymnasium as gym

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import (
    FlatActions,
    VectorTasks,
    as_array,
    callback_suite,
    common_observation_space,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import RolloutChunk, RolloutRequest
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import Request
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    Layout,
    StepArrays,
    create_shared_memory,
    layout_error,
    layout_of_batch,
    map_shared_memory,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker import WorkerSpec
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker_pool import WorkerPool, prepared
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict, StepBatch
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


class ProcessVectorTasks(VectorTasks):
    """Steps its samplers in worker processes, several samplers each.

    Args:
        make_sampler_fn: called in the workers, as `make_sampler_fn(mp_ctx=context, **arguments)`.
        sampler_fn_args: the arguments of each sampler.
        callback_sensors: read on every finished task.
        mp_ctx: the multiprocessing context to start workers with.
        max_processes: workers at most; None: the cores that this process may use.
        read_timeout: seconds to wait for an answer (the first takes up to five times that); None: for ever.
        action_space: the model's action space; None: that of the first task.
        auto_resample_when_done: whether to draw the next task when one ends; else the task stays finished.
        as_batches: whether each worker steps its samplers as a batch if they offer one.
        keep_healthy: whether a failure in a worker leaves the others alive, so that `restart_lost` can go on.

    Attributes:
        mp_ctx: as given.
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
        sampler_fn_args: Sequence[dict[str, Any]],
        callback_sensors: SensorSuite | Sequence[Sensor] | None = None,
        *,
        mp_ctx: BaseContext,
        max_processes: int | None = None,
        read_timeout: float | None = READ_TIMEOUT_S,
        action_space: gym.Space | None = None,
        auto_resample_when_done: bool = True,
        as_batches: bool = False,
        keep_healthy: bool = False,
    ) -> None:
        super().__init__(len(sampler_fn_args))
        self.mp_ctx = prepared(mp_ctx)
        parts = partition_sequence(sampler_fn_args, min(max_processes or usable_cores(), len(sampler_fn_args)))
        with preserve_rng_state():
            seeds = worker_seeds(len(parts), None)  # follow from the run's seed
        self._specs = [
            WorkerSpec(
                make_sampler_fn=make_sampler_fn,
                sampler_args=[{"mp_ctx": mp_ctx, **args} for args in part],
                callback_suite=callback_suite(callback_sensors),
                auto_resample_when_done=auto_resample_when_done,
                action_space=action_space,
                first_sampler=sum(len(earlier) for earlier in parts[:worker]),
                seed=seeds[worker],
                as_batch=as_batches,
            )
            for worker, part in enumerate(parts)
        ]
        self._arrays: StepArrays | None = None  # made by the first observe(), which knows shapes and types
        self._is_shared = False  # whether the workers write to them
        self._spans = self._compute_spans()
        self._pool = WorkerPool(mp_ctx, self._specs, read_timeout, keep_healthy)
        try:
            workers = [info for _, info in sorted(self._pool.receive_first().items())]
            self.observation_space = common_observation_space(
                [info.observation_space for info in workers for _ in info.action_spaces]
            )
        except BaseException:
            self.close()
            raise
        self.batch_obstacle = next((info.batch_obstacle for info in workers if info.batch_obstacle), None)
        self.action_spaces = [space for info in workers for space in info.action_spaces]
        self.action_space = self.action_spaces[0] if action_space is None else action_space
        processes = "process" if len(parts) == 1 else "processes"
        self.description = f"stepped in {len(parts)} worker {processes} ({mp_ctx.get_start_method()})"
        if all(info.batch for info in workers):
            self.description += f", in each {workers[0].batch.removeprefix('stepped ')}"

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
            stop = start + sum(spec.first_sampler <= sampler < last for sampler in self.active)
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
        return self._ask({s: (method, tuple(values[s.start : s.stop] for values in per_sampler)) for s in self._spans})

    def _ask_all(self, method: str, *args: Any) -> list[tuple[Span, Any]]:
        """Calls a method of every worker that has active samplers, with the same arguments."""
        return self._ask(dict.fromkeys(self._spans, (method, args)))

    def _ask(self, requests: dict[Span, Request]) -> list[tuple[Span, Any]]:
        answers = self._pool.ask({span.worker: request for span, request in requests.items()})
        return [(span, answers[span.worker]) for span in requests]

    # Steps

    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...]."""
        if self._is_shared:
            self._ask_all("observe_shared")
        else:
            answers = self._ask_all("observe")
            if self._arrays is None:
                self._arrays = self._make_arrays(answers)
            for span, observations in answers:
                self._arrays.put_observations(self._active_of(span), observations)
        assert self._arrays is not None
        return self._arrays.select(self.active)[0]

    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next."""
        if self._arrays is None:
            self.observe()
        assert self._arrays is not None
        actions = as_array(flat_actions)  # [N, A]
        if self._is_shared:
            self._arrays.actions[self._arrays.index(self.active)] = actions
            answers = self._ask_all("step_shared", actions.dtype.str)
        else:
            batches = self._ask_each("step_batch", actions)
            for span, step in batches:
                self._arrays.put_step(self._active_of(span), step)
            answers = [(span, (step.final_observations, step.episodes, step.exhausted)) for span, step in batches]
        batch = StepBatch(*self._arrays.select(self.active), {}, [], [])
        for (_, start, _), (final_observations, episodes, exhausted) in answers:
            batch.final_observations.update((start + p, last) for p, last in final_observations.items())
            batch.episodes.extend(FinishedEpisode(start + e.sampler, e.metrics, e.callback_data) for e in episodes)
            batch.exhausted.extend(start + position for position in exhausted)
        return batch

    def _active_of(self, span: Span) -> list[int]:
        return self.active[span.start : span.stop]

    @property
    def can_collect_rollouts(self) -> bool:
        """Whether `collect_rollout` can be called now: not while samplers are paused."""
        return self.num_unpaused_tasks == self.num_samplers

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

    def _make_arrays(self, observations: list[tuple[Span, ObservationDict]]) -> StepArrays:
        """Allocates arrays for all samplers, given the observations of each worker; in shared memory where possible."""
        layouts = [(span, layout_of_batch(each)) for span, each in observations]
        layout = layouts[0][1]
        for span, other in layouts:
            if set(other) != set(layout):
                raise layout_error(layout, other, self.active[span.start])
        return self._share_memory(layout) or StepArrays.allocate(layout, self.num_samplers)

    def _share_memory(self, layout: Layout) -> StepArrays | None:
        """Returns arrays that every worker writes its rows of, None if they cannot be had."""
        size = (layout, self.num_samplers, flatdim(self.action_space))
        try:
            descriptor = create_shared_memory(StepArrays.num_bytes(*size))
        except OSError as error:
            get_logger().warning("no shared memory (%s): observations are copied through pipes, which is slower", error)
            return None
        try:
            arrays = StepArrays.allocate(*size, map_shared_memory(descriptor))
            rows = {
                worker: (*size, s.first_sampler, s.first_sampler + len(s.sampler_args))
                for worker, s in enumerate(self._specs)
            }
            self._pool.send({worker: ("share_memory", args) for worker, args in rows.items()}, descriptor)
            self._is_shared = all(self._pool.receive().values())
        finally:
            os.close(descriptor)
        return arrays if self._is_shared else None

    # Commands

    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers, by position."""
        self._send_commands(positions, commands, data)
        return self._receive_answers()

    def _send_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> None:
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
        return [state for _, states in self._ask_all("state_dict") for state in states]

    def load_state_dict(self, states: Sequence[dict[str, Any] | None], keep_unsaved: bool = False) -> list[int]:
        """Restores what `state_dict` returned; see `VectorTasks.load_state_dict`."""
        answers = self._ask({s: ("load_state_dict", (states[s.start : s.stop], keep_unsaved)) for s in self._spans})
        return [span.start + index for span, left in answers for index in left]

    def restart_lost(
        self, states: Sequence[dict[str, Any] | None], seeds: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Replaces the workers that a `TaskWorkerError` has told of; no sampler may be paused.

        The samplers of these workers begin new tasks. All others go back to `states`; those whose state is None
        continue their current tasks.

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
        replaced = [span for span in self._spans if span.worker in lost]
        self._ask({span: ("set_seeds", (seeds[span.start : span.stop],)) for span in replaced})
        answers = self._ask(
            {
                span: ("load_state_dict", ([None] * (span.stop - span.start), False))
                if span in replaced
                else ("load_state_dict", (states[span.start : span.stop], True))
                for span in self._spans
            }
        )
        restarted: list[int] = []
        continuing: list[int] = []
        for span, left in answers:
            (restarted if span in replaced else continuing).extend(span.start + index for index in left)
        return restarted, continuing

    def close(self) -> None:
        """Closes the samplers, ends the workers and frees the shared memory. Calling it again does nothing."""
        self._closed = True
        self._arrays = None
        if hasattr(self, "_pool"):  # which it is not if the first worker could not be started
            self._pool.close()
