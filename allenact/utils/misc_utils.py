"""Small helpers without a better home: sequences, keyword passing, deprecation, statistics of maxima."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import pdb
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from allenact.utils.system import get_logger

T = TypeVar("T")
P = ParamSpec("P")

TABLEAU10_RGB = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
"""Ten colours that are easy to tell apart, 0-255."""


# Keyword passing and API status.


def prepare_locals_for_super(
    local_vars: Mapping[str, Any],
    args_name: str = "args",
    kwargs_name: str = "kwargs",
    ignore_kwargs: bool = False,
) -> dict[str, Any]:
    """Turns `locals()` into keywords for `super().__init__`.

    Every local variable at that point becomes a keyword, except `self` and names that contain `__`. The
    contents of `kwargs` are added, local variables winning.

    Args:
        local_vars: `locals()`.
        args_name: name of the `*args` parameter; there must be none.
        kwargs_name: name of the `**kwargs` parameter.
        ignore_kwargs: leave the contents of `kwargs` out.

    Raises:
        ValueError: positional arguments would get lost.
    """
    if args_name in local_vars:
        raise ValueError(f'"{args_name}" cannot be passed on as a keyword; name the arguments one by one')
    keywords = {} if ignore_kwargs else dict(local_vars.get(kwargs_name, {}))
    for name, value in local_vars.items():
        if name not in ("self", kwargs_name) and "__" not in name:
            keywords[name] = value
    return keywords


def experimental_api(to_decorate: Callable[P, T]) -> Callable[P, T]:
    """Warns, once, that the decorated function or class may change."""
    return _warn_on_first_call(to_decorate, "is experimental and may change")


def deprecated(to_decorate: Callable[P, T]) -> Callable[P, T]:
    """Warns, once, that the decorated function or class is deprecated."""
    return _warn_on_first_call(to_decorate, "is deprecated")


def _warn_on_first_call(to_decorate: Callable[P, T], message: str) -> Callable[P, T]:
    has_warned = False

    @functools.wraps(to_decorate)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal has_warned
        if not has_warned:
            has_warned = True
            get_logger().warning("%s %s.", to_decorate.__qualname__, message)
        return to_decorate(*args, **kwargs)

    return decorated


# Sequences.


def partition_sequence(seq: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cuts a sequence into contiguous parts whose lengths differ by at most one, the longer ones first."""
    if not 0 < parts <= len(seq):
        raise ValueError(f"a sequence of length {len(seq)} cannot be cut into {parts} non-empty parts")
    length, num_longer = divmod(len(seq), parts)
    limits = [i * length + min(i, num_longer) for i in range(parts + 1)]
    return [seq[start:stop] for start, stop in itertools.pairwise(limits)]


def partition_limits(num_items: int, num_parts: int) -> list[int]:
    """Returns `num_parts + 1` boundaries of parts of nearly equal size: equally spaced, rounded."""
    return np.linspace(0, num_items, num_parts + 1).round().astype(int).tolist()


def unzip(seq: Sequence[tuple[T, ...]] | None, n: int | None = None) -> list[list[T]]:
    """Turns a sequence of n-tuples into n lists; `n` is needed only if the sequence may be empty."""
    if not seq:
        if n is None:
            raise ValueError("unzip of an empty sequence needs n, the number of lists to return")
        return [[] for _ in range(n)]
    return [list(column) for column in zip(*seq, strict=True)]


