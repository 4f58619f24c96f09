"""NumPy arrays and tuples as what torch reads with `weights_only`: the form in which states are kept in checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_ARRAY_MARK = "__ndarray__"
_TUPLE_MARK = "__tuple__"


def encode_plain(value: Any, where: str = "state") -> Any:
    """Turns NumPy arrays and scalars in a nest of containers into what `weights_only` reading accepts.

    Below the key `task_info`, which only describes, other objects become their `repr`.

    Raises:
        TypeError: an object of another type; `where` says in what.
    """
    if isinstance(value, np.ndarray):
        return {_ARRAY_MARK: torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: encode_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE_MARK: [encode_plain(item, where) for item in value]}
    if isinstance(value, list):
        return [encode_plain(item, where) for item in value]
    if value is None or isinstance(value, (str, bytes, int, float, bool, torch.Tensor)):
        return value
    if ".task_info" in where or ".tasks_data" in where:
        return repr(value)
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which a checkpoint cannot: states consist of dicts, lists, tuples,"
        " numbers, strings, bytes, NumPy arrays and tensors"
    )


def decode_plain(value: Any) -> Any:
    """Inverse of `encode_plain`."""
    if isinstance(value, dict):
        if _ARRAY_MARK in value:
            return value[_ARRAY_MARK].numpy()
        if _TUPLE_MARK in value:
            return tuple(decode_plain(item) for item in value[_TUPLE_MARK])
        return {key: decode_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_plain(item) for item in value]
    return value
