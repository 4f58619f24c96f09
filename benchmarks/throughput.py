"""Environment steps per second: physics alone, collecting, and the whole training loop.

    python -m benchmarks.throughput                                   # all tasks and sizes, about ten minutes
    python -m benchmarks.throughput --tasks Ant --samplers 8 --seconds 4 --rollout_rows 16384

"whole" is collecting, computing returns, updating and logging; every rollout is learned from ten times, in
mini-batches of 4096 rows, as in the Ant tutorial. Ratios are to the physics alone in the same round, where there
is a batch to measure it with, and elsewhere to the serial backend.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Any

from allenact.utils.system import init_logging
from benchmarks.common import (
    add_common_arguments,
    interleave,
    paired_ratios,
    print_row,
    record,
    write_result,
)
from benchmarks.workloads import EXPERIMENTS, Physics, Size, Training, has_physics

BACKENDS = ("batched", "process", "serial")


def main(args: Sequence[str] | None = None) -> None:
    options = parse(args)
    init_logging("warning")
    result = record("throughput", args, {"rounds": options.rounds, "seconds": options.seconds})
    start = time.perf_counter()
    for task in options.tasks:
        for num_samplers in options.samplers:
            size = Size(num_samplers, options.rollout_rows, min(options.rollout_rows, options.mini_batch_rows))
            row = measure(task, size, options)
            if row is None:
                continue
            result["rows"].append(row)
            result["wall_seconds"] = round(time.perf_counter() - start, 1)
            write_result(result, options.results, options.name)
            print_row(f"{task}, {num_samplers} samplers", row["steps_per_second"], row["ratios"])
    print(f"{result.get('wall_seconds', 0)} s")


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--samplers", nargs="+", type=int, default=[1, 8, 64, 256], help="numbers of samplers, N")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--rollout_rows", type=int, default=4096, help="environment steps of a rollout, T * N")
    parser.add_argument("--mini_batch_rows", type=int, default=4096, help="environment steps of a mini-batch")
    add_common_arguments(parser, seconds=1.0)
    return parser.parse_args(args)


def measure(task: str, size: Size, options: argparse.Namespace) -> dict[str, Any] | None:
    """Returns the row of one task and size, None if none of the backends is offered there."""
    backends = [backend for backend in options.backends if is_offered(backend, task, size.num_samplers)]
    if not backends:
        return None
    with ExitStack() as stack:
        trainings = [Training(EXPERIMENTS[task], size, backend, options.seconds) for backend in backends]
        for training in trainings:
            stack.enter_context(closing(training))
        contestants: list[Any] = list(trainings)
        if has_physics(task):
            contestants.insert(0, Physics(task, size.num_samplers, options.seconds))
        series = interleave(contestants, options.rounds)
        descriptions = {training.name: training.description for training in trainings}
    return {
        "task": task,
        "num_samplers": size.num_samplers,
        "num_steps": size.num_steps,
        "num_mini_batch": size.num_mini_batch,
        "passes": size.passes,
        "backends": descriptions,
        "steps_per_second": series,
        "ratios": paired_ratios(series, comparisons(series)),
    }


def is_offered(backend: str, task: str, num_samplers: int) -> bool:
    """Whether a backend makes sense: only MuJoCo tasks come in batches, and one sampler needs no second process."""
    if backend == "batched":
        return has_physics(task)
    return backend == "serial" or num_samplers > 1


def comparisons(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns what each measurement is divided by: the physics, or else the same of the serial backend."""
    names = list(names)
    pairs = {}
    for name in names:
        reference = "physics" if "physics" in names else f"serial {name.split()[-1]}"
        if reference in names and reference != name:
            pairs[name] = (name, reference)
    return pairs


if __name__ == "__main__":
    main()
