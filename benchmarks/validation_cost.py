"""How much validation beside training slows training down, and how much its own steps would take on one core.

    python -m benchmarks.validation_cost

The Ant tutorial from the command line, with and without validation, in turns. Checkpoints, and with them validations,
come six times as often as in the tutorial, so that their cost stands out from the noise. From the metrics files:

- "training alone", "with validation": seconds of training from the first log to the last;
- "steps validated": environment steps that the validator played in that time;
- "those steps alone": the seconds that they take one sampler alone in a process of its own, on a free machine: what
  validation would cost at least if training had to wait for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from allenact.utils.metrics_files import read_run
from allenact.utils.system import init_logging
from benchmarks.common import ROOT, Measurement, add_common_arguments, interleave, print_row, record, write_result
from benchmarks.startup import TUTORIAL, _env
from benchmarks.workloads import EXPERIMENTS, Size, Training

EPISODES = 4  # of each validation, as in the tutorial
RUNS = {
    "training alone": ("benchmarks/unvalidated_ant.py", *TUTORIAL[3:]),
    "with validation": TUTORIAL,
}


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=250_000, help="environment steps of each run")
    parser.add_argument("--save_interval", type=int, default=32_768, help="environment steps between validations")
    add_common_arguments(parser, rounds=3, seconds=3.0)
    options = parser.parse_args(args)
    init_logging("warning")
    kwargs = {"total_steps": options.steps, "save_interval": options.save_interval}
    kwargs |= {"num_eval_tasks": EPISODES, "metric_interval": 1}  # a log after every rollout
    result = record("validation_cost", args, {"rounds": options.rounds, "config_kwargs": kwargs})
    with closing(Training(EXPERIMENTS["Ant"], Size(1, passes=0), "serial", options.seconds, "one sampler")) as alone:
        series = interleave([*(turn(name, kwargs) for name in RUNS), alone], options.rounds)
    row = {"steps": options.steps, **costs(series)}
    result["rows"].append(row)
    print_row("seconds", row["seconds"], {})
    write_result(result, options.results, options.name)


def turn(name: str, config_kwargs: dict[str, Any]) -> Callable[[], Measurement]:
    """Returns the function that trains once, and measures."""

    def train() -> Measurement:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "allenact/main.py", *RUNS[name], "-o", folder]
            subprocess.run([*command, "--config_kwargs", json.dumps(config_kwargs)], cwd=ROOT, env=_env(), check=True)
            run = read_run(Path(folder))
        training = run.series("reward")
        measured = {name: training.seconds[-1] - training.seconds[0]}
        if name == "with validation":
            end = max(row["wall_time"] for row in run.rows if row["mode"] == "train")
            validated = [row for row in run.rows if row["mode"] == "valid" and row["wall_time"] <= end]
            measured["steps validated"] = EPISODES * sum(row["valid-metrics/ep_length"] for row in validated)
        return measured

    return train


def costs(series: dict[str, list[float]]) -> dict[str, Any]:
    """Returns the seconds with and without validation, what it added, and what its steps take alone."""
    without, validated = series["training alone"], series["with validation"]
    steps, rates = series["steps validated"], series["one sampler collect"]
    return {
        "steps_validated": median(steps),
        "seconds": {
            "training alone": without,
            "with validation": validated,
            "added by validation": [b - a for a, b in zip(without, validated, strict=True)],
            "its steps alone": [count / rate for count, rate in zip(steps, rates, strict=True)],
        },
    }


if __name__ == "__main__":
    main()
