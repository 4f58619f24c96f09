"""Where the time of one step of all samplers goes, while the Ant tutorial collects.

    python -m benchmarks.step_profile

Clocks are read around the engine's call, the task's arithmetic, the batch, the policy and the storage, which costs a
few microseconds itself. "rest" is the loop, counting, and what lies between these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import Measurement, add_common_arguments, interleave, print_row, record, write_result
from benchmarks.workloads import EXPERIMENTS, Physics, Size, Training


class Clocks:
    """Adds up the seconds spent in some functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function with a clock around it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return timed


class StepProfile:
    """Microseconds of one step of all samplers, by what they are spent on."""

    def __init__(self, num_samplers: int, seconds: float) -> None:
        size = Size(num_samplers, rollout_rows=16384, passes=0)
        self.training = Training(EXPERIMENTS["Ant"], size, "batched", seconds)
        self.steps = size.num_steps
        self.clocks = Clocks()
        trainer: Any = self.training.trainer
        simulations = trainer.vector_tasks.batch.simulations
        simulations._batch = _TimedEngine(simulations._batch, self.clocks)
        simulations.step = self.clocks.around("task", simulations.step)
        trainer.vector_tasks.step_batch = self.clocks.around("batch", trainer.vector_tasks.step_batch)
        make_policy = trainer.actor_critic.make_rollout_policy
        trainer.actor_critic.make_rollout_policy = lambda num_steps: self.clocks.around(
            "policy", make_policy(num_steps)
        )
        storage = trainer.training_pipeline.rollout_storage
        storage.add_transition = self.clocks.around("storage", storage.add_transition)

    def __call__(self) -> Measurement:
        """Returns microseconds per step."""
        self.clocks.seconds.clear()
        rate = self.training()["batched collect"]
        total = self.training.rows / self.steps / rate
        count = self.clocks.seconds["engine calls"]
        each = {name: seconds / count for name, seconds in self.clocks.seconds.items() if name != "engine calls"}
        parts = {
            "engine": each["engine"],
            "observation, reward, end": each["task"] - each["engine"],
            "episodes": each["batch"] - each["task"],
            "policy": each["policy"],
            "storage": each["storage"],
            "rest": total - each["batch"] - each["policy"] - each["storage"],
        }
        return {name: 1e6 * seconds for name, seconds in {**parts, "all": total}.items()}


class _TimedEngine:
    """The engine with a clock around its step."""

    def __init__(self, engine: Any, clocks: Clocks) -> None:
        self._engine = engine
        self._clocks = clocks
        self._step = clocks.around("engine", engine.step)

    def step(self, *args: Any, **kwargs: Any) -> None:
        self._step(*args, **kwargs)
        self._clocks.seconds["engine calls"] = self._clocks.seconds.get("engine calls", 0) + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--samplers", type=int, nargs="+", default=[8, 64], help="N, one row for each")
    add_common_arguments(parser, seconds=1.0)
    options = parser.parse_args(args)
    result = record("step_profile", args, {"rounds": options.rounds, "seconds": options.seconds})
    for num_samplers in options.samplers:
        physics, profile = Physics("Ant", num_samplers, options.seconds), StepProfile(num_samplers, options.seconds)

        def alone(physics: Physics = physics, n: int = num_samplers) -> Measurement:
            return {"physics alone": 1e6 * n / physics()["physics"]}

        microseconds = interleave([alone, profile], options.rounds)
        profile.training.close()
        print_row(f"{num_samplers} samplers, microseconds", microseconds, {})
        result["rows"].append({"num_samplers": num_samplers, "microseconds": microseconds})
        write_result(result, options.results, options.name)


if __name__ == "__main__":
    main()
