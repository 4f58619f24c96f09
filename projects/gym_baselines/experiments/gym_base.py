"""What every gym baseline shares: where its tasks come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allenact.base_abstractions.experiment_config import ExperimentConfig, TaskSampler
from allenact.base_abstractions.sensor import Sensor
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler


class GymBaseConfig(ExperimentConfig):
    """Endless seeded tasks for training, the same few tasks for every validation and test.

    Attributes:
        ENV_NAME: the environment's id.
        SENSORS: what the agent sees.
        NUM_EVAL_TASKS: episodes that each validation or test sampler plays.
    """

    ENV_NAME: str
    SENSORS: Sequence[Sensor]
    NUM_EVAL_TASKS = 4

    @classmethod
    def make_sampler_fn(cls, **kwargs: Any) -> TaskSampler:
        return GymTaskSampler(gym_env_type=cls.ENV_NAME, **kwargs)

    def train_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        return {
            "sensors": self.SENSORS,
            "max_tasks": None,
            "deterministic_sampling": False,
            "seed": seeds[process_ind] if seeds is not None else None,
        }

    def valid_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        first = process_ind * self.NUM_EVAL_TASKS
        return {
            "sensors": self.SENSORS,
            "max_tasks": self.NUM_EVAL_TASKS,
            "task_seeds_list": list(range(first, first + self.NUM_EVAL_TASKS)),
            "deterministic_sampling": True,
            "seed": seeds[process_ind] if seeds is not None else None,
        }

    def test_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: Sequence[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        return self.valid_task_sampler_args(process_ind, total_processes, devices, seeds, deterministic_cudnn)
