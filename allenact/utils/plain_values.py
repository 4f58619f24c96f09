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
        if value.dtype.kind not in "biufc":  # texts and objects, of which torch has no arrays
            return encode_plain(value.tolist(), where)
        native = value.astype(value.dtype.newbyteorder("="))
        return {_ARRAY_MARK: torch.from_numpy(np.ascontiguousarray(native).reshape(value.shape).copy())}
    if isinstance(value, dict):
        return {_plain(key): encode_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE_MARK: [encode_plain(item, where) for item in value]}
    if isinstance(value, list):
        return [encode_plain(item, where) for item in value]
    value = _plain(value)
    if value is None or isinstance(value, (str, bytes, int, float, bool, torch.Tensor)):
        return value
    if ".task_info" in where or ".tasks_data" in where:
        return repr(value)
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which a checkpoint cannot: states consist of dicts, lists, tuples,"
        " numbers, strings, bytes, NumPy arrays and tensors"
    )


def _plain(value: Any) -> Any:
    """Returns numbers, texts and tensors of derived classes, as enums are, as what they are derived from."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value if type(value) is torch.Tensor else value.detach().as_subclass(torch.Tensor)
    if isinstance(value, str):
        return str.__str__(value)  # str(value) is the name of an enum's entry
    for base in (int, float):
        if isinstance(value, base) and not isinstance(value, bool):
            return base(value)
    return bytes(value) if isinstance(value, bytes) else value


def with_python_numbers(value: Any) -> Any:
    """Returns a nest of dicts, lists and tuples with Python's numbers in the place of NumPy's."""
    if type(value) is dict:
        return {key: with_python_numbers(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_python_numbers(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


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
