"""RolloutRows: the tensors of one rollout, allocated once and written in place, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.storage.observation_tree import FLATTEN_SEPARATOR
from allenact.base_abstractions.misc import Memory
from allenact.errors import TaskError


class RolloutRows:
    """Rows [full_size + 1, N, ...] of N samplers, of which T steps are in use.

    Row t of observations and masks belongs to observation t, row t of the others to the action taken on it;
    that action itself is kept as the previous action of row t + 1. Attributes show the rows in use.

    Args:
        full_size: steps to make room for.

    Attributes:
        step: steps taken in this rollout, T.
        full_size: steps there is room for.
        num_samplers: samplers in each row, N.
        device: where the rows are.
    """

    dim_names = ["step", "sampler", None]

    def __init__(self, full_size: int) -> None:
        self.full_size = full_size
        self.step = 0
        self.num_samplers = 0
        self.device = torch.device("cpu")
        self._observations: dict[str, torch.Tensor] = {}  # flat name -> [full_size + 1, N, O...]
        self._rows: dict[str, torch.Tensor] = {}  # name -> [full_size + 1, N, ...]
        self._views: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None  # of both, on the CPU
        self._targets: dict[str, torch.Tensor] = {}  # returns [T+1, N, 1], (norm_)advantages [T, N, 1]

    def _allocate(self, observations: Mapping[str, torch.Tensor], zero_actions: torch.Tensor | None) -> None:
        """Makes new rows, all zero except for the observations of row 0.

        Args:
            observations: flat name -> [N, O...].
            zero_actions: [N, A], None if there are no actions to keep.
        """
        self._observations = {name: self._new_rows(leaf) for name, leaf in observations.items()}
        for name, leaf in observations.items():
            self._observations[name][0] = leaf
        number = torch.zeros(self.num_samplers, 1)  # [N, 1]
        self._rows = {name: self._new_rows(number) for name in ("masks", "value_preds", "rewards")}
        if zero_actions is not None:
            self._rows["prev_actions"] = self._new_rows(zero_actions)
        self._targets = {}
        self._views = None

    def _new_rows(self, example: torch.Tensor) -> torch.Tensor:
        """Returns zeros [full_size + 1, N, ...] for values of the type and shape [N, ...] of `example`."""
        return example.new_zeros((self.full_size + 1, *example.shape), device=self.device)

    def _write(self, name: str, index: int, value: torch.Tensor) -> None:
        """Copies [N, ...] into row `index`; what is stored for the first time gets its rows now."""
        if name not in self._rows:
            self._rows[name] = self._new_rows(value)
        write_row(self._rows[name], index, value, name)

    def _numpy_rows(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns observations and other rows as arrays that share their memory, in which writing a row costs less."""
        if self._views is None:
            observations = {name: rows.numpy() for name, rows in self._observations.items()}
            self._views = observations, {name: rows.numpy() for name, rows in self._rows.items()}
        return self._views

    def _next_step(self) -> int:
        """Returns the index of the step to be written next, for which there is room."""
        if self.step == self.full_size:
            self._grow(max(1, 2 * self.full_size))
        return self.step

    def _grow(self, num_steps: int) -> None:
        """Makes room for `num_steps` steps, keeping what there is."""
        missing = num_steps - self.full_size
        if missing <= 0:
            return
        self.full_size = num_steps
        self._views = None
        for rows in (self._observations, self._rows):
            for name, old in rows.items():
                rows[name] = torch.cat((old, old.new_zeros((missing, *old.shape[1:]))))

    def _change(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replaces every tensor by what `function` returns for it."""
        self._views = None
        for rows in (self._observations, self._rows, self._targets):
            for name, old in rows.items():
                rows[name] = function(old)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, in use or not, and of the targets."""
        groups = (self._observations, self._rows, self._targets)
        return sum(rows.nbytes for group in groups for rows in group.values())

    def _carried_over(self, step: int) -> dict[str, dict[str, torch.Tensor]]:
        """Returns views [N, ...] of the row that a rollout starting at `step` would have as row 0."""
        return {
            "observations": {name: rows[step] for name, rows in self._observations.items()},
            "rows": {name: self._rows[name][step] for name in ("masks", "prev_actions") if name in self._rows},
        }

    @property
    def observations(self) -> Memory:
        """Flat name -> ([T+1, N, O...], 1)."""
        return Memory([(name, (rows[: self.step + 1], 1)) for name, rows in self._observations.items()])

    @property
    def unflattened_to_flattened(self) -> dict[tuple[str, ...], str]:
        """Path of names in the nested observations -> flat name."""
        return {tuple(name.split(FLATTEN_SEPARATOR)): name for name in self._observations}

    @property
    def flattened_to_unflattened(self) -> dict[str, list[str]]:
        """Flat name -> path of names in the nested observations."""
        return {name: name.split(FLATTEN_SEPARATOR) for name in self._observations}

    @property
    def masks(self) -> torch.Tensor:
        """[T+1, N, 1] 0 where row t is the first observation of an episode."""
        return self._rows["masks"][: self.step + 1]

    @property
    def actions(self) -> torch.Tensor:
        """[T, N, A] flattened."""
        return self._rows["prev_actions"][1 : self.step + 1]

    @property
    def prev_actions(self) -> torch.Tensor:
        """[T+1, N, A] flattened; row t + 1 is the action taken at row t."""
        return self._rows["prev_actions"][: self.step + 1]

    @property
    def action_log_probs(self) -> torch.Tensor:
        """[T, N, ...] as the distribution gave them."""
        return self._rows["action_log_probs"][: self.step]

    @property
    def value_preds(self) -> torch.Tensor:
        """[T+1, N, 1]; the last row is 0 until `before_updates`."""
        return self._rows["value_preds"][: self.step + 1]

    @property
    def rewards(self) -> torch.Tensor:
        """[T, N, 1] received after the action at row t."""
        return self._rows["rewards"][: self.step]

    @property
    def returns(self) -> torch.Tensor:
        """[T+1, N, 1] computed by `before_updates`."""
        return self._targets["returns"]


def write_row(rows: torch.Tensor | np.ndarray, index: int, value: Any, name: str) -> None:
    """Copies `value` into one row; without this check a wrong shape would be broadcast in silence."""
    if value.shape != rows.shape[1:]:
        raise TaskError(
            f'the shape of "{name}" does not fit into the rollout storage.',
            given=f"{tuple(value.shape)}, expected {tuple(rows.shape[1:])}",
            do="return the same shape at every step, with one row for each sampler.",
        )
    rows[index] = value
