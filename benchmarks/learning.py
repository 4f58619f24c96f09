"""Trains an experiment once for each seed and writes down what it learned, how fast, and what it is worth.

    python -m benchmarks.learning gym_mujoco_tutorial -b projects/tutorials --seeds 0 1 2 --name ant-tutorial
    python -m benchmarks.learning gym_mujoco_tutorial -b projects/tutorials --name ant-tutorial --collect DIR DIR DIR

Each seed is trained by the `allenact` command in a folder of its own below `--out`. Started again, the same command
goes on from the newest checkpoints, so it can be interrupted at any time; with more `total_steps` among the keyword
arguments it prolongs the runs. With `--collect` nothing is trained: each folder is the output folder of one run, from
wherever it was made. Commit, machine and versions at the top of a result are those of its evaluation; how each seed was
trained is in its row, under `trained`, as far as its folder knows.

The curves are those of the metrics files: of training the mean return over the episodes of each log, with exploration;
of validation that of each checkpoint, without. `seconds` is the time spent training until then, pauses not counted.
The checkpoints asked for are then evaluated without exploration, on episodes whose seeds were used by neither.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allenact.algorithms.onpolicy_sync.checkpointing import find_checkpoints, load_checkpoint, step_from_checkpoint
from allenact.utils.cores import usable_cores
from allenact.utils.metrics_files import RunMetrics, read_run
from benchmarks import made_by
from benchmarks.common import RESULTS, ROOT, record, write_result
from projects.gym_baselines.held_out import EPISODES, FIRST_SEED, evaluate_held_out

POLL_S = 0.5
STOP_S = 120.0  # how long a run may take to write its last checkpoint


def main(args: Sequence[str] | None = None) -> None:
    options = parse(args)
    folders = [folder.resolve() for folder in options.collect]
    if not folders:
        out = (options.out or Path("experiment_output", "learning", options.name)).resolve()
        folders = [out / f"seed{seed}" for seed in options.seeds]
        train(options, dict(zip(options.seeds, folders, strict=True)))
    names = ["experiment", "base", "config_kwargs", "label", "episodes", "first_seed"]
    names += [] if options.collect else ["flags", "parallel"]
    result = record("learning", args, {name: getattr(options, name) for name in names})
    for folder in folders:
        result["rows"].append(row(folder, options))
        print(f"wrote {write_result(result, options.results, options.name)}", flush=True)


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("experiment", help="as for the allenact command")
    parser.add_argument("-b", "--base", default=".", help="folder of the experiment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument(
        "--config_kwargs", type=json.loads, default={}, help="keyword arguments of the experiment, JSON"
    )
    parser.add_argument("--flags", default="-m 2", help="more flags for the allenact command")
    parser.add_argument("--name", required=True, help="short name of the result, results/learning-NAME.json")
    parser.add_argument("--label", default="", help="what figures and tables call it; none: its name")
    parser.add_argument(
        "--out", type=Path, default=None, help="where runs write; none: experiment_output/learning/NAME"
    )
    parser.add_argument("--parallel", type=int, default=1, help="seeds trained side by side, each on a core of its own")
    parser.add_argument("--collect", type=Path, nargs="+", default=[], help="train nothing, read these output folders")
    parser.add_argument(
        "--evaluate_at",
        type=int,
        nargs="*",
        default=[],
        help="besides the last checkpoint those nearest to these steps",
    )
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of each evaluation; 0: evaluate nothing")
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED, help="seed of the first of these episodes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    return parser.parse_args(args)


# Training


def train(options: argparse.Namespace, folders: dict[int, Path]) -> None:
    """Trains every seed that is not finished, `options.parallel` at a time.

    Raises:
        RuntimeError: a folder holds a run of something else; or a run failed, and the others have been stopped and can
            be resumed.
    """
    for seed, folder in folders.items():
        made_by.claim(folder, options.experiment, options.config_kwargs, seed)
    waiting = [seed for seed, folder in folders.items() if not (folder / "finished").exists()]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    free = [cores[slot % len(cores)] for slot in range(options.parallel)]
    running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
    try:
        while waiting or running:
            while waiting and free:
                seed, core = waiting.pop(0), free.pop(0)
                own = core if options.parallel > 1 else None
                command = ["allenact", *arguments(options, seed)]
                made_by.begin_part(folders[seed], command, usable_cores() if own is None else 1)
                running[seed] = (start(options, seed, folders[seed], own), core)
            time.sleep(POLL_S)
            for seed, (process, core) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[seed]
                free.append(core)
                if process.returncode != 0:
                    raise RuntimeError(
                        f"seed {seed} ended with exit status {process.returncode}: {folders[seed]}/log.txt"
                    )
                (folders[seed] / "finished").touch()
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)  # it writes a checkpoint and ends
        for process, _ in running.values():
            process.wait(timeout=STOP_S)


def arguments(options: argparse.Namespace, seed: int) -> list[str]:
    """Returns those of the `allenact` command that do not only say where things are."""
    flags = [options.experiment, "-b", options.base, "-s", str(seed), "-e", "-i", *options.flags.split()]
    return [*flags, "--config_kwargs", json.dumps(options.config_kwargs)]


def start(options: argparse.Namespace, seed: int, folder: Path, core: int | None) -> subprocess.Popen[bytes]:
    """Starts a run, or goes on with the one that its folder holds."""
    command = [sys.executable, "allenact/main.py", *arguments(options, seed), "-o", str(folder)]
    checkpoints = run_checkpoints(folder)
    if checkpoints:
        command += ["--checkpoint", checkpoints[-1]]
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with open(folder / "log.txt", "ab") as log:
        # A group of its own, so that Ctrl-C reaches the run once, through train().
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "."},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=pin,
            start_new_session=True,
        )


def run_checkpoints(folder: Path) -> list[str]:
    """Returns the checkpoints below an output folder by their steps; of those with the same steps the newest."""
    if not any(folder.rglob("*.pt")):
        return []
    by_steps: dict[int, str] = {}
    for path in find_checkpoints(f"{folder}/**/*.pt"):
        steps = step_from_checkpoint(path)
        if steps not in by_steps or os.path.getmtime(path) > os.path.getmtime(by_steps[steps]):
            by_steps[steps] = path
    return [by_steps[steps] for steps in sorted(by_steps)]


# Reading


def row(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what is known about the run in an output folder: its curves, and what its checkpoints are worth."""
    run = read_run(folder)
    checkpoints = run_checkpoints(folder)
    note = made_by.read_note(folder) or {}
    return {
        "seed": load_checkpoint(checkpoints[-1]).trainer_seed if checkpoints else None,
        "steps": run.steps,
        "seconds": run.seconds,
        "parts": len(run.files),
        **({"trained": note["parts"]} if note.get("parts") else {}),
        **({"prolonged_from": note["prolonged_from"]} if note.get("prolonged_from") else {}),
        "train": curve(run, "train"),
        "valid": curve(run, "valid"),
        "evaluations": evaluate(checkpoints, options) if options.episodes else [],
    }


