"""How soon the tutorial is under way, how soon `--help` answers, and how much memory all its processes take.

    python -m benchmarks.startup

Everything is measured from outside, on the command that a user types. The first rollout row is seen as the first
line in the run's metrics file, with rollouts of one step, one pass and a log after each: the time includes one
(small) update. Memory is the sum of the proportional set sizes of all processes, in which a page that k of them
share counts as a k-th for each; its peak is that of a run with the tutorial's own sizes up to the end of the
first validation. How it grows with the number of samplers is measured in the same way, with rollouts of 64 steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from allenact.utils.metrics_files import FILE_NAME, readable_rows
from benchmarks.common import ROOT, add_common_arguments, interleave, print_row, record, write_result

TUTORIAL = ("gym_mujoco_tutorial", "-b", "projects/tutorials", "-m", "8", "-s", "0", "-e", "-l", "error")
ONE_STEP_ROLLOUTS = {"num_steps": 1, "update_repeats": 1, "metric_interval": 1, "save_interval": 0}
VALIDATIONS = 3
SIZES = ["8x64", "64x64", "256x64", "8x2048", "64x256"]  # the last three give rollouts of the same size
LIMIT_S = 600.0


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="NxT, samplers and steps, for the growth of memory")
    parser.add_argument("--config_kwargs", default="{}", help="of the tutorial in the measurement of memory, as JSON")
    add_common_arguments(parser)
    options = parser.parse_args(args)
    result = record("startup", args, {"rounds": options.rounds, "tutorial": " ".join(TUTORIAL)})
    seconds = interleave([time_help, time_first_row], options.rounds)
    print_row("seconds", seconds, {})
    # With a checkpoint after every rollout, validation runs beside collecting and beside updates.
    config_kwargs = {"save_interval": 1, **json.loads(options.config_kwargs)}
    memory = peak_memory(config_kwargs)
    print(f"peak memory of {memory['processes']} processes: {memory['megabytes']:.0f} MB")
    growth = []
    for size in options.sizes:
        n, t = map(int, size.split("x"))
        peak = peak_memory({**config_kwargs, "num_steps": t, "num_train_samplers": n}, num_samplers=n)
        rollout = rollout_megabytes(n, t)
        growth.append({"num_samplers": n, "num_steps": t, "megabytes": peak["megabytes"], "rollout_megabytes": rollout})
        print(f"{n} samplers x {t} steps: {peak['megabytes']:.0f} MB, of which the rollout {rollout:.1f} MB")
    result["rows"].append({"seconds": seconds, "memory": memory, "growth": growth})
    write_result(result, options.results, options.name)


def time_help() -> dict[str, float]:
    """Returns the seconds that `--help` takes."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "allenact/main.py", "--help"], cwd=ROOT, env=_env(), check=True, capture_output=True
    )
    return {"--help": time.perf_counter() - start}


def time_first_row() -> dict[str, float]:
    """Returns the seconds from starting the tutorial to its first line of metrics."""
    start = time.perf_counter()
    with tutorial(ONE_STEP_ROLLOUTS) as (process, output):
        _wait_until(lambda: "train" in _logged_modes(output), process, poll_s=0.01)
        return {"first rollout row": time.perf_counter() - start}


def rollout_megabytes(num_samplers: int, num_steps: int) -> float:
    """Returns the size of a rollout of Ant: observations, actions, predictions, targets, all float32."""
    from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
    from benchmarks.update_speed import Update
    from benchmarks.workloads import Size

    rows = num_samplers * num_steps
    storage = Update(Size(num_samplers, rows, rows), threads=1, seconds=0.0).storage
    if not isinstance(storage, RolloutBlockStorage):
        raise TypeError("the tutorial keeps its rollouts in a RolloutBlockStorage")
    return round(storage.nbytes / 1e6, 1)


def peak_memory(config_kwargs: dict[str, Any], num_samplers: int = 8) -> dict[str, Any]:
    """Runs the tutorial until some checkpoints have been validated; returns the moment of its greatest memory."""
    peak: dict[str, Any] = {"megabytes": 0.0}

    def look() -> bool:
        sizes = {pid: size for pid in family(process.pid) if (size := proportional_set_size(pid)) is not None}
        total = sum(sizes.values()) / 1e6
        if total > peak["megabytes"]:
            each = sorted((round(size / 1e6, 1) for size in sizes.values()), reverse=True)
            peak.update(megabytes=round(total, 1), processes=len(sizes), each_megabytes=each)
        return _logged_modes(output).count("valid") >= VALIDATIONS

    with tutorial(config_kwargs, num_samplers) as (process, output):
        _wait_until(look, process, poll_s=0.1)
    return peak


@contextlib.contextmanager
def tutorial(config_kwargs: dict[str, Any], num_samplers: int = 8) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Starts the tutorial; yields its process and its output folder; stops it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "allenact/main.py",
            *TUTORIAL,
            "-m",
            str(num_samplers),
            "-o",
            folder,
        ]  # the last -m counts
        process = subprocess.Popen(
            [*command, "--config_kwargs", json.dumps(config_kwargs)], cwd=ROOT, env=_env(), start_new_session=True
        )
        try:
            yield process, Path(folder)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "."}


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], poll_s: float) -> None:
    """Waits for a condition.

    Raises:
        RuntimeError: the process ended first, or it took longer than `LIMIT_S`.
    """
    end = time.monotonic() + LIMIT_S
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"the tutorial ended with exit code {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"the tutorial did not get there in {LIMIT_S:.0f} s")
        time.sleep(poll_s)


def _logged_modes(output: Path) -> list[str]:
    """Returns the mode ("train", "valid") of every whole line in the run's metrics file."""
    return [row["mode"] for file in output.rglob(FILE_NAME) for row in readable_rows(file)]


# Processes, from /proc


def family(pid: int) -> list[int]:
    """Returns a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            # "pid (name) state parent ...", and the name may hold anything, parentheses too
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    members = [pid]
    for member in members:
        members.extend(children.get(member, []))
    return members


def proportional_set_size(pid: int) -> int | None:
    """Returns the bytes of memory of a process, shared pages by its share of them; None if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return None


if __name__ == "__main__":
    main()
