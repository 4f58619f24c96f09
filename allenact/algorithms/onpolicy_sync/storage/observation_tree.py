"""Nested observations under flat names, so that storing them is one loop over tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

FLATTEN_SEPARATOR = "._AUTOFLATTEN_."


def flatten_observations(observations: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the leaves of nested observations as tensors; see `flat_leaves`."""
    return {name: torch.as_tensor(leaf) for name, leaf in flat_leaves(observations)}


def flat_leaves(observations: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested observations with their flat names: the names on the way, joined by the separator.

    Args:
        observations: uuid -> tensor or array, or again such a mapping.
        prefix: put in front of each name.
    """
    for name, value in observations.items():
        if isinstance(value, Mapping):
            yield from flat_leaves(value, prefix + name + FLATTEN_SEPARATOR)
        else:
            yield prefix + name, value


def unflatten_observations(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested observations that `flatten_observations` had been given."""
    nested: dict[str, Any] = {}
    for flat_name, value in flat.items():
        if FLATTEN_SEPARATOR not in flat_name:
            nested[flat_name] = value
            continue
        *path, name = flat_name.split(FLATTEN_SEPARATOR)
        branch = nested
        for step in path:
            branch = branch.setdefault(step, {})
        branch[name] = value
    return nested