def curve(run: RunMetrics, mode: str) -> dict[str, list[Any]]:
    """Returns steps, seconds, and the metrics of the episodes, in lists of the same length; empty if there are none."""
    rows = [each for each in run.rows if each["mode"] == mode and f"{mode}-metrics/reward" in each]
    columns: dict[str, list[Any]] = {
        "steps": [each["training_steps"] for each in rows],
        "seconds": [each["seconds"] for each in rows],
    }
    for metric in ("reward", "ep_length", "success"):
        columns[metric] = [each.get(f"{mode}-metrics/{metric}") for each in rows]
    return columns


def evaluate(checkpoints: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Evaluates the last checkpoint, and those nearest to the numbers of steps asked for."""
    by_steps = {step_from_checkpoint(path): path for path in checkpoints}
    wanted = {min(by_steps, key=lambda steps: abs(steps - target)) for target in options.evaluate_at if by_steps}
    found = []
    for path in (by_steps[steps] for steps in sorted(wanted | set(list(by_steps)[-1:]))):
        # An experiment is imported from the root, as by the command. The run's own folder is left as it is.
        with contextlib.chdir(ROOT), tempfile.TemporaryDirectory() as output:
            (result,), report = evaluate_held_out(
                options.experiment,
                options.base,
                path,
                Path(output),
                config_kwargs=options.config_kwargs,
                episodes=options.episodes,
                first_seed=options.first_seed,
            )
        tasks, order = by_seed(result["tasks"])
        found.append(
            {
                "steps": result["training_steps"],
                "actions": report["actions"],
                "seeds": [options.first_seed, options.first_seed + options.episodes - 1],
                "order": order,
                "returns": [task["reward"] for task in tasks],
                "lengths": [task["ep_length"] for task in tasks],
                "reward": report["checkpoints"][0]["metrics"]["reward"],
            }
        )
    return found


def by_seed(tasks: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Returns the metrics of episodes by their seeds, if all of them say theirs, and what they are ordered by."""
    if all("seed" in task.get("task_info", {}) for task in tasks):
        return sorted(tasks, key=lambda task: int(task["task_info"]["seed"])), "seeds"
    return list(tasks), "finishing"


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the program in order, so that the runs that were started are stopped as well."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


if __name__ == "__main__":
    end_on_signals()
    main()
