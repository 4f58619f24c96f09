"""The arrays that one step of N samplers reads and fills, in private memory or in memory shared between processes.

Row i belongs to sampler i, whichever process runs it: workers write rows, the trainer reads the arrays in place.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from allenact.base_abstractions.task_batch import ObservationDict, StepBatch
from allenact.errors import TaskError

_ALIGNMENT = 64  # bytes; a cache line, so that neighbouring arrays are not written through the same one


class Leaf(NamedTuple):
    """Shape and type of one sensor's observation (or of one entry of a nested one)."""

    path: tuple[str, ...]  # keys from the observation dictionary down to this leaf
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """The path as people write it."""
        return "/".join(self.path)


Layout = tuple[Leaf, ...]


def as_array(value: Any) -> np.ndarray:
    """Returns one observation as an array of the type that `tensor_utils.to_tensor` would give it.

    Arrays and tensors keep their type, Python and NumPy integers and Python bools become int64, all else float32.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, int | np.integer):
        return np.asarray(value, dtype=np.int64)
    return np.asarray(value, dtype=np.float32)


def copy_observation(observation: Mapping[str, Any]) -> ObservationDict:
    """Returns the observation in fresh arrays, which no sensor will write to."""
    return {
        key: copy_observation(value) if isinstance(value, Mapping) else np.array(as_array(value))
        for key, value in observation.items()
    }


def layout_of(observation: Mapping[str, Any]) -> Layout:
    """Returns shape and type of every leaf of the (nested) observation of one sampler, in its order.

    Raises:
        TaskError: an observation is neither an array, a tensor, a number nor a dictionary of these.
    """
    return tuple(_leaves(observation, ()))


def layout_of_batch(observations: Mapping[str, Any]) -> Layout:
    """Returns the layout of one sampler's observation, given those of N samplers, leaves [N, O...]."""
    return tuple(leaf._replace(shape=leaf.shape[1:]) for leaf in layout_of(observations))


def _leaves(observation: Mapping[str, Any], prefix: tuple[str, ...]) -> Iterator[Leaf]:
    for key, value in observation.items():
        path = (*prefix, key)
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
            continue
        try:
            array = as_array(value)
        except (TypeError, ValueError):
            array = np.asarray(None)
        if array.dtype.hasobject or array.dtype.kind not in "biufc":
            raise TaskError(
                f'sensor "{"/".join(path)}" returned a {type(value).__name__}.',
                do="observations are arrays, tensors, numbers, or dictionaries of these",
            )
        yield Leaf(path, array.shape, array.dtype.str)


class StepArrays:
    """One row per sampler for actions, observations, rewards and flags.

    Args:
        layout: the leaves of one sampler's observation.
        arrays: `actions`, one for each leaf, `rewards`, `dones` and `truncated`, as `allocate` makes them.

    Attributes:
        layout: as given.
        num_rows: number of samplers N.
        actions: [N, A] float64, which holds every float32 and every index exactly.
        observations: for each leaf an array [N, O...].
        rewards: [N] float32.
        dones: [N] bool.
        truncated: [N] bool.
    """

    def __init__(self, layout: Layout, arrays: Sequence[np.ndarray]) -> None:
        self.layout = layout
        self.actions, *self.observations, self.rewards, self.dones, self.truncated = arrays
        self.num_rows = len(self.rewards)
        self._num_keys = len({leaf.path[0] for leaf in layout})
        self._rows = [
            (leaf.path, leaf.path[0], len(leaf.path) == 1, array, leaf.shape, array.dtype)
            for leaf, array in zip(layout, self.observations, strict=True)
        ]

    @classmethod
    def allocate(
        cls, layout: Layout, num_rows: int, action_size: int = 0, memory: mmap.mmap | None = None
    ) -> StepArrays:
        """Makes arrays for N samplers.

        Args:
            layout: the leaves of one sampler's observation.
            num_rows: N.
            action_size: entries A of a flattened action; 0: actions come another way.
            memory: where to put the arrays, as long as `num_bytes` says; None: private memory, zeros.
        """
        specs, offsets, _ = _plan(layout, num_rows, action_size)
        if memory is None:
            return cls(layout, [np.zeros(shape, dtype) for shape, dtype in specs])
        return cls(
            layout,
            [
                np.ndarray(shape, dtype, buffer=memory, offset=offset)
                for (shape, dtype), offset in zip(specs, offsets, strict=True)
            ],
        )

    @staticmethod
    def num_bytes(layout: Layout, num_rows: int, action_size: int = 0) -> int:
        """Returns how much memory the arrays take."""
        return _plan(layout, num_rows, action_size)[2]

    def rows(self, first: int, last: int) -> StepArrays:
        """Returns a view on rows `first` to `last` (exclusive)."""
        return StepArrays(self.layout, [array[first:last] for array in (self.actions, *self._results())])

    def _results(self) -> list[np.ndarray]:
        return [*self.observations, self.rewards, self.dones, self.truncated]

    def write(self, row: int, observation: Mapping[str, Any], sampler: int) -> None:
        """Copies the observation of one sampler into its row.

        Args:
            row: which row.
            observation: uuid -> observation, of the layout these arrays were made for.
            sampler: the sampler's index among all, for the error message.

        Raises:
            TaskError: a sensor returned another shape or type than at first, or sensors came or went.
        """
        if len(observation) != self._num_keys:
            raise layout_error(self.layout, layout_of(observation), sampler)
        for path, key, is_flat, array, shape, dtype in self._rows:
            try:
                value = observation[key] if is_flat else _entry(observation, path)
                if not isinstance(value, np.ndarray):
                    value = as_array(value)
            except (KeyError, TypeError, ValueError):
                raise layout_error(self.layout, layout_of(observation), sampler) from None
            if value.shape != shape or value.dtype != dtype:
                raise layout_error(self.layout, layout_of(observation), sampler)
            array[row] = value

    def index(self, active: Sequence[int]) -> Any:
        """Returns what indexes the rows `active`: a slice, which NumPy handles faster, if these are all rows."""
        return slice(None) if len(active) == self.num_rows else active

    def select(self, active: Sequence[int]) -> tuple[ObservationDict, np.ndarray, np.ndarray, np.ndarray]:
        """Returns observations, rewards, dones and truncated of some rows.

        The arrays themselves when all rows are active, which the next step overwrites; else copies.
        """
        everything = len(active) == self.num_rows
        leaves = self._results() if everything else [array[active] for array in self._results()]
        observations: ObservationDict = {}
        for leaf, array in zip(self.layout, leaves[:-3], strict=True):
            node = observations
            for key in leaf.path[:-1]:
                node = node.setdefault(key, {})
            node[leaf.path[-1]] = array  # [n_active, O...]
        return observations, leaves[-3], leaves[-2], leaves[-1]

    def put_observations(self, active: Sequence[int], observations: Mapping[str, Any]) -> None:
        """Writes observations, leaves [n, O...], to n rows."""
        rows = self.index(active)
        for path, key, is_flat, array, _, _ in self._rows:
            array[rows] = observations[key] if is_flat else _entry(observations, path)

    def put_step(self, active: Sequence[int], batch: StepBatch) -> None:
        """Writes the arrays of a step of n samplers to their rows."""
        rows = self.index(active)
        self.put_observations(active, batch.observations)
        self.rewards[rows] = batch.rewards
        self.dones[rows] = batch.dones
        self.truncated[rows] = batch.truncated


