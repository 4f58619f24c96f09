"""OnPolicyRunner starts the workers of a run, writes what they report, and sees to it that all of them end."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import (
    CheckpointStore,
    find_checkpoints,
    load_checkpoint,
    step_from_checkpoint,
)
from allenact.algorithms.onpolicy_sync.log_sink import LogSink, write_json
from allenact.algorithms.onpolicy_sync.run_directory import RunDirectory, SaveDirFormat, save_used_configs
from allenact.algorithms.onpolicy_sync.startup_checks import machine_params_of, require_samplers
from allenact.algorithms.onpolicy_sync.supervision import Validation, evaluate_on, supervise_training
from allenact.algorithms.onpolicy_sync.worker_processes import (
    WorkerProcess,
    evaluation_worker,
    train_worker,
)
from allenact.base_abstractions.callbacks import Callback
from allenact.errors import CheckpointError, ExperimentConfigError
from allenact.utils.callback_loading import load_callbacks
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR
from allenact.utils.seeding import set_deterministic_cudnn, set_seed
from allenact.utils.system import find_free_port, get_logger
from allenact.utils.worker_startup import worker_context

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig

__all__ = ["CONFIG_KWARGS_STR", "OnPolicyRunner", "SaveDirFormat"]


class OnPolicyRunner:
    """Runs one experiment: trains it with validation beside, or tests its checkpoints.

    Args:
        config: the experiment.
        output_dir: root of all output.
        loaded_config_src_files: `{file path: dotted module}` to copy into `used_configs`, None for nothing.
        seed: random seed; None for a random one.
        mode: "train" or "test".
        deterministic_cudnn: deterministic cuDNN, without benchmarking.
        deterministic_agents: validation and test play the mode of the action distribution.
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

    Raises:
        ExperimentConfigError: the experiment's parts do not fit together.
        OutputDirectoryError: the output directory cannot be written.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        output_dir: str | os.PathLike[str],
        loaded_config_src_files: dict[str, str] | None,
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
        self.seed = random.SystemRandom().randint(0, 2**31 - 1) if seed is None else seed

        set_seed(self.seed)
        if deterministic_cudnn:
            set_deterministic_cudnn()
        self.paths = RunDirectory(Path(self.output_dir), config.tag(), extra_tag, save_dir_fmt)
        self.callbacks_paths = callbacks_paths
        self._start_time: str | None = None
        self._workers: list[WorkerProcess] = []
        self._stop_requested = False

    # Names and places

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
        if self._start_time is None:
            raise RuntimeError("The runner has no start time before start_train or start_test.")
        return self._start_time

    @property
    def running_validation(self) -> bool:
        """Whether checkpoints are validated during training."""
        if self.machine_id != 0:
            return False
        pipeline = self.config.training_pipeline()
        if pipeline.rollout_storage_uuid is None:
            return bool(pipeline.valid_pipeline_stage.loss_names)
        return sum(int(count) for count in machine_params_of(self.config, "valid").nprocesses) > 0

    def worker_devices(self, mode: str) -> tuple[torch.device, ...]:
        """Returns one device for each worker of `mode`; validation has one worker."""
        devices = tuple(machine_params_of(self.config, mode).devices)
        return devices[:1] if mode == "valid" else devices

    def local_worker_ids(self, mode: str) -> list[int]:
        """Returns the workers of `mode` that run on this machine."""
        ids = list(machine_params_of(self.config, mode).local_worker_ids)
        return ids[:1] if mode == "valid" else ids

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
        if self.mode == "test":
            return str(self.paths.test_metrics(start_time_str).parent)
        return str(self.paths.train_metrics(start_time_str))

    @staticmethod
    def checkpoint_start_time_str(checkpoint_file_name: str) -> str:
        """Returns the name of the folder that holds a checkpoint: in standard layouts, when its training began."""
        folder = Path(checkpoint_file_name).resolve().parent
        return folder.parent.name if folder.name == "checkpoints" else folder.name

    checkpoint_log_folder_str = checkpoint_start_time_str

    step_from_checkpoint = staticmethod(step_from_checkpoint)

    def get_checkpoint_files(
        self, checkpoint_path_dir_or_pattern: str, approx_ckpt_step_interval: float | None = None
    ) -> list[str]:
        """Returns the checkpoints that a file, folder or glob names, ordered by environment steps."""
        return find_checkpoints(checkpoint_path_dir_or_pattern, approx_ckpt_step_interval)

    # Training

    def start_train(
        self,
        checkpoint: str | None = None,
        restart_pipeline: bool = False,
        max_sampler_processes_per_worker: int | None = None,
        save_ckpt_after_every_pipeline_stage: bool = True,
        collect_valid_results: bool = False,
        valid_on_initial_weights: bool = False,
        try_restart_after_task_error: bool = False,
        save_ckpt_at_every_host: bool = False,
    ) -> str | tuple[str, list[dict[str, Any]]]:
        """Trains to the end of the pipeline.

        Args:
            checkpoint: file to resume from, None for a new run.
            restart_pipeline: take only the weights of the checkpoint.
            max_sampler_processes_per_worker: most processes that task samplers are spread over.
            save_ckpt_after_every_pipeline_stage: also save where a stage ends.
            collect_valid_results: write a file for each validated checkpoint and return the results.
            valid_on_initial_weights: save and validate before training begins.
            try_restart_after_task_error: restart crashed task samplers.
            save_ckpt_at_every_host: kept for runs on several machines.

        Returns:
            The start time; with `collect_valid_results` also the list of validation results.

        Raises:
            UsageError: something is wrong with experiment, checkpoint or output directory.
            RunError: a worker failed; all others have been ended.
            KeyboardInterrupt: the run was stopped; a checkpoint has been written.
        """
        params = (
            require_samplers(self.config, "train") if self._samples_tasks() else machine_params_of(self.config, "train")
        )
        num_workers = len(params.devices)
        self.config.training_pipeline().validate(min(int(count) for count in params.nprocesses), num_workers)
        if checkpoint is not None:
            checkpoint = self._one_checkpoint(checkpoint)
        self._begin()
        callbacks = self._make_callbacks()
        self._save_used_configs(callbacks)

        folder = self.paths.train_metrics(self.local_start_time_str)
        results: list[dict[str, Any]] = []
        sink = LogSink(
            callbacks=callbacks,
            writer=self._summary_writer(self.paths.train_tensorboard(self.local_start_time_str)),
            metrics_file=folder / "metrics.jsonl",
            visualizer=None if self.disable_tensorboard else machine_params_of(self.config, "valid").visualizer,
        )
        common = self._worker_kwargs(callbacks, max_sampler_processes_per_worker)
        with self._interruptible():
            trainers = [
                self._start_worker(
                    "training" if num_workers == 1 else f"training {worker_id}",
                    train_worker,
                    **common,
                    checkpoint=checkpoint,
                    restart_pipeline=restart_pipeline,
                    valid_on_initial_weights=valid_on_initial_weights,
                    seed=self.seed,
                    worker_id=worker_id,
                    num_workers=num_workers,
                    distributed_address=self._rendezvous(num_workers),
                    checkpoints=CheckpointStore(self.checkpoint_dir(create_if_none=False), self.experiment_name),
                    save_ckpt_after_every_pipeline_stage=save_ckpt_after_every_pipeline_stage,
                    try_restart_after_task_error=try_restart_after_task_error,
                )
                for worker_id in self.local_worker_ids("train")
            ]
            start_validation = partial(self._start_worker, "validation", evaluation_worker, **common, mode="valid")
            validation = Validation(start_validation) if self.running_validation else None
            try:
                for packages in supervise_training(trainers, validation, lambda: self._stop_requested):
                    entry = sink.write(packages)
                    if packages[0].mode == "valid" and collect_valid_results:
                        results.append(entry)
                        write_json(
                            self.paths.valid_metrics(self.local_start_time_str, entry["training_steps"]),
                            entry,
                        )
            finally:
                self._stop_workers()
                sink.close()
        if self._stop_requested:
            raise KeyboardInterrupt
        self._say_where("Training is complete.")
        return (self.local_start_time_str, results) if collect_valid_results else self.local_start_time_str

    # Testing

    def start_test(
        self,
        checkpoint_path_dir_or_pattern: str,
        infer_output_dir: bool = False,
        approx_ckpt_step_interval: float | None = None,
        max_sampler_processes_per_worker: int | None = None,
        inference_expert: bool = False,
    ) -> list[dict[str, Any]]:
        """Evaluates checkpoints in ascending order of their steps.

        Args:
            checkpoint_path_dir_or_pattern: a file, a folder or a glob.
            infer_output_dir: nested layout: write beside the first checkpoint.
            approx_ckpt_step_interval: test about one checkpoint per this many environment steps.
            max_sampler_processes_per_worker: most processes that task samplers are spread over.
            inference_expert: play the expert's actions.

        Returns:
            One dict of results per checkpoint.

        Raises:
            UsageError: something is wrong with experiment, checkpoints or output directory.
            RunError: a worker failed.
            KeyboardInterrupt: the test was stopped.
        """
        checkpoints = find_checkpoints(checkpoint_path_dir_or_pattern, approx_ckpt_step_interval)
        params = (
            require_samplers(self.config, "test") if self._samples_tasks() else machine_params_of(self.config, "test")
        )
        if infer_output_dir:
            self.paths = RunDirectory(
                Path(checkpoints[0]).resolve().parents[1],
                self.config.tag(),
                self.extra_tag,
                self.save_dir_fmt,
            )
        self._begin()
        callbacks = self._make_callbacks()
        metrics_path = self.paths.test_metrics(self.local_start_time_str)
        results: list[dict[str, Any]] = []
        write_json(metrics_path, results)
        log_dir = self.paths.test_tensorboard(self.local_start_time_str, self.checkpoint_start_time_str(checkpoints[0]))
        sink = LogSink(
            callbacks=callbacks,
            writer=self._summary_writer(log_dir),
            visualizer=None if self.disable_tensorboard else params.visualizer,
        )
        kwargs = self._worker_kwargs(callbacks, max_sampler_processes_per_worker)
        with self._interruptible():
            try:
                testers = [
                    self._start_worker(
                        "test" if len(params.devices) == 1 else f"test {worker_id}",
                        evaluation_worker,
                        **kwargs,
                        mode="test",
                        worker_id=worker_id,
                        num_workers=len(params.devices),
                        enforce_expert=inference_expert,
                    )
                    for worker_id in self.local_worker_ids("test")
                ]
                for path in checkpoints:
                    results.append(sink.write(evaluate_on(testers, path, lambda: self._stop_requested)))
                    write_json(metrics_path, results)
            finally:
                self._stop_workers()
                sink.close()
        from allenact.utils.console import print_test_summary

        print_test_summary(checkpoints, results)
        get_logger().info(
            f"Results are in {metrics_path}" + ("" if self.disable_tensorboard else f", pictures in {log_dir}")
        )
        return results

    # Parts of both

    def _samples_tasks(self) -> bool:
        return self.config.training_pipeline().rollout_storage_uuid is not None

    def _one_checkpoint(self, path: str) -> str:
        """Returns the one checkpoint to resume from, known to be readable."""
        files = find_checkpoints(path)
        if len(files) != 1:
            raise CheckpointError(
                "training resumes from one checkpoint.",
                f"--checkpoint {path}, which matches {len(files)} files",
                f"pass one of them, for example the newest: {files[-1]}",
            )
        load_checkpoint(files[0])
        return files[0]

    def _begin(self) -> None:
        self.paths.check_writable()
        self._start_time = self.paths.new_start_time()

    def _worker_kwargs(self, callbacks: Sequence[Callback], max_sampler_processes: int | None) -> dict[str, Any]:
        sensors = [sensor for callback in callbacks for sensor in (callback.callback_sensors() or ())]
        return {
            "config": self.config,
            "max_sampler_processes": max_sampler_processes,
            "sampler_backend": self.sampler_backend,
            "deterministic_agents": self.deterministic_agents,
            "deterministic_cudnn": self.deterministic_cudnn,
            "callback_sensors": sensors or None,
        }

    def _start_worker(self, name: str, target: Any, **kwargs: Any) -> WorkerProcess:
        worker = WorkerProcess(self.mp_ctx, name, target, kwargs, log_level=get_logger().level)
        self._workers.append(worker)
        return worker

    def _stop_workers(self) -> None:
        """Ends every worker; one that has said it is finished is only waited for."""
        for worker in self._workers:
            if not worker.finished:
                worker.request_stop()
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def _rendezvous(self, num_workers: int) -> str:
        """Returns `ip:port` for the training workers to meet; the port is chosen once."""
        address, _, port = self.distributed_ip_and_port.rpartition(":")
        if num_workers > 1 and port == "0":
            if self.machine_id != 0:
                raise ExperimentConfigError(
                    "only machine 0 can choose the port where the workers meet.",
                    f"--distributed_ip_and_port {self.distributed_ip_and_port} --machine_id {self.machine_id}",
                    "give all machines the same address and port.",
                )
            self.distributed_ip_and_port = f"{address}:{find_free_port(address)}"
        return self.distributed_ip_and_port

    def _summary_writer(self, folder: Path) -> Any:
        if self.disable_tensorboard:
            return None
        from allenact.utils.tensor_utils import SummaryWriter

        return SummaryWriter(log_dir=str(folder), filename_suffix=f"__{self.mode}_{self.local_start_time_str}")

    def _make_callbacks(self) -> list[Callback]:
        callbacks = load_callbacks(self.callbacks_paths, self.config)
        for callback in callbacks:
            callback.setup(
                name=f"{self.experiment_name}/{self.local_start_time_str}", config=self.config, mode=self.mode
            )
        return callbacks

    def _save_used_configs(self, callbacks: Sequence[Callback]) -> None:
        if self.disable_config_saving or self.loaded_config_src_files is None:
            return
        folder = self.paths.used_configs(self.local_start_time_str)
        save_used_configs(folder, self.loaded_config_src_files)
        for callback in callbacks:
            callback.after_save_project_state(base_dir=str(folder))

    def _say_where(self, what: str) -> None:
        start = self.local_start_time_str
        get_logger().info(f"{what} Checkpoints are in {self.paths.checkpoints(start)}")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """While the block runs, the first SIGINT or SIGTERM asks the run to stop; the second ends it at once."""

        def request_stop(signal_number: int, frame: Any) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True
            get_logger().warning("Stopping: a checkpoint is being written. Press Ctrl-C again to stop at once.")

        try:
            previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            previous = {}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def close(self, verbose: bool = True) -> None:
        """Ends all workers. Calling it again does nothing."""
        self._stop_workers()

    def __enter__(self) -> OnPolicyRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
