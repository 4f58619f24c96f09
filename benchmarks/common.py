"""What the benchmarks share: measuring side by side, comparing within a round, and writing down what it was."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from allenact.utils.cores import usable_cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "allenact-gym",
    "torch",
    "numpy",
    "mujoco",
    "gymnasium",
    "Box2D",
    "stable-baselines3",
    "envpool",
    "rl-games",
)

Measurement = dict[str, float]  # what is measured -> its value, as one turn of one contestant gives it


def interleave(contestants: Sequence[Callable[[], Measurement]], rounds: int) -> dict[str, list[float]]:
    """Lets the contestants take turns, so that a machine that gets slower gets slower for all of them.

    Each has one turn to warm up. After that every second round goes backwards: a drift within a round would
    otherwise always be in favour of the same one.

    Args:
        contestants: each measures for one turn; no two may use the same name.
        rounds: turns of each contestant.

    Returns:
        Name -> one value per round.
    """
    for contestant in contestants:
        contestant()
    series: dict[str, list[float]] = {}
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            for name, value in contestant().items():
                series.setdefault(name, []).append(value)
    return series


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the smallest, the median and the largest value."""
    return {"min": min(values), "median": median(values), "max": max(values)}


def paired_ratios(
    series: Mapping[str, Sequence[float]], pairs: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Divides measurements of the same round, and only then looks at the spread over the rounds.

    Args:
        series: name -> one value per round.
        pairs: label -> names of what is divided, and of what it is divided by.

    Returns:
        Label -> min, median and max of the ratios.
    """
    return {
        label: spread([value / base for value, base in zip(series[name], series[reference], strict=True)])
        for label, (name, reference) in pairs.items()
    }


class Turn:
    """The length of a contestant's turn: `while turn.goes_on(): ...` ends when `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter()
        self.end = self.start + seconds

    def goes_on(self) -> bool:
        """Whether there is time left; the last piece of work begun is always finished and counted."""
        return time.perf_counter() < self.end

    def rate(self, count: int) -> float:
        """Returns `count` per second since the turn began."""
        return count / (time.perf_counter() - self.start)


# The record


def record(benchmark: str, args: Sequence[str] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a result must say besides its numbers: command, commit, machine and versions.

    Args:
        benchmark: its module.
        args: its command line; None: that of this process.
        settings: what else the numbers depend on.
    """
    args = sys.argv[1:] if args is None else args
    return {
        "benchmark": benchmark,
        "command": f"python -m benchmarks.{benchmark} {shlex.join(args)}".strip(),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": dict(settings),
        "rows": [],
    }


def commit() -> str:
    """Returns the checked-out commit, and whether tracked files differ from it (results apart)."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with local changes" if changed else head


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, Any]:
    """Returns processor, cores, memory and system."""
    info = _read("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "0")
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gb": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter here, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def add_common_arguments(parser: argparse.ArgumentParser, *, rounds: int = 5, seconds: float | None = None) -> None:
    """Adds the flags that all benchmarks have."""
    parser.add_argument("--rounds", type=_positive_int, default=rounds, help="turns of each contestant")
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="least length of a turn; a rollout begun is finished"
        )
    parser.add_argument("--name", default="default", help="short name of the result, results/BENCHMARK-NAME.json")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text!r}")
    return value


def write_result(result: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Writes a result as `BENCHMARK-NAME.json`; called after every row, so that an interrupted run is not lost."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}-{name}.json"
    text = json.dumps(_rounded(result), indent=1)
    text = re.sub(
        r"\[\s+([-\d.,e\s]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text
    )  # a series is a line
    path.write_text(text + "\n")
    return path


def _rounded(value: Any) -> Any:
    """Returns the same with five significant digits, which is more than a measurement has."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def readable(value: float) -> str:
    """Returns a number with as many decimals as one can use."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_row(title: str, series: Mapping[str, Sequence[float]], ratios: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the medians of one row of a result, and the ratios where there are any."""
    print(title, flush=True)
    for name, values in series.items():
        line = f"  {name:32} {readable(median(values)):>10}"
        if name in ratios:
            line += "   ratio {median:6.3f}  ({min:.3f} to {max:.3f})".format(**ratios[name])
        print(line, flush=True)
