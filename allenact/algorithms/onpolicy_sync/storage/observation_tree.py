"""Nested observations under flat names, so that storing them is one loop over tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

FLATTEN_SEPARATOR = "._AUTOFLATTEN_."


def flatten_observations(observations: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """Returns the leaves of nested observations by flat name: the names on the way, joined by the separator.

    Args:
        observations: uuid -> tensor or array, or again such a mapping.
        prefix: put in front of each name.
    """
    flat: dict[str, torch.Tensor] = {}
    for name, value in observations.items():
        if isinstance(value, Mapping):
            flat.update(flatten_observations(value, prefix + name + FLATTEN_SEPARATOR))
        else:
            flat[prefix + name] = torch.as_tensor(value)
    return flat


def unflatten_observations(flat: Mapping[str, torch.Tensor]) -> dict[str, Any]:
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
