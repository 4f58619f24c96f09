"""RunnerBase: the settings of a runner, the names and paths of its run, and the processes that it has started."""

from __future__ import annotations

import os
import random
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import find_checkpoints, step_from_checkpoint
from allenact.algorithms.onpolicy_sync.machine_params import machine_params_of, require_samplers
from allenact.errors import ExperimentConfigError
from allenact.runs.run_directory import (
    RunDirectory,
    RunLock,
    SaveDirFormat,
    checkpoint_start_time_str,
)
from allenact.runs.training_run import TrainingRun
from allenact.runs.worker_processes import STOP_GRACE_S, WorkerProcess, stop_workers
from allenact.utils.seeding import set_deterministic_cudnn, set_seed
from allenact.utils.system import get_logger
from allenact.utils.worker_startup import worker_context

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig, MachineParams
    from allenact.runs.run import Run


class RunnerBase:
    """The settings of a runner, the names and paths of its run, and the processes that it has started.

    Args:
        config: the experiment.
        output_dir: root of all output.
        loaded_config_src_files: `{file path: dotted module}` to copy into `used_configs`, None for nothing.
        seed: random seed; None for a random one.
        mode: "train" or "test".
        deterministic_cudnn: deterministic cuDNN, without benchmarking.
        deterministic_agents: validation and test take the mode of the action distribution.
        mp_ctx: multiprocessing context of the workers; wins over the next argument.
        multiprocessing_start_method: "default", "forkserver", "spawn" or "fork".
        extra_tag: extra folder below the experiment's tag.
        disable_tensorboard: write no event files and no pictures.
        disable_config_saving: write no `used_configs`.
        distributed_ip_and_port: where several training workers meet; port 0 picks a free one.
        distributed_preemption_threshold: kept for old callers.
        machine_id: index of this machine.
        save_dir_fmt: layout of the output.
        callbacks_paths: comma-separated callback specifications.
        sampler_backend: "auto", "batched", "process" or "serial".
        live_progress: show training as one block that is drawn again in place, if stderr is a terminal.

    Raises:
        ExperimentConfigError: the experiment's parts do not fit together.
        OutputDirectoryError: the output directory cannot be written.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        output_dir: str | os.PathLike[str],
        loaded_config_src_files: dict[str, str] | None = None,
        seed: int | None = None,
        mode: str = "train",
        deterministic_cudnn: bool = False,
        deterministic_agents: bool = False,
        mp_ctx: BaseContext | None = None,
        multiprocessing_start_method: str = "default",
        extra_tag: str = "",
        disable_tensorboard: bool = False,
        disable_config_saving: bool = False,
        distributed_ip_and_port: str = "127.0.0.1:0",
        distributed_preemption_threshold: float = 0.7,
        machine_id: int = 0,
        save_dir_fmt: SaveDirFormat = SaveDirFormat.FLAT,
        callbacks_paths: str | None = None,
        sampler_backend: str = "auto",
        live_progress: bool = False,
    ) -> None:
        if mode not in ("train", "test"):
            raise ExperimentConfigError(
                f'a runner trains or tests, not "{mode}".', f"mode={mode!r}", 'use "train" or "test".'
            )
        self.config = config
        self.mode = mode
        self.output_dir = str(output_dir)
        self.loaded_config_src_files = loaded_config_src_files
        self.deterministic_cudnn = deterministic_cudnn
        self.deterministic_agents = deterministic_agents
        self.mp_ctx = mp_ctx or worker_context(multiprocessing_start_method)
        self.extra_tag = extra_tag
        self.disable_tensorboard = disable_tensorboard
        self.disable_config_saving = disable_config_saving
        self.distributed_ip_and_port = distributed_ip_and_port
        self.machine_id = machine_id
        self.save_dir_fmt = save_dir_fmt
        self.sampler_backend = sampler_backend
        self.live_progress = live_progress
        self._seed_is_given = seed is not None
        self.seed = random.SystemRandom().randint(0, 2**31 - 1) if seed is None else seed

        set_seed(self.seed)
        if deterministic_cudnn:
            set_deterministic_cudnn()
        self.paths = RunDirectory(Path(self.output_dir), config.tag(), extra_tag, save_dir_fmt)
        self.callbacks_paths = callbacks_paths
        self._run: Run | None = None
        self._lock = RunLock()  # of the folders of the run
        self._workers: list[WorkerProcess] = []

    @property
    def experiment_name(self) -> str:
        """The tag, with the extra tag if there is one."""
        return f"{self.config.tag()}_{self.extra_tag}" if self.extra_tag else str(self.config.tag())

    @property
    def local_start_time_str(self) -> str:
        """When the run began, local time.

        Raises:
            RuntimeError: nothing has been started.
        """
        if self._run is None:
            raise RuntimeError("The runner has no start time before start_train or start_test.")
        return self._run.start_time

    @property
    def running_validation(self) -> bool:
        """Whether checkpoints are validated during training."""
        if self.machine_id != 0:
            return False
        pipeline = self.config.training_pipeline()
        if pipeline.rollout_storage_uuid is None:
            return bool(pipeline.valid_pipeline_stage.loss_names)
        return sum(int(count) for count in self._machine_params("valid").nprocesses) > 0

    def _machine_params(self, mode: str) -> MachineParams:
        """Returns the machine parameters of `mode`; where there are tasks to run, every worker has samplers."""
        needs_samplers = mode != "valid" and self.config.training_pipeline().rollout_storage_uuid is not None
        return (require_samplers if needs_samplers else machine_params_of)(self.config, mode, self.machine_id)

    def worker_devices(self, mode: str) -> tuple[torch.device, ...]:
        """Returns one device for each worker of `mode`; validation has one worker."""
        devices = tuple(machine_params_of(self.config, mode, self.machine_id).devices)
        return devices[:1] if mode == "valid" else devices

    def local_worker_ids(self, mode: str) -> list[int]:
        """Returns the workers of `mode` that run on this machine."""
        ids = list(machine_params_of(self.config, mode, self.machine_id).local_worker_ids)
        return ids[:1] if mode == "valid" else ids

    @property
    def newest_checkpoint(self) -> str | None:
        """The checkpoint with the most environment steps that this training run has written, None if there is none."""
        return self._run.newest_checkpoint if isinstance(self._run, TrainingRun) else None

    def checkpoint_dir(self, start_time_str: str | None = None, create_if_none: bool = True) -> str:
        """Returns the folder of a training run's checkpoints."""
        folder = self.paths.checkpoints(start_time_str or self.local_start_time_str)
        if create_if_none:
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def log_writer_path(self, start_time_str: str) -> str:
        """Returns the folder of the event files of training, or of testing checkpoints of that start time."""
        if self.mode == "train":
            return str(self.paths.train_tensorboard(start_time_str))
        return str(self.paths.test_tensorboard(self.local_start_time_str, start_time_str))

    def metric_path(self, start_time_str: str) -> str:
        """Returns the folder of the metrics files."""
        return str(self.paths.metrics(self.mode, start_time_str))

    checkpoint_start_time_str = checkpoint_log_folder_str = staticmethod(checkpoint_start_time_str)

    step_from_checkpoint = staticmethod(step_from_checkpoint)

    def get_checkpoint_files(
        self, checkpoint_path_dir_or_pattern: str, approx_ckpt_step_interval: float | None = None
    ) -> list[str]:
        """Returns the checkpoints that a file, folder or glob names, ordered by environment steps."""
        return find_checkpoints(checkpoint_path_dir_or_pattern, approx_ckpt_step_interval)

    # Processes

    def _start_worker(self, name: str, target: Any, **kwargs: Any) -> WorkerProcess:
        worker = WorkerProcess(self.mp_ctx, name, target, kwargs, log_level=get_logger().level)
        self._workers.append(worker)
        return worker

    def _stop_workers(self, grace_s: float = STOP_GRACE_S) -> None:
        stop_workers(self._workers, grace_s)
        self._workers.clear()

    def close(self, verbose: bool = True) -> None:
        """Ends all workers. Calling it again does nothing."""
        self._stop_workers()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
