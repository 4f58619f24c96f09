"""What training and evaluation workers share: the model, the pipeline and the task samplers of one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from allenact.algorithms.onpolicy_sync.deferred_collection import can_act_in_processes
from allenact.algorithms.onpolicy_sync.distributed import WorkerGroup
from allenact.algorithms.onpolicy_sync.machine_params import machine_params_of
from allenact.algorithms.onpolicy_sync.space_checks import check_spaces
from allenact.algorithms.onpolicy_sync.tracking import Tracker
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks, make_vector_tasks
from allenact.utils.cores import usable_cores
from allenact.utils.seeding import set_deterministic_cudnn, set_seed, worker_seeds
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.base_abstractions.sensor import Sensor
    from allenact.base_abstractions.task import TaskSampler
    from allenact.pipeline.pipeline import TrainingPipeline

TRAIN_MODE_STR = "train"
VALID_MODE_STR = "valid"
TEST_MODE_STR = "test"


class OnPolicyRLEngine:
    """What training and evaluation workers share: model, pipeline, task samplers.

    Args:
        config: the experiment.
        mode: "train", "valid" or "test".
        seed: seed of the model's initialisation and of the samplers; None leaves the generators alone.
        worker_id: index among the workers of this mode.
        num_workers: number of workers of this mode.
        distributed_address: `ip:port` where several training workers meet.
        max_sampler_processes: most processes that the samplers are spread over; None: this worker's part of the
            usable cores. Validation steps its samplers in its own process.
        sampler_backend: "auto", "batched", "process" or "serial"; to validation, "process" means "auto".
        deterministic_agents: evaluation takes the mode of the action distribution.
        deterministic_cudnn: deterministic cuDNN.
        machine_id: index of the machine that this worker runs on, for experiments on several.
        callback_sensors: evaluated on every finished task for the run's callbacks.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        mode: str,
        *,
        seed: int | None = None,
        worker_id: int = 0,
        num_workers: int = 1,
        distributed_address: str = "",
        max_sampler_processes: int | None = None,
        sampler_backend: str = "auto",
        deterministic_agents: bool = False,
        deterministic_cudnn: bool = False,
        machine_id: int | None = None,
        callback_sensors: list[Sensor[Any, Any]] | None = None,
    ) -> None:
        self.config = config
        self.mode = mode
        self.seed = seed
        self.worker_id = worker_id
        self.num_workers = num_workers
        self.max_sampler_processes = max_sampler_processes
        self.sampler_backend = sampler_backend
        self.deterministic_agents = deterministic_agents
        self.callback_sensors = callback_sensors
        self.restarts_samplers = False  # whether those that crash are replaced, and the others live on

        self.machine_params = machine_params_of(config, mode, machine_id)
        self.device = self.machine_params.devices[worker_id]
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.workers = WorkerGroup(
            worker_id, num_workers if mode == TRAIN_MODE_STR else 1, distributed_address, self.device
        )
        if deterministic_cudnn:
            set_deterministic_cudnn()

        self.training_pipeline: TrainingPipeline = config.training_pipeline()
        self.preprocessors = self.machine_params.sensor_preprocessor_graph
        model_kwargs = {}
        if self.preprocessors is not None:
            self.preprocessors = self.preprocessors.to(self.device)
            model_kwargs["sensor_preprocessor_graph"] = self.preprocessors
        set_seed(seed)  # every worker builds the same initial weights
        model: Any = config.create_model(**model_kwargs)
        self.actor_critic: ActorCriticModel[Any] = model.to(self.device)
        self.tracker = Tracker(mode)
        self._vector_tasks: VectorTasks | None = None

    @property
    def num_samplers(self) -> int:
        """Task samplers of this worker."""
        return int(self.machine_params.nprocesses[self.worker_id])

    @property
    def vector_tasks(self) -> VectorTasks:
        """The task samplers, started when first asked for.

        Raises:
            SpaceMismatchError: the model expects other observations or actions than the tasks give.
        """
        if self._vector_tasks is None:
            beside_training = self.mode == VALID_MODE_STR  # no process but this one, which leaves training the cores
            self._vector_tasks = make_vector_tasks(
                partial(make_seeded_sampler, self.config.make_sampler_fn),
                self._sampler_args(),
                action_space=self.actor_critic.action_space,
                backend="auto" if beside_training and self.sampler_backend == "process" else self.sampler_backend,
                max_processes=1 if beside_training else self.max_sampler_processes or self._cores(),
                callback_sensors=self.callback_sensors,
                num_threads=self._cores(),
                keep_healthy=self.restarts_samplers,
                sends_policy=self._sends_policy(),
            )
            check_spaces(self.actor_critic, self._vector_tasks, self.preprocessors)
            self.tracker.notes["samplers"] = f"{self.num_samplers} task samplers, {self._vector_tasks.description}"
        return self._vector_tasks

    def _sends_policy(self) -> bool:
        """Whether sampler processes will be given the policy, as far as that is known before the first rollout."""
        stage = self.training_pipeline.current_stage
        if self.mode != TRAIN_MODE_STR or stage is None or stage.teacher_forcing is not None:
            return False
        storages: set[str | None] = {component.storage_uuid for component in stage.stage_components}
        storages.add(self.training_pipeline.rollout_storage_uuid)
        on_cpu = self.device.type == "cpu" and self.preprocessors is None
        return on_cpu and len(storages) == 1 and can_act_in_processes(self.actor_critic)

    def _cores(self) -> int:
        """Returns how many cores step the samplers: this worker's part of them, but one beside training."""
        workers_here = min(self.num_workers, len(self.machine_params.local_worker_ids))
        return 1 if self.mode == VALID_MODE_STR else max(1, usable_cores() // max(1, workers_here))

    def _sampler_args(self) -> list[dict[str, Any]]:
        """Returns the keyword arguments of `make_sampler_fn` for each sampler of this worker."""
        make_args: Callable[..., dict[str, Any]] = getattr(self.config, f"{self.mode}_task_sampler_args")
        per_worker = [int(count) for count in self.machine_params.nprocesses]
        is_distributed = self.num_workers > 1
        total = sum(per_worker) if is_distributed else self.num_samplers
        first = sum(per_worker[: self.worker_id])  # of this worker, among all samplers
        seeds = worker_seeds(total, self.seed)
        devices: list[int] | None = None
        if (is_distributed or self.mode == TEST_MODE_STR) and self.device.index is not None:
            devices = [self.device.index]
        elif self.machine_params.sampler_devices is not None:
            devices = [-1 if d.type == "cpu" else int(d.index or 0) for d in self.machine_params.sampler_devices]
        args = []
        for index in range(first, first + self.num_samplers):
            own = make_args(process_ind=index, total_processes=total, devices=devices, seeds=seeds)
            args.append(own if "seed" in own else {**own, "framework_seed": seeds[index]})
        return args

    def initialize_without_tasks(self, storages: Iterable[ExperienceStorage]) -> None:
        """Brings storages into use that hold data of their own."""
        for storage in storages:
            storage.initialize(
                observations={},
                num_samplers=0,
                recurrent_memory_specification=self.actor_critic.recurrent_memory_specification,
                action_space=self.actor_critic.action_space,
            )

    def close(self) -> None:
        """Stops the task samplers and leaves the group of workers. Calling it again does nothing."""
        if self._vector_tasks is not None:
            self._vector_tasks.close()
            self._vector_tasks = None
        self.workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_seeded_sampler(
    make_sampler_fn: Callable[..., TaskSampler], framework_seed: int | None = None, **kwargs: Any
) -> TaskSampler:
    """Builds a task sampler, and seeds it if its arguments do not: so that `-s` alone makes a run repeatable."""
    sampler = make_sampler_fn(**kwargs)
    if framework_seed is not None:
        try:
            sampler.set_seed(framework_seed)
        except NotImplementedError:
            return sampler  # not every sampler can be seeded
        except Exception as error:  # or only once it has made its environment
            get_logger().warning(
                f"{type(sampler).__name__}.set_seed failed before the first task ({type(error).__name__}: {error}): the"
                " run goes on, but does not follow from its seed."
            )
    return sampler
