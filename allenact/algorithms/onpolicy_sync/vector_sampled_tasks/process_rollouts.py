"""Rollouts that sampler processes collect by themselves: the policy goes to them, and what they saw comes back.

Between two steps nobody waits and no message is sent. The rollout is bit for bit the one of stepping in lockstep.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from allenact.algorithms.onpolicy_sync.storage.observation_tree import flat_leaves, unflatten_observations
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import pickled
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActFunction
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks

CHUNK_S = 0.1
"""Seconds after which a process hands over what it has collected. Stopping a run may take that long; handing over costs
next to nothing."""


class TruncatedEpisode(NamedTuple):
    """An episode of a rollout that a limit ended, so that its last value has to be bootstrapped."""

    step: int  # of the rollout, the last one of the episode
    sampler: int  # position
    final_observation: ObservationDict  # leaves [O...]


@dataclass(frozen=True)
class RolloutRequest:
    """The T steps that N samplers are to take.

    Attributes:
        act: chooses actions [N, A] from the observations and the noise of a step.
        noise: [T, N, ...] of all steps.
        observations: of the first step, under flat names, leaves [N, O...].
    """

    act: ActFunction
    noise: np.ndarray
    observations: dict[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """Pickles the request.

        Raises:
            ExperimentConfigError: the policy cannot be pickled.
        """
        return pickled(
            self,
            repr(self.act),
            "the policy cannot be sent to sampler processes, because it cannot be pickled.",
            "define what ReparameterizedPolicy(act=...) gets at the top of a module, or use --sampler_backend serial.",
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads what `to_bytes` returned."""
        request: Self = pickle.loads(data)
        return request


@dataclass(frozen=True)
class RolloutChunk:
    """K consecutive steps of n of the N samplers.

    Attributes:
        first_step: index of the first one in the rollout.
        samplers: positions of the n samplers.
        observations: under flat names, leaves [K, n, O...], after each step; see `StepBatch`.
        actions: [K, n, A].
        rewards: [K, n] float32.
        dones: [K, n] bool.
        truncated: the episodes that a limit ended.
        episodes: step and episode of all that ended.
        exhausted: positions of samplers without a next task; they were not stepped any further.
    """

    first_step: int
    samplers: slice
    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    truncated: list[TruncatedEpisode]
    episodes: list[tuple[int, FinishedEpisode]]
    exhausted: list[int]

    @property
    def end_step(self) -> int:
        """Index of the step after the last one."""
        return self.first_step + len(self.rewards)

    @property
    def can_continue(self) -> bool:
        """Whether these samplers can be stepped further: none is exhausted, and all rewards are finite."""
        return not self.exhausted and bool(np.isfinite(self.rewards).all())


class RolloutWorker:
    """Collects the part of a rollout that belongs to the samplers of one process.

    The policy is given the observations of all N samplers, where those of other processes stay as they were at first: a
    matrix product of fewer rows may be rounded differently, and a rollout must not depend on the number of processes.

    Args:
        tasks: the samplers of this process, none of them paused.
        request: what all samplers are to do.
        first_sampler: position of the first of these samplers.
    """

    def __init__(self, tasks: VectorTasks, request: RolloutRequest, first_sampler: int) -> None:
        self._tasks = tasks
        self._request = request
        self._samplers = slice(first_sampler, first_sampler + tasks.num_unpaused_tasks)
        self._observations = {name: leaf.copy() for name, leaf in request.observations.items()}  # leaves [N, O...]
        self._nested_observations = unflatten_observations(self._observations)
        self._step = 0

    def collect_chunk(self) -> RolloutChunk:
        """Steps until the rollout is complete, the chunk is due, or something is wrong that the trainer reports."""
        first_step = self._step
        steps: list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]] = []
        truncated: list[TruncatedEpisode] = []
        episodes: list[tuple[int, FinishedEpisode]] = []
        exhausted: list[int] = []
        due = time.perf_counter() + CHUNK_S
        offset = self._samplers.start
        while self._step < len(self._request.noise):
            noise = self._request.noise[self._step]  # [N, ...]
            actions = self._request.act(self._nested_observations, noise)[self._samplers].copy()  # [n, A]
            batch = self._tasks.step_batch(actions)
            leaves = list(flat_leaves(batch.observations))
            for name, leaf in leaves:
                self._observations[name][self._samplers] = leaf
            observations = {name: leaf.copy() for name, leaf in leaves}
            steps.append((observations, actions, batch.rewards.copy(), batch.dones.copy()))
            truncated.extend(TruncatedEpisode(self._step, offset + i, o) for i, o in batch.final_observations.items())
            episodes.extend((self._step, replace(e, sampler=offset + e.sampler)) for e in batch.episodes)
            exhausted = batch.exhausted
            self._step += 1
            if exhausted or not np.isfinite(batch.rewards).all() or time.perf_counter() > due:
                break
        seen, actions_of_steps, rewards, dones = zip(*steps, strict=True)
        return RolloutChunk(
            first_step=first_step,
            samplers=self._samplers,
            observations={name: np.stack([each[name] for each in seen]) for name in self._observations},  # [K, n, O...]
            actions=np.stack(actions_of_steps),  # [K, n, A]
            rewards=np.stack(rewards),  # [K, n]
            dones=np.stack(dones),  # [K, n]
            truncated=truncated,
            episodes=episodes,
            exhausted=[offset + position for position in exhausted],
        )