def _entry(observation: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the leaf of a nested observation at `path`; KeyError if it is not there."""
    value: Any = observation
    for key in path:
        if not isinstance(value, Mapping):
            raise KeyError(key)
        value = value[key]
    return value


def layout_error(expected: Layout, got: Layout, sampler: int) -> TaskError:
    """Returns an error that names the first sensor whose observation has another shape or type than expected."""
    expected_leaves, got_leaves = ({leaf.name: leaf for leaf in layout} for layout in (expected, got))
    name = next(n for n in [*expected_leaves, *got_leaves] if expected_leaves.get(n) != got_leaves.get(n))
    return TaskError(
        f'sensor "{name}" of sampler {sampler} returned an observation of another kind than at first.',
        given=f"expected {_describe(expected_leaves.get(name))}, got {_describe(got_leaves.get(name))}",
        do="a sensor returns the same shape and type at every step, and the same for every sampler.",
    )


def _describe(leaf: Leaf | None) -> str:
    return f"shape {list(leaf.shape)} of {np.dtype(leaf.dtype).name}" if leaf else "nothing of that name"


def _plan(
    layout: Layout, num_rows: int, action_size: int
) -> tuple[list[tuple[tuple[int, ...], np.dtype]], list[int], int]:
    """Returns shape and type of every array, where each starts, and the bytes needed for all."""
    shapes = [((action_size,), "float64"), *((leaf.shape, leaf.dtype) for leaf in layout)]
    shapes += [((), "float32"), ((), "bool"), ((), "bool")]  # rewards, dones, truncated
    specs = [((num_rows, *shape), np.dtype(dtype)) for shape, dtype in shapes]
    offsets, end = [], 0
    for shape, dtype in specs:
        offsets.append(end)
        size = int(np.prod(shape)) * dtype.itemsize
        end += -(-size // _ALIGNMENT) * _ALIGNMENT  # rounded up
    return specs, offsets, end


def create_shared_memory(num_bytes: int) -> int:
    """Returns the file descriptor of memory that the kernel frees with its last user.

    It has no name, so there is nothing to clean up, whatever happens.

    Raises:
        OSError: it cannot be had, or is more than the machine has.
    """
    if num_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        # The kernel would not refuse: it would kill processes to make room.
        raise OSError(errno.ENOMEM, f"{num_bytes:,} bytes of shared memory are more than the machine has")
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("allenact-samplers", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:  # has no name either
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, num_bytes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_shared_memory(descriptor: int) -> mmap.mmap:
    """Maps the memory behind `descriptor`, which may be closed afterwards."""
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
