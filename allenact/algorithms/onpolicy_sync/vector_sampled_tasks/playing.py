"""Sampler processes that play a rollout by themselves: the policy goes to them, and what they saw comes back.

Nobody waits for anybody between two steps, and no message is sent. What comes out is the same as row by row.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from allenact.algorithms.onpolicy_sync.storage.observation_tree import flat_leaves, unflatten_observations
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import pickled
from allenact.base_abstractions.task_batch import FinishedEpisode, ObservationDict

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import PureAct
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks

REPORT_S = 0.1
"""How long a process plays before it hands over what it has: so long may a stop take, and a report is cheap."""


@dataclass(frozen=True)
class Game:
    """What N samplers are to play for T steps.

    Attributes:
        act: chooses actions [N, A] from observations and the noise of a step.
        noise: [T, N, ...] of all steps.
        observations: under flat names, leaves [N, O...]; of the first step.
    """

    act: PureAct
    noise: np.ndarray
    observations: dict[str, np.ndarray]

    def packed(self) -> bytes:
        """Returns the game as it travels to the processes.

        Raises:
            ExperimentConfigError: the policy cannot be pickled.
        """
        return pickled(
            self,
            repr(self.act),
            "the policy cannot be sent to sampler processes, because it cannot be pickled.",
            "define what NoisyPolicy(act=...) gets at the top of a module, or use --sampler_backend serial.",
        )

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Returns the game that `packed` returned."""
        game: Self = pickle.loads(packed)
        return game


@dataclass(frozen=True)
class PlayedRows:
    """K steps of n of the N samplers.

    Attributes:
        row: of the first step in the rollout.
        samplers: the positions of the n samplers.
        observations: under flat names, leaves [K, n, O...], after each step; see `StepBatch`.
        actions: [K, n, A].
        rewards: [K, n] float32.
        dones: [K, n] bool.
        final_observations: row, position and last observation of each truncated episode.
        episodes: row and episode of those that ended.
        exhausted: positions of samplers that have no next task; they were not stepped any further.
    """

    row: int
    samplers: slice
    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    final_observations: list[tuple[int, int, ObservationDict]]
    episodes: list[tuple[int, FinishedEpisode]]
    exhausted: list[int]

    @property
    def end(self) -> int:
        """The row after the last one."""
        return self.row + len(self.rewards)

    @property
    def is_sound(self) -> bool:
        """Whether these samplers can go on: none is exhausted, and all rewards are finite."""
        return not self.exhausted and bool(np.isfinite(self.rewards).all())


class Player:
    """Plays a game with the samplers of one process.

    The policy is given whole rows, in which the observations of other processes stay as they were at first: a matrix
    product of fewer rows may be rounded differently, and a rollout must not depend on the number of processes.

    Args:
        tasks: the samplers of this process, none of them paused.
        game: of all samplers.
        first: position of the first of these samplers.
    """

    def __init__(self, tasks: VectorTasks, game: Game, first: int) -> None:
        self._tasks = tasks
        self._game = game
        self._samplers = slice(first, first + tasks.num_unpaused_tasks)
        self._seen = {name: leaf.copy() for name, leaf in game.observations.items()}  # leaves [N, O...]
        self._nested = unflatten_observations(self._seen)
        self._row = 0

    def play(self) -> PlayedRows:
        """Plays until the game is over, it is time for a report, or something is wrong that the trainer will name."""
        first = self._row
        steps: list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]] = []
        final_observations: list[tuple[int, int, ObservationDict]] = []
        episodes: list[tuple[int, FinishedEpisode]] = []
        exhausted: list[int] = []
        report_at = time.perf_counter() + REPORT_S
        start = self._samplers.start
        while self._row < len(self._game.noise):
            chosen = self._game.act(self._nested, self._game.noise[self._row])[self._samplers].copy()  # [n, A]
            step = self._tasks.step_batch(chosen)
            flat = list(flat_leaves(step.observations))
            for name, leaf in flat:
                self._seen[name][self._samplers] = leaf
            steps.append(({name: leaf.copy() for name, leaf in flat}, chosen, step.rewards.copy(), step.dones.copy()))
            final_observations.extend((self._row, start + at, last) for at, last in step.final_observations.items())
            episodes.extend((self._row, replace(e, sampler=start + e.sampler)) for e in step.episodes)
            exhausted = step.exhausted
            self._row += 1
            if exhausted or not np.isfinite(step.rewards).all() or time.perf_counter() > report_at:
                break
        seen, actions, rewards, dones = zip(*steps, strict=True)
        return PlayedRows(
            row=first,
            samplers=self._samplers,
            observations={name: np.stack([each[name] for each in seen]) for name in self._seen},  # [K, n, O...]
            actions=np.stack(actions),  # [K, n, A]
            rewards=np.stack(rewards),  # [K, n]
            dones=np.stack(dones),  # [K, n]
            final_observations=final_observations,
            episodes=episodes,
            exhausted=[start + position for position in exhausted],
        )
