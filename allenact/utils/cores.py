"""The number of processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """Returns the number of cores that the scheduler and the container's CPU quota leave us, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cgroup_quotas())]))


def _cgroup_quotas(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """Yields the CPU quotas, in cores, of this process's control groups and their parents.

    Args:
        root: where control groups are mounted.
        own: the file that lists this process's groups, one `id:controllers:path` per line.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        is_v1 = "cpu" in controllers.split(",")
        if not is_v1 and controllers:
            continue
        base = root / "cpu" if is_v1 else root
        group = base / path.lstrip("/")
        for folder in [group, *group.parents]:
            quota = _quota_v1(folder) if is_v1 else _quota_v2(folder)
            if quota is not None:
                yield quota
            if folder == base:
                break


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is no quota, and no number
    except (OSError, ValueError):
        return None
