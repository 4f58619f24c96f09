"""Whether two halves of the samplers that step apart collect faster than all of them together.

    python -m benchmarks.overlap

One engine with as many threads as cores steps all ants: its threads wait for each other, and for Python, in every row.
Instead, each half could have an engine with one thread, and do all else, policy, observations, rewards, storage, by
itself, either in a Python thread (which waits for the other's Python, but not for its physics) or in a process of its
own. The halves meet at the end of a rollout. Values and log-probabilities, which follow then, are not part of this.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.deferred_collection import collect_in_lockstep
from allenact.algorithms.onpolicy_sync.engine_base import make_seeded_sampler
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import make_vector_tasks
from allenact.utils.cores import usable_cores
from allenact.utils.seeding import set_seed, worker_seeds
from allenact.utils.worker_startup import worker_context
from benchmarks.common import (
    Measurement,
    Turn,
    add_common_arguments,
    interleave,
    paired_ratios,
    print_row,
    record,
    write_result,
)
from benchmarks.workloads import EXPERIMENTS

ONE, THREADS, PROCESSES = "one engine", "two threads", "two processes"


class Part:
    """Some of the N samplers of a task, stepped by an engine of their own.

    Args:
        task: a MuJoCo task of `EXPERIMENTS`.
        samplers: which of the N.
        num_samplers: N.
        num_threads: of the engine.
    """

    def __init__(self, task: str, samplers: range, num_samplers: int, num_threads: int) -> None:
        config = EXPERIMENTS[task]()
        set_seed(0)
        torch.set_num_threads(1)
        model: Any = config.create_model()
        self.model = model
        seeds = worker_seeds(num_samplers, 0)
        self.tasks = make_vector_tasks(
            partial(make_seeded_sampler, config.make_sampler_fn),
            [config.train_task_sampler_args(index, num_samplers, seeds=seeds) for index in samplers],
            action_space=model.action_space,
            backend="batched",
            num_threads=num_threads,
        )
        self.storage = RolloutBlockStorage()
        RolloutCollector(model, self.tasks, torch.device("cpu")).initialize([self.storage])

    def collect(self, num_steps: int) -> None:
        """Takes T steps and stores them."""
        collect_in_lockstep(self.model.make_rollout_policy(num_steps), self.storage, self.tasks.step_batch, num_steps)
        self.storage.after_updates()

    def close(self) -> None:
        """Closes the samplers."""
        self.tasks.close()


class Together:
    """All samplers by one engine, or each half by one in a thread of this process.

    Args:
        name: of the measurement.
        parts: what is stepped apart.
        num_steps: T.
        num_samplers: N, of all parts.
        seconds: least length of a turn.
    """

    def __init__(self, name: str, parts: Sequence[Part], num_steps: int, num_samplers: int, seconds: float) -> None:
        self.name, self.parts, self.num_steps, self.num_samplers = name, parts, num_steps, num_samplers
        self.seconds = seconds
        self.threads = ThreadPoolExecutor(len(parts))

    def __call__(self) -> Measurement:
        """Returns environment steps per second."""
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            if len(self.parts) == 1:
                self.parts[0].collect(self.num_steps)
            else:
                list(self.threads.map(lambda part: part.collect(self.num_steps), self.parts))
            count += self.num_steps * self.num_samplers
        return {self.name: turn.rate(count)}

    def close(self) -> None:
        """Closes the samplers."""
        self.threads.shutdown()
        for part in self.parts:
            part.close()


class Apart:
    """Each half of the samplers in a process of its own, which reports when it has collected a rollout.

    Args:
        task: a MuJoCo task of `EXPERIMENTS`.
        halves: the samplers of each process.
        num_steps: T.
        seconds: least length of a turn.
    """

    def __init__(self, task: str, halves: Sequence[range], num_steps: int, seconds: float) -> None:
        self.num_steps, self.num_samplers, self.seconds = num_steps, sum(map(len, halves)), seconds
        context = worker_context()
        self.pipes: list[Connection] = []
        self.processes = []
        for half in halves:
            ours, theirs = context.Pipe()
            process = context.Process(  # type: ignore[attr-defined]  # every context has it, their base class not
                target=serve, args=(theirs, task, half, self.num_samplers), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def __call__(self) -> Measurement:
        """Returns environment steps per second."""
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            for pipe in self.pipes:
                pipe.send(self.num_steps)
            for pipe in self.pipes:
                pipe.recv()
            count += self.num_steps * self.num_samplers
        return {PROCESSES: turn.rate(count)}

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self.pipes:
            pipe.send(0)
        for process in self.processes:
            process.join()


def serve(pipe: Connection, task: str, samplers: range, num_samplers: int) -> None:
    """Collects as many steps as it is told, until that is 0."""
    with closing(Part(task, samplers, num_samplers, num_threads=1)) as part:
        pipe.send("ready")
        while num_steps := pipe.recv():
            part.collect(num_steps)
            pipe.send("done")


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", choices=("Ant", "HalfCheetah", "Humanoid"), default="Ant")
    parser.add_argument("--samplers", type=int, nargs="+", default=[8, 64], help="N, one row for each")
    parser.add_argument("--rollout_rows", type=int, default=4096, help="environment steps of a rollout, T * N")
    add_common_arguments(parser, seconds=1.0)
    options = parser.parse_args(args)
    result = record("overlap", args, {"rounds": options.rounds, "seconds": options.seconds})
    for n in options.samplers:
        series = measure(options.task, n, max(1, options.rollout_rows // n), options.seconds, options.rounds)
        ratios = paired_ratios(series, {name: (name, ONE) for name in (THREADS, PROCESSES)})
        print_row(f"{options.task}, {n} samplers", series, ratios)
        row = {"task": options.task, "num_samplers": n, "steps_per_second": series, "ratios": ratios}
        result["rows"].append(row)
        write_result(result, options.results, options.name)


def measure(task: str, n: int, num_steps: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Returns environment steps per second of one engine and of both kinds of halves."""
    halves = [range(n // 2), range(n // 2, n)]
    with ExitStack() as stack:
        whole = Together(ONE, [Part(task, range(n), n, usable_cores())], num_steps, n, seconds)
        stack.enter_context(closing(whole))
        threads = Together(THREADS, [Part(task, half, n, 1) for half in halves], num_steps, n, seconds)
        stack.enter_context(closing(threads))
        processes = stack.enter_context(closing(Apart(task, halves, num_steps, seconds)))
        return interleave([whole, threads, processes], rounds)


if __name__ == "__main__":
    main()
