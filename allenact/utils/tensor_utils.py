"""Observations and images as tensors: batching, moving between devices, tiling, resizing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from allenact.utils.video_utils import (
        SummaryWriter,
        clips_to_video,
        convert_to_HWC,
        image,
        make_grid,
        process_video,
        tensor_to_clip,
        tensor_to_video,
    )

__all__ = [
    "ScaleBothSides",
    "SummaryWriter",
    "batch_observations",
    "clips_to_video",
    "clone_recursively",
    "convert_to_HWC",
    "detach_recursively",
    "image",
    "make_grid",
    "process_video",
    "tensor_to_clip",
    "tensor_to_video",
    "tile_images",
    "to_device_recursively",
    "to_tensor",
]

Device = torch.device | str | int


def to_tensor(v: Any) -> torch.Tensor:
    """Converts a value to a tensor.

    Tensors and arrays keep their type (a float64 array stays double). Python and NumPy integers and Python
    bools become int64; everything else (floats, np.bool_, lists) float32.
    """
    if isinstance(v, torch.Tensor):
        return v
    if isinstance(v, np.ndarray):
        return torch.from_numpy(v if v.flags.writeable and v.flags.c_contiguous else v.copy())
    return torch.tensor(v, dtype=torch.int64 if isinstance(v, int | np.integer) else torch.float32)


def batch_observations(observations: Sequence[Mapping[str, Any]], device: Device | None = None) -> Any:
    """Stacks the observations of N samplers.

    Args:
        observations: N dicts, possibly nested, with the same keys; values as `to_tensor` takes them, shape
            [O...].
        device: where the result goes; None leaves it on the CPU, or where its tensors are.

    Returns:
        One dict of the same structure with leaves [N, O...]; the empty sequence itself if N is 0.
    """
    if not observations:
        return observations
    return {
        key: batch_observations([observation[key] for observation in observations], device)
        if isinstance(value, Mapping)
        else _stack([observation[key] for observation in observations], device)
        for key, value in observations[0].items()
    }


def _stack(values: list[Any], device: Device | None) -> torch.Tensor:
    """Returns the tensor [N, O...] of N values [O...], with one copy to the device for all of them."""
    if all(isinstance(value, np.ndarray) for value in values):
        stacked = torch.from_numpy(np.stack(values))  # [N, O...]
    else:
        stacked = torch.stack([to_tensor(value) for value in values])  # [N, O...]
    return stacked if device is None else stacked.to(device)


def to_device_recursively(value: Any, device: Device, inplace: bool = True) -> Any:
    """Moves everything in a nested structure that can be moved (tensors, modules, memories) to `device`.

    Args:
        value: dicts, lists, tuples and sets of anything.
        device: where to.
        inplace: change dicts, lists and sets instead of building new ones.
    """
    return _map_recursively(value, "to", (device,), inplace)


def detach_recursively(value: Any, inplace: bool = True) -> Any:
    """Detaches all tensors in a nested structure from the graph; arguments as for `to_device_recursively`."""
    return _map_recursively(value, "detach", (), inplace)


def clone_recursively(value: Any) -> Any:
    """Returns a nested structure in which every tensor is a copy of its own."""
    return _map_recursively(value, "clone", (), inplace=False)


def _map_recursively(value: Any, method: str, args: tuple[Any, ...], inplace: bool) -> Any:
    """Calls `method` on everything in `value` that has it; the rest stays as it is."""
    if hasattr(value, method):
        return getattr(value, method)(*args)
    if isinstance(value, dict):
        mapped = value if inplace else type(value)()
        mapped.update({k: _map_recursively(v, method, args, inplace) for k, v in list(value.items())})
        return mapped
    if not isinstance(value, list | tuple | set):
        return value
    entries = [_map_recursively(entry, method, args, inplace) for entry in value]
    if isinstance(value, list) and inplace:
        value[:] = entries
        return value
    if isinstance(value, set) and inplace:
        value.clear()
        value.update(entries)
        return value
    return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)  # named tuples


def stack_observations(observations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks n observation dicts with leaves `[O...]` into one with leaves `[n, O...]`."""
    first = observations[0]
    return {
        key: stack_observations([obs[key] for obs in observations])
        if isinstance(first[key], dict)
        else np.stack([np.asarray(obs[key]) for obs in observations])
        for key in first
    }


def to_tensors(value: Any, device: torch.device) -> Any:
    """Turns nested dicts of arrays into nested dicts of tensors on `device`, sharing memory where they can."""
    if isinstance(value, dict):
        return {key: to_tensors(item, device) for key, item in value.items()}
    tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    return to_device_recursively(tensor, device, inplace=False) if device.type != "cpu" else tensor


def add_step_dim(value: Any) -> Any:
    """Gives tensors [N, ...] in nested dicts a leading dimension of one step."""
    if isinstance(value, dict):
        return {key: add_step_dim(item) for key, item in value.items()}
    return value.unsqueeze(0)  # [1, N, ...]


def tile_images(images: Sequence[np.ndarray]) -> np.ndarray:
    """Lays N images [H, W, C] out in a grid, row by row, as square as possible and filled up with black.

    Returns:
        [rows * H, columns * W, C].
    """
    stacked = np.asarray(images)  # [N, H, W, C]
    count, height, width, channels = stacked.shape
    rows = math.ceil(math.sqrt(count))
    columns = math.ceil(count / rows)
    grid = np.zeros((rows * columns, height, width, channels), dtype=stacked.dtype)
    grid[:count] = stacked
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)  # [rows, H, columns, W, C]
    return grid.reshape(rows * height, columns * width, channels)


class ScaleBothSides:
    """Resizes a PIL image, ignoring its proportions.

    Args:
        width: new width in pixels.
        height: new height in pixels.
        interpolation: Pillow's filter; 2 is `PIL.Image.BILINEAR`.
    """

    def __init__(self, width: int, height: int, interpolation: int = 2) -> None:
        self.width = width
        self.height = height
        self.interpolation = interpolation

    def __call__(self, img: Any) -> Any:
        """Returns the resized image."""
        return img.resize((self.width, self.height), self.interpolation)


def __getattr__(name: str) -> Any:
    """Offers the video helpers here too; imported on use because they are needed by the writing process only."""
    if name in __all__:
        from allenact.utils import video_utils

        return getattr(video_utils, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
