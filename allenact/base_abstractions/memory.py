"""Named tensors that know which of their dimensions counts samplers, such as recurrent states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

MemoryEntry = tuple[torch.Tensor, int]


class Memory(dict[str, MemoryEntry]):
    """A dict from names to (tensor, sampler dimension).

    Args:
        args: nothing, a mapping, or a sequence of (name, (tensor, sampler dimension)).
        kwargs: further entries by name.
    """

    def __init__(self, *args: Mapping[str, MemoryEntry] | Sequence[tuple[str, MemoryEntry]], **kwargs: Any) -> None:
        super().__init__()
        for key, (tensor, sampler_dim) in dict(*args, **kwargs).items():
            self.check_append(key, tensor, sampler_dim)

    def check_append(self, key: str, tensor: torch.Tensor, sampler_dim: int) -> Memory:
        """Adds an entry and returns the memory.

        Raises:
            TypeError: `key` is not a string or `tensor` not a tensor.
            ValueError: the name is taken, or the tensor has no such dimension.
        """
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"a memory entry is a name and a tensor, not {type(key)} and {type(tensor)}")
        if key in self:
            raise ValueError(f'memory already has an entry called "{key}"; use set_tensor to replace it')
        if not 0 <= sampler_dim < tensor.dim():
            raise ValueError(f'sampler dimension {sampler_dim} of "{key}" is outside of {tuple(tensor.shape)}')
        self[key] = (tensor, sampler_dim)
        return self

    def tensor(self, key: str) -> torch.Tensor:
        """Returns the tensor of an entry."""
        return self[key][0]

    def sampler_dim(self, key: str) -> int:
        """Returns which dimension of an entry counts samplers."""
        return self[key][1]

    def set_tensor(self, key: str, tensor: torch.Tensor) -> Memory:
        """Replaces the tensor of an entry by one of the same shape and returns the memory."""
        if key not in self:
            raise KeyError(f'memory has no entry called "{key}"; it has {list(self)}')
        old = self.tensor(key)
        if tensor.shape != old.shape:
            raise ValueError(f'"{key}" has shape {tuple(old.shape)}, the new tensor {tuple(tensor.shape)}')
        self[key] = (tensor, self.sampler_dim(key))
        return self

    def sampler_select(self, keep: Sequence[int]) -> Memory:
        """Returns a memory with the samplers `keep`, in that order (which may permute them)."""
        selected = Memory()
        for key, (tensor, dim) in self.items():
            index = torch.as_tensor(keep, dtype=torch.int64, device=tensor.device)
            selected[key] = (tensor.index_select(dim, index), dim)
        return selected

    def step_select(self, step: int) -> Memory:
        """Returns a memory with one step (-1: the last), keeping the step dimension 0 with extent 1."""
        return self._map_steps(lambda tensor: tensor[step].unsqueeze(0), dropped_dims=0)

    def step_squeeze(self, step: int) -> Memory:
        """Returns a memory with one step (-1: the last), without a step dimension."""
        return self._map_steps(lambda tensor: tensor[step], dropped_dims=1)

    def _map_steps(self, function: Callable[[torch.Tensor], torch.Tensor], dropped_dims: int) -> Memory:
        mapped = Memory()
        for key, (tensor, dim) in self.items():
            if dim == 0:
                raise ValueError(f'"{key}" has no step dimension in front of its sampler dimension')
            mapped[key] = (function(tensor), dim - dropped_dims)
        return mapped

    def slice(self, dim: int, start: int | None = None, stop: int | None = None, step: int = 1) -> Memory:
        """Returns a memory with `start:stop:step` of a dimension that is equally long in all entries.

        Raises:
            ValueError: the entries differ in that dimension, or one does not have it.
        """
        for key, (tensor, _) in self.items():
            if dim >= tensor.dim():
                raise ValueError(f'"{key}" has no dimension {dim}: {tuple(tensor.shape)}')
        lengths = {key: tensor.shape[dim] for key, (tensor, _) in self.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"entries differ in length along dimension {dim}: {lengths}")
        index = (slice(None),) * dim + (slice(start, stop, step),)
        sliced = Memory()
        for key, (tensor, sampler_dim) in self.items():
            sliced[key] = (tensor[index], sampler_dim)
        return sliced

    def to(self, device: torch.device | str | int) -> Memory:
        """Moves all tensors to `device`, in place, and returns the memory."""
        for key, (tensor, dim) in self.items():
            self[key] = (tensor.to(device), dim)
        return self