def uninterleave(seq: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Deals a sequence out like cards: part i holds the entries i, i + parts, i + 2 * parts, ..."""
    if not 0 < parts <= len(seq):
        raise ValueError(f"a sequence of length {len(seq)} cannot be dealt into {parts} non-empty parts")
    return [seq[i::parts] for i in range(parts)]


def all_equal(s: Sequence[Any]) -> bool:
    """Whether all entries are equal."""
    return all(entry == s[0] for entry in s[1:])


def all_unique(seq: Sequence[Any]) -> bool:
    """Whether no two entries are equal; the entries must be hashable."""
    return len(set(seq)) == len(seq)


# Hashing and JSON.


class HashableDict(dict):
    """A dict that can be a key; it must not be changed once it is one. Values must be hashable or dicts."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict declares __hash__ as None
        return hash(frozenset((key, HashableDict(v) if isinstance(v, dict) else v) for key, v in self.items()))


class NumpyJSONEncoder(json.JSONEncoder):
    """JSON encoder that writes NumPy values and tensors as numbers, strings and lists."""

    def default(self, o: Any) -> Any:
        """Returns a plain Python value for `o`."""
        if isinstance(o, np.generic | np.ndarray | torch.Tensor):
            return o.tolist()
        return super().default(o)


def md5_hash_str_as_int(to_hash: str) -> int:
    """Returns the MD5 hash of a string as an integer, the same in every process."""
    return int(hashlib.md5(to_hash.encode()).hexdigest(), 16)


# The world outside.


def get_git_diff_of_project() -> tuple[str, str]:
    """Returns a short description of the current commit and the uncommitted changes to tracked files.

    They are those of the repository that contains the current directory; both are empty if there is none or
    git is not installed.
    """
    try:
        sha = _run_git("describe", "--always").strip()
        return sha, _run_git("diff", sha)
    except (OSError, subprocess.CalledProcessError) as error:
        get_logger().warning("The state of the project's git repository is unknown: %s", error)
        return "", ""


def _run_git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def str2bool(v: str | bool) -> bool:
    """Reads yes/no, true/false, t/f, y/n or 1/0 in any case, as an argument type."""
    if isinstance(v, bool):
        return v
    if v.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if v.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise ValueError(f'"{v}" is neither yes nor no')


def multiprocessing_safe_download_file_from_url(url: str, save_path: str) -> None:
    """Downloads a file unless it is there already; it appears at `save_path` whole or not at all."""
    import urllib.request

    target = Path(save_path)
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # same file system, so the move is atomic
        partial = Path(folder) / target.name
        urllib.request.urlretrieve(url, partial)
        partial.replace(target)


class ForkedPdb(pdb.Pdb):
    """A debugger for child processes: `ForkedPdb().set_trace()`."""

    def interaction(self, *args: Any, **kwargs: Any) -> None:
        """Reads commands from the terminal, which a child's own stdin is not connected to."""
        stdin = sys.stdin
        with open("/dev/stdin") as terminal:
            sys.stdin = terminal
            try:
                super().interaction(*args, **kwargs)
            finally:
                sys.stdin = stdin


@contextlib.contextmanager
def tensor_print_options(**print_opts: Any) -> Iterator[None]:
    """Changes how tensors are printed inside; keywords as for `torch.set_printoptions`."""
    from torch._tensor_str import PRINT_OPTS  # torch offers no public way to read the options

    previous = {name: getattr(PRINT_OPTS, name) for name in print_opts}
    torch.set_printoptions(**print_opts)
    try:
        yield
    finally:
        torch.set_printoptions(**previous)


# Random numbers and statistics.


def rand_float(low: float, high: float, shape: Sequence[int]) -> torch.Tensor:
    """Returns a tensor of that shape, uniform in [low, high)."""
    return torch.rand(tuple(shape)) * (high - low) + low


@functools.cache
def cached_comb(n: int, m: int) -> int:
    """Returns the binomial coefficient "n choose m"."""
    return math.comb(n, m)


def expected_max_of_subset_statistic(vals: Sequence[float], m: int) -> float:
    """Returns the expected maximum of a random subset of `m` of the values, drawn without replacement."""
    n = len(vals)
    if not 0 < m <= n:
        raise ValueError(f"there is no subset of {m} of {n} values")
    # The i-th smallest value (from 0) is the maximum of C(i, m - 1) of the C(n, m) subsets.
    weighted = (value * cached_comb(i, m - 1) for i, value in enumerate(sorted(vals)))
    return sum(weighted) / cached_comb(n, m)


def bootstrap_max_of_subset_statistic(
    vals: Sequence[float], m: int, reps: int = 1000, seed: int | None = None
) -> list[float]:
    """Returns `reps` bootstrap samples of `expected_max_of_subset_statistic`.

    Args:
        vals: the values.
        m: size of the subsets.
        reps: number of bootstrap samples, each of as many values drawn with replacement.
        seed: makes the result repeatable, leaving Python's global generator alone.
    """
    generator = random if seed is None else random.Random(seed)
    return [expected_max_of_subset_statistic(generator.choices(vals, k=len(vals)), m) for _ in range(reps)]
