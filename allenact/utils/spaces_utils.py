"""Spaces and their points: actions and observations as flat tensors and back.

Unlike gymnasium's, this flattening keeps a discrete value as one number (no one-hot), and every function
works on points with any number of leading batch dimensions. Spaces are recognised by the names of their
classes, so those of the old `gym` package are understood too.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from allenact.errors import SpaceMismatchError

_KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Tuple", "Dict")


@functools.cache
def _kind_of_class(space_class: type) -> str:
    for base in space_class.__mro__:
        if base.__name__ in _KINDS and "spaces" in base.__module__:
            return base.__name__
    raise NotImplementedError(f"spaces of type {space_class.__name__} are not supported; known are {_KINDS}")


def space_kind(space: Any) -> str:
    """Returns "Box", "Discrete", "MultiDiscrete", "MultiBinary", "Tuple" or "Dict".

    Raises:
        NotImplementedError: the space is none of these.
    """
    return _kind_of_class(type(space))  # type: ignore[arg-type]  # a class is hashable


def as_gymnasium_space(space: Any) -> gym.Space:
    """Returns `space` itself if it is a gymnasium space, else the gymnasium space that equals it."""
    if isinstance(space, gym.Space):
        return space
    kind = space_kind(space)
    if kind == "Box":
        return spaces.Box(space.low, space.high, dtype=space.dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(space.nvec)
    if kind == "MultiBinary":
        return spaces.MultiBinary(space.n)
    return _like(space, [as_gymnasium_space(child) for child in _children(space)])


def flatdim(space: Any) -> int:
    """Returns A, the number of entries of a flattened point."""
    kind = space_kind(space)
    if kind == "Discrete":
        return 1
    if kind in ("Tuple", "Dict"):
        return sum(flatdim(child) for child in _children(space))
    return math.prod(space.shape)


def flatten(space: Any, torch_x: Any) -> torch.Tensor:
    """Flattens points of a space.

    Args:
        space: the space.
        torch_x: tensor(s) [..., O...] with any leading batch dimensions, in a tuple or dict for composite
            spaces; a number for one point of a Discrete.

    Returns:
        [..., A]. The parts of a composite space follow each other in the space's own order.
    """
    kind = space_kind(space)
    if kind == "Discrete":
        return torch_x.unsqueeze(-1) if isinstance(torch_x, torch.Tensor) else torch.tensor([torch_x])  # [..., 1]
    if kind == "Tuple":
        return torch.cat([flatten(s, x) for s, x in zip(space.spaces, torch_x, strict=True)], dim=-1)  # [..., A]
    if kind == "Dict":
        return torch.cat([flatten(s, torch_x[key]) for key, s in space.spaces.items()], dim=-1)  # [..., A]
    batch = torch_x.shape[: torch_x.dim() - len(space.shape)]
    return torch_x.reshape(*batch, math.prod(space.shape))  # [..., A]


def unflatten(space: Any, torch_x: torch.Tensor) -> Any:
    """The inverse of `flatten`.

    Args:
        space: the space.
        torch_x: [..., A].

    Returns:
        Points with leaves [..., O...]: floating point for Box, int64 for Discrete and MultiDiscrete, uint8
        for MultiBinary; a Python int for a single point of a Discrete; a tuple or an ordered dict for
        composites.

    Raises:
        SpaceMismatchError: the last dimension is not `flatdim(space)`.
    """
    kind = space_kind(space)
    size = flatdim(space)
    if torch_x.dim() == 0 or torch_x.shape[-1] != size:
        raise SpaceMismatchError(
            f"flattened points of this space have {size} entries.",
            f"a tensor of shape {tuple(torch_x.shape)} for {space}",
            "use the same action space for the model and for what flattened this tensor.",
        )
    if kind == "Discrete":
        return torch_x[..., 0].long() if torch_x.dim() > 1 else int(torch_x[0])  # [...]
    if kind in ("Tuple", "Dict"):
        children = _children(space)
        parts = torch.split(torch_x, [flatdim(child) for child in children], dim=-1)
        values = [unflatten(child, part) for child, part in zip(children, parts, strict=True)]
        return tuple(values) if kind == "Tuple" else OrderedDict(zip(space.spaces, values, strict=True))
    point = torch_x.reshape((*torch_x.shape[:-1], *space.shape))  # [..., O...]
    if kind == "Box":
        return point if point.is_floating_point() else point.float()
    return point.long() if kind == "MultiDiscrete" else point.byte()


def action_list(action_space: Any, flat_actions: torch.Tensor) -> list[Any]:
    """Turns the actions of one step into plain Python values, as tasks receive them.

    Args:
        action_space: the model's action space.
        flat_actions: [1, N, A].

    Returns:
        N actions: int for Discrete, (nested) list for Box, MultiDiscrete and MultiBinary, tuple or ordered
        dict of such for composites.
    """
    if flat_actions.dim() != 3 or flat_actions.shape[0] != 1:
        raise SpaceMismatchError(
            "the actions of one step are a tensor [1, samplers, flattened action].",
            f"a tensor of shape {tuple(flat_actions.shape)}",
            "let the model's distribution return samples of shape [steps, samplers, ...].",
        )
    return action_rows(action_space, flat_actions[0].detach().cpu().numpy())  # one copy from the device for all


def action_rows(action_space: Any, flat: np.ndarray) -> list[Any]:
    """Turns flattened actions [N, A] into N plain Python values, as `action_list` does, without a tensor."""
    kind = space_kind(action_space)
    if flat.ndim != 2 or flat.shape[1] != flatdim(action_space):
        raise SpaceMismatchError(
            f"flattened actions of this space have {flatdim(action_space)} entries.",
            f"an array of shape {flat.shape} for {action_space}",
            "use the action space of the model for its task samplers.",
        )
    if kind == "Discrete":
        return flat[:, 0].astype(np.int64).tolist()
    if kind in ("Tuple", "Dict"):
        children = _children(action_space)
        parts = np.split(flat, np.cumsum([flatdim(child) for child in children])[:-1], axis=1)
        rows = zip(*(action_rows(child, part) for child, part in zip(children, parts, strict=True)), strict=True)
        if kind == "Tuple":
            return list(rows)
        return [OrderedDict(zip(action_space.spaces, row, strict=True)) for row in rows]
    points = flat.reshape(len(flat), *action_space.shape)  # [N, A...]
    if kind != "Box":
        points = points.astype(np.int64)
    elif points.dtype.kind != "f":
        points = points.astype(np.float32)
    return points.tolist()


def torch_point(space: Any, np_x: Any) -> Any:
    """Converts a point from NumPy to torch, copying; the value of a Discrete passes through."""
    return _map_leaves(space, np_x, lambda x: torch.from_numpy(np.array(x)))


def numpy_point(space: Any, torch_x: Any) -> Any:
    """Converts a point from torch to NumPy; the value of a Discrete passes through."""
    return _map_leaves(space, torch_x, lambda x: x.detach().cpu().numpy())


def _map_leaves(space: Any, point: Any, function: Callable[[Any], Any]) -> Any:
    kind = space_kind(space)
    if kind == "Discrete":
        return point
    if kind == "Tuple":
        return tuple(_map_leaves(s, x, function) for s, x in zip(space.spaces, point, strict=True))
    if kind == "Dict":
        return OrderedDict((key, _map_leaves(s, point[key], function)) for key, s in space.spaces.items())
    return function(point)


def is_integral(space: Any) -> bool:
    """Whether all entries of flattened points are whole numbers."""
    kind = space_kind(space)
    return all(map(is_integral, _children(space))) if kind in ("Tuple", "Dict") else kind != "Box"


def flatten_space(space: Any) -> spaces.Box:
    """Returns the Box that holds all flattened points: [A] bounds.

    Bounds of the integer spaces are [0, n], [0, nvec] and [0, 1].
    """
    kind = space_kind(space)
    if kind == "Box":
        return spaces.Box(np.ravel(space.low), np.ravel(space.high), dtype=space.dtype.type)
    if kind in ("Tuple", "Dict"):
        boxes = [flatten_space(child) for child in _children(space)]
        low, high = np.concatenate([b.low for b in boxes]), np.concatenate([b.high for b in boxes])  # [A]
        return spaces.Box(low, high, dtype=low.dtype.type)
    if kind == "Discrete":
        low, high = np.zeros(1), np.full(1, space.n)
    elif kind == "MultiDiscrete":
        low, high = np.zeros(space.nvec.size), np.ravel(space.nvec)
    else:
        low, high = np.zeros(flatdim(space)), np.ones(flatdim(space))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def policy_space(action_space: Any, box_space_to_policy: Callable[[Any], gym.Space] | None = None) -> gym.Space:
    """Returns the space of an expert's policy over `action_space`.

    Args:
        action_space: the space of the actions.
        box_space_to_policy: maps a Box to the space of its policies; None: a policy is a mean, in the Box
            itself.

    Returns:
        Box [0, 1] of shape [n] for Discrete (probabilities), a tuple of these for MultiDiscrete, Box [0, 1]
        of shape [n, 2] for MultiBinary; the same structure as the action space for composites.
    """
    kind = space_kind(action_space)
    if kind == "Discrete":
        return _unit_box(int(action_space.n))
    if kind == "Box":
        return as_gymnasium_space(box_space_to_policy(action_space) if box_space_to_policy else action_space)
    if kind == "MultiDiscrete":
        return spaces.Tuple([_unit_box(int(n)) for n in np.ravel(action_space.nvec)])
    if kind == "MultiBinary":
        return _unit_box(*action_space.shape, 2)
    return _like(action_space, [policy_space(child, box_space_to_policy) for child in _children(action_space)])


def _unit_box(*shape: int) -> spaces.Box:
    return spaces.Box(0.0, 1.0, shape=shape, dtype=np.float32)


def _children(space: Any) -> list[Any]:
    """Returns the parts of a Tuple or Dict space, in its own order."""
    return list(space.spaces.values()) if space_kind(space) == "Dict" else list(space.spaces)


def _like(space: Any, children: Sequence[gym.Space]) -> gym.Space:
    """Returns a Tuple or Dict space with the structure of `space` and other parts."""
    if space_kind(space) == "Tuple":
        return spaces.Tuple(children)
    return spaces.Dict(OrderedDict(zip(space.spaces, children, strict=True)))
