"""A trainer in this process, and what it logs and saves."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore
from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
from allenact.algorithms.onpolicy_sync.tracking import LogPackage


@dataclass
class Run:
    """What came of a training run."""

    trainer: OnPolicyTrainer
    packages: list[LogPackage] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        return {key: value.clone() for key, value in self.trainer.actor_critic.state_dict().items()}

    @property
    def logged(self) -> list[tuple[int, dict[str, Any], list[dict[str, Any]]]]:
        """Steps, scalars and episode metrics of every log: all that a run says, but for times."""
        return [(package.training_steps, package.scalars, package.metrics) for package in self.packages]


@pytest.fixture
def train(tmp_path):
    """Trains an experiment in this process and returns a Run."""
    number = 0

    def run(
        config,
        *,
        checkpoint=None,
        seed=7,
        backend="serial",
        stop_after=None,
        stop_after_mini_batches=None,
        packages=None,
        prepare=lambda trainer: None,
        **kwargs,
    ) -> Run:
        nonlocal number
        number += 1
        result = Run(None, packages=[] if packages is None else packages)

        def send(message):
            if isinstance(message, Path):
                result.checkpoints.append(message)
            else:
                result.packages.append(message)

        engine_kwargs = {
            k: kwargs.pop(k) for k in ("max_sampler_processes", "try_restart_after_task_error") if k in kwargs
        }
        trainer = OnPolicyTrainer(
            config,
            seed=seed,
            sampler_backend=backend,
            checkpoints=CheckpointStore(tmp_path / f"run{number}", "Toy"),
            send=send,
            **engine_kwargs,
        )
        result.trainer = trainer
        with trainer:
            prepare(trainer)
            if stop_after is not None:
                _stop_after(trainer, stop_after)
            if stop_after_mini_batches is not None:
                _stop_after_mini_batches(trainer, stop_after_mini_batches)
            trainer.train(None if checkpoint is None else str(checkpoint), **kwargs)
        return result

    return run


def _stop_after(trainer: OnPolicyTrainer, steps: int) -> None:
    """Asks the trainer to stop once it has taken that many environment steps in all, wherever that is in a rollout."""
    count = trainer._count_step

    def count_and_stop(new: int) -> None:
        count(new)
        if trainer.training_pipeline.total_steps + trainer.steps_in_rollout >= steps:
            trainer.stop_requested = True

    trainer._count_step = count_and_stop


def _stop_after_mini_batches(trainer: OnPolicyTrainer, count: int) -> None:
    """Asks the trainer to stop once it has followed the gradient of that many mini-batches."""
    step = trainer.optimizer.step
    left = count

    def step_and_stop(*args, **kwargs):
        nonlocal left
        left -= 1
        trainer.stop_requested = trainer.stop_requested or left <= 0
        return step(*args, **kwargs)

    trainer.optimizer.step = step_and_stop


@pytest.fixture(scope="session")
def start():
    """A function that runs an experiment in processes of its own, with validation, and returns its start time."""

    def run(config, output, seed=3, backend="serial", callbacks=None, **kwargs):
        with OnPolicyRunner(
            config,
            output_dir=output,
            loaded_config_src_files=None,
            seed=seed,
            multiprocessing_start_method="fork",
            sampler_backend=backend,
            callbacks_paths=callbacks,
        ) as runner:
            return runner.start_train(**kwargs)

    return run
