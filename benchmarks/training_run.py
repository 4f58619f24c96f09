"""Trains the Ant tutorial from the command line and writes down its rewards, its speed and its memory.

    python -m benchmarks.training_run --steps 1000000 --name ant-1m

The rewards are those of the run's own metrics file: of training the mean over the episodes of each log, of validation
that of each checkpoint, played without exploration. Speed is steps by wall-clock seconds from the first log to the
last. Memory is the peak, looked at once a second, of the sum of the proportional set sizes of all processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allenact.utils.metrics_files import RunMetrics, read_run
from benchmarks.common import ROOT, add_common_arguments, record, write_result
from benchmarks.startup import TUTORIAL, _env, family, proportional_set_size


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps, over which the rate decays")
    add_common_arguments(parser, rounds=1)
    options = parser.parse_args(args)
    kwargs = {"total_steps": options.steps}
    result = record("training_run", args, {"rounds": 1, "tutorial": " ".join(TUTORIAL), "config_kwargs": kwargs})
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        megabytes = run(Path(folder), kwargs)
        seconds = time.monotonic() - start
        metrics = read_run(Path(folder))
    result["rows"].append({"seconds": seconds, "megabytes": megabytes, **curves(metrics)})
    write_result(result, options.results, options.name)


def run(folder: Path, config_kwargs: dict[str, Any]) -> float:
    """Runs the tutorial to its end; returns the peak memory of all its processes in megabytes.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "allenact/main.py", *TUTORIAL, "-o", str(folder)]
    peak = 0
    with subprocess.Popen([*command, "--config_kwargs", json.dumps(config_kwargs)], cwd=ROOT, env=_env()) as process:
        while process.poll() is None:
            peak = max(peak, sum(proportional_set_size(pid) or 0 for pid in family(process.pid)))
            time.sleep(1)
    if process.returncode != 0:
        raise RuntimeError(f"the tutorial ended with exit status {process.returncode}")
    return peak / 1e6


def curves(run: RunMetrics) -> dict[str, Any]:
    """Returns what the metrics files of a run say about rewards and speed."""
    train, valid = run.series("reward"), run.series("reward", "valid")
    seconds = max(train.seconds[-1] - train.seconds[0], 1e-9)
    return {
        "steps": run.steps,
        "steps_per_second": (train.steps[-1] - train.steps[0]) / seconds,
        "train": [list(point) for point in zip(train.steps, train.values, strict=True)],
        "valid": [list(point) for point in zip(valid.steps, valid.values, strict=True)],
    }


if __name__ == "__main__":
    main()
