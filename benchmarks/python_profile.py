"""Where the time of the Ant tutorial's processes goes, function by function, as py-spy sees it.

    python -m benchmarks.python_profile --steps 300000

Needs `pip install py-spy` (and, on some systems, root). Samples of a process that sleeps or waits for another one count
under "waiting". A function's share is that of the samples in which it runs itself: what it calls in NumPy, torch or
MuJoCo is part of it, what it calls in Python is not.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.common import RESULTS, ROOT, record, write_result
from benchmarks.startup import TUTORIAL, _env

ROLES = {  # a function that only such a process runs -> what it is called
    "run_worker": "a sampler process",
    "run_pipeline": "training",
    "evaluation_worker": "validation",
}
WAITS = ("poll (", "wait (", "_recv (", "select (", "sleep (", "_next_request (", "receive_next (", "acquire (")
SHOWN = 8  # functions of each kind of process


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of the run")
    parser.add_argument("--rate", type=int, default=100, help="samples per second")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--name", default="default", help="name of the result")
    options = parser.parse_args(args)
    if shutil.which("py-spy") is None:
        sys.exit("py-spy is not installed: pip install py-spy")
    result = record("python_profile", args, {"steps": options.steps, "rate": options.rate})
    with tempfile.TemporaryDirectory() as folder:
        stacks = sampled(Path(folder), options.steps, options.rate)
    result["rows"] += [
        {"process": role, "samples": sum(functions.values()), "percent": shares(functions)}
        for role, functions in by_role(stacks).items()
    ]
    print(json.dumps(result["rows"], indent=1))
    write_result(result, options.results, options.name)


def sampled(folder: Path, steps: int, rate: int) -> list[tuple[list[str], int]]:
    """Runs the tutorial under py-spy; returns every stack that was seen, outermost function first, and how often."""
    raw = folder / "raw.txt"
    spy = ["py-spy", "record", "--subprocesses", "--idle", "--format", "raw", "--rate", str(rate), "-o", str(raw)]
    run = [sys.executable, "allenact/main.py", *TUTORIAL, "-o", str(folder / "out")]
    kwargs = json.dumps({"total_steps": steps})
    subprocess.run([*spy, "--", *run, "--config_kwargs", kwargs], cwd=ROOT, env=_env(), check=True, timeout=600)
    lines = re.finditer(r"^(.*) (\d+)$", raw.read_text(), re.MULTILINE)  # commands with line breaks have others
    return [(line[1].split(";"), int(line[2])) for line in lines]


def by_role(stacks: Iterable[tuple[Sequence[str], int]]) -> dict[str, Counter[str]]:
    """Returns for each kind of process how often each function was running.

    Args:
        stacks: frames such as "step (package/file.py:12)", outermost first, and how often each stack was seen.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for frames, count in stacks:
        names = [frame.partition(" (")[0].rpartition(".")[-1] for frame in frames]
        role = next((role for function, role in ROLES.items() if function in names), None)
        if role is not None:
            seen[role][running(frames)] += count
    return dict(seen)


def running(frames: Sequence[str]) -> str:
    """Returns the innermost function of a stack that is ours, with its file; or "waiting"."""
    if any(waits in frames[-1] for waits in WAITS):
        return "waiting"
    for frame in reversed(frames):
        name, _, place = frame.partition(" (")
        path = place.partition(":")[0]
        if path.startswith(("allenact", "projects")):
            return f"{name} ({Path(path).name})"
    return frames[-1].partition(":")[0] + ")"


def shares(functions: Mapping[str, int]) -> dict[str, float]:
    """Returns the share of the most frequent functions, in percent, and of all others together."""
    total = sum(functions.values())
    most = Counter(functions).most_common(SHOWN)
    rest = total - sum(count for _, count in most)
    named = {**dict(most), "all others": rest}
    return {name: round(100 * count / total, 1) for name, count in named.items()}


if __name__ == "__main__":
    main()
