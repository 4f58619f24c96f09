"""Milliseconds per update on made-up experience: no environment, no processes.

    python -m benchmarks.update_speed
    python -m benchmarks.update_speed --sizes 64x64 --hidden 256 128 64 --mini_batches 2 --passes 4

An update is all gradient steps on one rollout. The model, its loss and its optimiser are those of the Ant
tutorial; the learning rate is 0, so that every update does the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.update import PolicyUpdater, use_fused_kernels
from allenact.base_abstractions.experiment_config import ExperimentConfig
from allenact.base_abstractions.task_batch import ObservationDict, StepBatch
from allenact.pipeline.stage import PipelineStage, StageComponent
from benchmarks.common import Measurement, Turn, add_common_arguments, interleave, print_row, record, write_result
from benchmarks.workloads import EXPERIMENTS, Size, Sized


class MadeUpTasks:
    """Stands in for `VectorTasks`: N samplers that answer noise, with episodes of 100 steps on average.

    Args:
        uuid: of the only observation.
        num_samplers: N.
        observation_size: O.
    """

    can_collect_rollouts = False

    def __init__(self, uuid: str, num_samplers: int, observation_size: int) -> None:
        self.uuid = uuid
        self.num_unpaused_tasks = num_samplers
        self.observation_size = observation_size
        self.rng = np.random.default_rng(0)

    def observe(self) -> ObservationDict:
        """Returns noise, [N, O] float32."""
        shape = (self.num_unpaused_tasks, self.observation_size)
        return {self.uuid: self.rng.standard_normal(shape, dtype=np.float32)}

    def step_batch(self, flat_actions: torch.Tensor | np.ndarray) -> StepBatch:
        """Answers noise, whatever the actions."""
        n = self.num_unpaused_tasks
        dones = self.rng.random(n) < 0.01  # [N]
        rewards = self.rng.standard_normal(n, dtype=np.float32)  # [N]
        return StepBatch(self.observe(), rewards, dones, np.zeros_like(dones), {}, [], [])


class ThreadedUpdater(PolicyUpdater):
    """Uses as many threads as it is told, where `PolicyUpdater` measures."""

    fixed_threads = 1

    def num_threads(self, stage: PipelineStage, component: StageComponent, storage: ExperienceStorage) -> int:
        """Returns `fixed_threads`."""
        return self.fixed_threads


class Update:
    """Computes the targets of one rollout, or learns from it, again and again.

    Args:
        size: of the rollout, its mini-batches and the model.
        threads: of torch, in the gradient steps.
        seconds: least length of a turn.
    """

    def __init__(self, size: Size, threads: int, seconds: float) -> None:
        self.seconds = seconds
        config = cast("ExperimentConfig", Sized(EXPERIMENTS["Ant"](), size))
        torch.manual_seed(0)
        model: Any = config.create_model()
        pipeline = config.training_pipeline()
        self.stage = pipeline.pipeline_stages[0]
        self.storages = pipeline.get_stage_storage(self.stage)
        (self.storage,) = self.storages.values()
        if not isinstance(self.storage, RolloutBlockStorage):
            raise TypeError("this benchmark fills a RolloutBlockStorage")
        tasks: Any = MadeUpTasks(
            model.input_uuid, size.num_samplers, model.observation_space[model.input_uuid].shape[0]
        )
        collector = RolloutCollector(model, tasks, torch.device("cpu"))
        self.storage.reserve(size.num_steps)
        collector.initialize([self.storage])
        collector.collect(self.storage, [self.storage], size.num_steps)
        self.next_value = collector.next_value(self.storage)  # [N, 1]

        optimizer = pipeline.optimizer_builder(params=list(model.parameters()))
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        use_fused_kernels(optimizer)
        self.updater = ThreadedUpdater(model, pipeline, optimizer, num_samplers=size.num_samplers)
        self.updater.fixed_threads = threads

    def chosen_threads(self) -> int:
        """Returns the number of threads that the trainer would choose now. The targets must have been computed."""
        (component,) = self.stage.stage_components
        return PolicyUpdater.num_threads(self.updater, self.stage, component, self.storage)

    def targets(self) -> Measurement:
        """Returns the milliseconds that returns and advantages take, on one thread."""
        torch.set_num_threads(1)
        settings = self.stage.training_settings
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            self.storage.before_updates(
                next_value=self.next_value,
                use_gae=settings.use_gae,
                gamma=settings.gamma,
                tau=settings.gae_lambda,
            )
            count += 1
        return {"targets": 1000 / turn.rate(count)}

    def update(self) -> Measurement:
        """Returns the milliseconds that the gradient steps of one update take."""
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            self.updater.update(self.stage, self.storages)
            count += 1
        return {f"update, {self.updater.fixed_threads} thread(s)": 1000 / turn.rate(count)}


def main(args: Sequence[str] | None = None) -> None:
    options = parse(args)
    hidden = tuple(options.hidden)
    result = record("update_speed", args, {"rounds": options.rounds, "seconds": options.seconds})
    for num_steps, num_samplers in options.sizes:
        rows = num_steps * num_samplers
        size = Size(num_samplers, rows, max(1, rows // options.mini_batches), options.passes, hidden)
        updates = [Update(size, threads, options.seconds) for threads in dict.fromkeys(options.threads)]
        for update in updates:
            update.targets()  # which the gradient steps need
        series = interleave([updates[0].targets, *(update.update for update in updates)], options.rounds)
        row = {
            "num_steps": num_steps,
            "num_samplers": num_samplers,
            "num_mini_batch": size.num_mini_batch,
            "passes": size.passes,
            "hidden": list(hidden),
            "chosen_threads": updates[0].chosen_threads(),
            "milliseconds": series,
        }
        result["rows"].append(row)
        write_result(result, options.results, options.name)
        print_row(f"{num_steps} steps x {num_samplers} samplers, milliseconds", series, {})


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    sizes = [(2048, 8), (256, 64), (64, 256)]
    parser.add_argument("--sizes", nargs="+", type=_size, default=sizes, metavar="TxN", help="rollouts, e.g. 2048x8")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of torch")
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 32], help="sizes of the hidden layers")
    parser.add_argument("--mini_batches", type=int, default=4, help="of each pass")
    parser.add_argument("--passes", type=int, default=10, help="over each rollout")
    add_common_arguments(parser, seconds=1.0)
    return parser.parse_args(args)


def _size(text: str) -> tuple[int, int]:
    num_steps, num_samplers = (int(part) for part in text.split("x"))
    return num_steps, num_samplers


if __name__ == "__main__":
    main()
