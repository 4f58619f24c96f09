"""What logging costs a training run: time, and bytes of its files, extrapolated to 30 million environment steps.

    python -m benchmarks.log_cost

Three runs of the Ant tutorial from the command line: as it is; with a log after every rollout of 512 steps, 128 times
as often as the tutorial's; and with a video of every validation. Of every log after the first one:

- "writing": the share of the time since the log before that the main process spent on console, files, pictures and
  callbacks, as the run itself logs it (`time_share_log`). It does so beside the training worker.
- "held up": the share of the time that the training worker spent neither collecting nor on targets, updates or
  checkpoints. Handing over its log is a part of that, so that logging blocks training for less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allenact.utils.metrics_files import FILE_NAME
from benchmarks.common import ROOT, add_common_arguments, print_row, record, write_result
from benchmarks.startup import TUTORIAL, _env

PHASES = ("collect", "returns", "update", "save")
LONG_RUN = 30_000_000  # environment steps
WATCHED = ("benchmarks/watched_ant.py", *TUTORIAL[3:])
RUNS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "tutorial": (TUTORIAL, {}),
    "a log every 512 steps": (TUTORIAL, {"num_steps": 64, "metric_interval": 1}),
    "a video of every validation": (WATCHED, {}),
}


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of each run")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="which of them")
    parser.add_argument("--config_kwargs", default="{}", help="of the tutorial, as JSON")
    add_common_arguments(parser, rounds=1)
    options = parser.parse_args(args)
    more = {"total_steps": options.steps, **json.loads(options.config_kwargs)}
    result = record("log_cost", args, {"config_kwargs": more})
    for name in options.runs:
        command, kwargs = RUNS[name]
        row = {"run": name, **measure(command, {**kwargs, **more})}
        result["rows"].append(row)
        print_row(name, row["percent"], {})
        print(f"  event files of {LONG_RUN:,} steps: {row['event_megabytes']:.1f} MB", flush=True)
        write_result(result, options.results, options.name)


def measure(command: Sequence[str], config_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Trains, and returns what logging took.

    Raises:
        subprocess.CalledProcessError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = [sys.executable, "allenact/main.py", *command, "-o", folder]
        subprocess.run([*whole, "--config_kwargs", json.dumps(config_kwargs)], cwd=ROOT, env=_env(), check=True)
        (metrics,) = Path(folder).rglob(FILE_NAME)
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        steps = max(line["training_steps"] for line in lines)
        fixed, growing = event_bytes(Path(folder) / "tb")
        metrics_bytes = metrics.stat().st_size
    return {
        **shares(lines),
        "steps": steps,
        "event_megabytes": (fixed + growing / steps * LONG_RUN) / 1e6,
        "metrics_megabytes": metrics_bytes / steps * LONG_RUN / 1e6,
    }


def shares(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the lines of a metrics file say about speed and about the time that logging took."""
    train = [line for line in lines if line["mode"] == "train" and "train-misc/time_share_log" in line]
    busy = [sum(line.get(f"train-misc/time_share_{phase}", 0.0) for phase in PHASES) for line in train]
    return {
        "logs": len(lines),
        "steps_per_second": [line["train-misc/approx_fps"] for line in train],
        "percent": {
            "writing": [100 * line["train-misc/time_share_log"] for line in train],
            "held up": [100 * max(1 - share, 0.0) for share in busy],
        },
    }


def event_bytes(folder: Path) -> tuple[int, int]:
    """Returns the bytes of event files that a run writes once, and of those that it writes for a number of steps."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    sizes = {True: 0, False: 0}
    framing = 16  # bytes around each record: its length, and two checksums
    for file in folder.rglob("events.out.tfevents.*"):
        for event in RawEventFileLoader(str(file)).Load():
            sizes[Event.FromString(event).step == 0] += len(event) + framing
    return sizes[True], sizes[False]


if __name__ == "__main__":
    main()
