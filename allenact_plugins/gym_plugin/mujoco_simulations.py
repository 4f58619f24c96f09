"""N simulations of one MuJoCo task on one `mujoco.batch.Batch`. The environment is the case N = 1.

Each gives the same bits alone or among others, on any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from allenact.errors import CheckpointError
from allenact.utils.system import get_logger
from allenact_plugins.gym_plugin.mujoco_tasks.base import Array, Fields, MuJoCoTask, row_sums

if TYPE_CHECKING:
    import mujoco


class SimulationStep(NamedTuple):
    """What n simulations answered to one environment step.

    Attributes:
        observations: [n, O] float64.
        rewards: [n] float64, 0 where unstable.
        terminated: [n] bool, the task ended by itself or the simulation became unstable.
        unstable: [n] bool, the engine met numbers it could not go on with, or the reward would not be finite.
        reward_terms: [n] each, what `rewards` is the sum of.
    """

    observations: Array
    rewards: Array
    terminated: npt.NDArray[np.bool_]
    unstable: npt.NDArray[np.bool_]
    reward_terms: dict[str, Array]


class MuJoCoSimulations:
    """N simulations of one task, stepped together.

    Args:
        task: what to simulate.
        num_simulations: N.
        num_threads: threads of the engine, the caller's included.

    Attributes:
        task: as given.
        num_unstable: steps so far in which a simulation became unstable.
    """

    def __init__(self, task: MuJoCoTask, num_simulations: int, num_threads: int = 1) -> None:
        import mujoco
        from mujoco.batch import Batch, SimulationError

        _write_no_log_file(mujoco)
        self.task = task
        self.num_unstable = 0
        self._simulation_error = SimulationError
        self._no_stage = int(mujoco.mjtStage.mjSTAGE_NONE)
        self._batch = Batch(task.model, num_simulations, num_threads)
        self._fields = self._bind_fields()
        # After a warning of bad qpos, qvel, qacc or ctrl (in the enumeration they follow one another) the engine has
        # gone back to the model's defaults.
        bad_numbers = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)
        self._bad_numbers = self._batch.warning[:, bad_numbers, 1]  # [N, 4] live: how often each was given
        self._all_stable = np.zeros(num_simulations, dtype=bool)  # [N] never written to
        self._before = np.zeros_like(task.measure(self._fields))  # [N, ...] what the next reward compares with

    def __len__(self) -> int:
        return int(self._batch.nsim)

    @property
    def num_threads(self) -> int:
        """Threads of the engine."""
        return int(self._batch.nthread)

    def reset(self, index: int, rng: np.random.Generator) -> Array:
        """Starts a new episode in one simulation and returns its first observation, [O] float64."""
        qpos, qvel = self.task.initial_state(rng)
        self._batch.reset([index], stage=self._no_stage)
        self._fields.qpos[index] = qpos
        self._fields.qvel[index] = qvel
        self._batch.forward([index])
        fields = self._fields.rows([index])
        self._before[index] = self.task.measure(fields)[0]
        return self.task.observation(fields)[0]  # [O]

    def step(self, actions: npt.ArrayLike, ids: Sequence[int] | npt.NDArray[np.intp]) -> SimulationStep:
        """Takes one environment step in the simulations `ids` (ascending).

        Args:
            actions: [n, A], neither clipped nor scaled unless the task has `unit_actions`.
            ids: the n simulations.
        """
        # After a step of the engine the caches are cold and each call of NumPy costs about 3 us, which is why this
        # function makes few: rows that are all simulations are a slice, and trouble is looked for as a whole first.
        actions = self.task.controls(np.asarray(actions, dtype=np.float64))  # [n, A]
        everyone = len(ids) == len(self)
        rows = slice(None) if everyone else np.asarray(ids)
        self._fields.ctrl[rows] = actions
        raised: Sequence[int] = ()
        try:
            self._batch.step(None if everyone else rows, nstep=self.task.frame_skip)
        except self._simulation_error as error:  # the others have made their step
            raised = error.ids

        fields = self._fields if everyone else self._fields.rows(rows)
        with np.errstate(all="ignore"):  # absurd actions give absurd numbers; that is what `unstable` is for
            after = self.task.measure(fields)  # [n, ...]
            observations = self.task.observation(fields)  # [n, O]
            terms = self.task.reward_terms(fields, observations, actions, self._before[rows], after)
            rewards = _added_in_order(terms)  # [n]
            terminated = self.task.terminated(fields)  # [n]
        self._before[rows] = after
        unstable = self._all_stable[rows]  # [n]
        if len(raised) or np.count_nonzero(self._bad_numbers) or not math.isfinite(row_sums(rewards)):
            unstable = self._find_unstable(raised, rewards, rows)
            terminated = terminated | unstable
            rewards[unstable] = 0.0
        return SimulationStep(observations, rewards, terminated, unstable, terms)

    def _find_unstable(self, raised: Sequence[int], rewards: Array, rows: Any) -> npt.NDArray[np.bool_]:
        """Returns which of the simulations `rows` met numbers that they could not go on with, [n]; counts them."""
        failed = np.zeros(len(self), dtype=bool)  # [N]
        failed[list(raised)] = True
        unstable = failed[rows] | self._bad_numbers[rows].any(axis=1) | ~np.isfinite(rewards)  # [n]
        if unstable.any():
            self._count_unstable(int(unstable.sum()))
        return unstable

    def state_dict(self, index: int) -> dict[str, Any]:
        """Returns all that decides the future of one simulation."""
        return {"physics": self._batch.state[index].copy(), "before": np.array(self._before[index])}

    def load_state_dict(self, index: int, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, possibly of another simulation of the same task.

        Raises:
            CheckpointError: the state is that of another model.
        """
        given, own = np.shape(state["physics"]), self._batch.state[index].shape
        if given != own:
            raise CheckpointError(
                f"the saved simulation is not one of {type(self.task).__name__} with this model.",
                given=f"{given[0]} numbers were saved, this model has {own[0]}",
                do="resume with the environment and options that the state was saved with.",
            )
        self._batch.reset([index], stage=self._no_stage)
        self._batch.state[index] = state["physics"]
        self._before[index] = state["before"]

    def data(self, index: int) -> mujoco.MjData:
        """Returns a copy of one simulation with all positions up to date, to draw it."""
        import mujoco

        data = self._batch.get_data(index)
        mujoco.mj_forward(self.task.model, data)
        return data

    def _count_unstable(self, count: int) -> None:
        """Counts, and says so the first time, the tenth, the hundredth and so on."""
        before, self.num_unstable = self.num_unstable, self.num_unstable + count
        if len(str(self.num_unstable)) > len(str(before)) or before == 0:
            get_logger().warning(
                "%s: a simulation met numbers it could not go on with (or actions that are not finite). "
                "Its episode ends there with reward 0. So far: %d in %d simulations.",
                type(self.task).__name__,
                self.num_unstable,
                len(self._all_stable),
            )

    def _bind_fields(self) -> Fields:
        """Live arrays: the state is writable, the derived fields follow each call of the engine."""
        names = {"qpos", "qvel", "ctrl", *self.task.derived_fields}
        arrays: dict[str, Array] = {}
        if "cfrc_ext" in names and self.task.contact_forces == "zero":
            # Not bound: nothing would compute it, and it may then hold anything.
            names.remove("cfrc_ext")
            arrays["cfrc_ext"] = np.zeros((len(self), self.task.model.nbody, 6))  # [N, nbody, 6]
        arrays |= {name: self._batch.bind(name) for name in names}
        return Fields(**arrays)


def _write_no_log_file(mujoco: Any) -> None:
    """Keeps the engine from writing MUJOCO_LOG.TXT into whatever folder this process runs in."""
    config = mujoco.MjLogConfig.get()
    config.logto_file = False
    config.set()


def _added_in_order(terms: dict[str, Array]) -> Array:
    """[n] the sum of the terms from first to last; another order would give other last bits."""
    first, *others = terms.values()
    total = first.copy()
    for term in others:
        total += term
    return total
