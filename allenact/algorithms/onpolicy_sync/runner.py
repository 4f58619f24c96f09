"""OnPolicyRunner starts the workers of a run, writes what they report, and sees to it that all of them end.

Over 400 lines because its constructor and its two entry points, with AllenAct's whole signatures, are documented here.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import (
    CheckpointStore,
    checkpoints_in,
    find_checkpoints,
    one_checkpoint,
    step_from_checkpoint,
)
from allenact.algorithms.onpolicy_sync.continuation import (
    Continuation,
    RunLock,
    find_continuation,
    rewards_of_validation,
    take_back_logs,
)
from allenact.algorithms.onpolicy_sync.distributed import meeting_point
from allenact.algorithms.onpolicy_sync.evaluation_report import EvaluationReport
from allenact.algorithms.onpolicy_sync.log_sink import LogSink, write_json
from allenact.algorithms.onpolicy_sync.progress import (
    EvaluationProgress,
    TrainingProgress,
    progress_on_terminal,
    shows_progress,
)
from allenact.algorithms.onpolicy_sync.retention import remove_old_checkpoints
from allenact.algorithms.onpolicy_sync.run_description import describe_run, write_description
from allenact.algorithms.onpolicy_sync.run_directory import (
    START_TIME_FORMAT,
    RunDirectory,
    SaveDirFormat,
    save_used_configs,
)
from allenact.algorithms.onpolicy_sync.startup_checks import machine_params_of, require_samplers
from allenact.algorithms.onpolicy_sync.stop_signals import StopSignals
from allenact.algorithms.onpolicy_sync.supervision import Validation, await_ready, evaluate_on, supervise_training
from allenact.algorithms.onpolicy_sync.worker_processes import (
    WorkerProcess,
    evaluation_worker,
    stop_workers,
    train_worker,
)
from allenact.base_abstractions.callbacks import Callback
from allenact.errors import ExperimentConfigError, RunError
from allenact.pipeline.validation import check_evaluation_stages
from allenact.utils.callback_loading import load_callbacks
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR
from allenact.utils.seeding import EVALUATION_SEED, set_deterministic_cudnn, set_seed
from allenact.utils.system import get_logger
from allenact.utils.worker_startup import worker_context

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig, MachineParams

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
        live_progress: show training as one block that is drawn again in place, if stderr is a terminal.

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
        self._start_time: str | None = None
        self._lock = RunLock()
        self._workers: list[WorkerProcess] = []

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
        return sum(int(count) for count in self._machine_params("valid").nprocesses) > 0

    def worker_devices(self, mode: str) -> tuple[torch.device, ...]:
        """Returns one device for each worker of `mode`; validation has one worker."""
        devices = tuple(machine_params_of(self.config, mode, self.machine_id).devices)
        return devices[:1] if mode == "valid" else devices

    def local_worker_ids(self, mode: str) -> list[int]:
        """Returns the workers of `mode` that run on this machine."""
        ids = list(machine_params_of(self.config, mode, self.machine_id).local_worker_ids)
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
        resume: bool = False,
        keep_checkpoints: int | None = None,
    ) -> str | tuple[str, list[dict[str, Any]]]:
        """Trains to the end of the pipeline.

        Args:
            checkpoint: file to go on from, in folders of a new run; None for none.
            restart_pipeline: take only the weights of the checkpoint.
            max_sampler_processes_per_worker: most processes that task samplers are spread over.
            save_ckpt_after_every_pipeline_stage: also save where a stage ends.
            collect_valid_results: write a file for each validated checkpoint and return the results.
            valid_on_initial_weights: save and validate before training begins.
            try_restart_after_task_error: restart crashed task samplers.
            save_ckpt_at_every_host: kept for runs on several machines.
            resume: go on with the newest run of this experiment (and seed, if one was given), in its folders.
            keep_checkpoints: how many of the newest checkpoints to keep, beside the best one; None: all.

        Returns:
            The start time; with `collect_valid_results` also the list of validation results.

        Raises:
            UsageError: something is wrong with experiment, checkpoint or output directory.
            RunError: a worker failed; all others have been ended.
            KeyboardInterrupt: the run was stopped; a checkpoint has been written.
        """
        params = self._machine_params("train")
        num_workers = len(params.devices)
        self.config.training_pipeline().validate(min(int(count) for count in params.nprocesses), num_workers)
        if checkpoint is not None:
            checkpoint = one_checkpoint(checkpoint)
        going_on = self._find_continuation() if resume else None
        if going_on is not None:
            checkpoint, restart_pipeline = going_on.checkpoint, False
        callbacks = self._begin(going_on)
        common = self._worker_kwargs(callbacks, max_sampler_processes_per_worker)
        address = meeting_point(self.distributed_ip_and_port, self.machine_id) if num_workers > 1 else ""
        validates, draws = self.running_validation, not self.disable_tensorboard
        start_validation = partial(
            self._start_worker, "validation", evaluation_worker, **common, mode="valid", visualize=draws
        )
        sink: LogSink | None = None
        results: list[dict[str, Any]] = []

        progress = self._progress(resumed=checkpoint is not None and not restart_pipeline)
        validation = Validation(start_validation) if validates else None
        rewards: dict[int, float] = {}  # of the checkpoints that have been validated

        def begin_logging() -> None:
            nonlocal sink
            if going_on is not None:
                rewards.update(self._take_back_logs(going_on))
                if validation is not None:
                    validation.announced.update(checkpoints_in(Path(self.checkpoint_dir())))
                    if going_on.steps not in rewards:
                        validation.enqueue(going_on.checkpoint)
            sink = self._train_sink(callbacks, collect_valid_results and validates, progress, going_on is not None)
            if progress is not None:
                progress.begin()

        with StopSignals() as stop:
            try:
                trainers = [
                    self._start_worker(
                        "training" if num_workers == 1 else f"training {worker_id}",
                        train_worker,
                        **common,
                        checkpoint=checkpoint,
                        restart_pipeline=restart_pipeline,
                        valid_on_initial_weights=valid_on_initial_weights and validates and going_on is None,
                        seed=self.seed,
                        worker_id=worker_id,
                        num_workers=num_workers,
                        distributed_address=address,
                        checkpoints=self._checkpoint_store(worker_id, save_ckpt_at_every_host),
                        save_ckpt_after_every_pipeline_stage=save_ckpt_after_every_pipeline_stage,
                        try_restart_after_task_error=try_restart_after_task_error,
                    )
                    for worker_id in self.local_worker_ids("train")
                ]
                for packages in supervise_training(trainers, validation, stop, begin_logging, progress):
                    entry = sink.write(packages) if sink is not None else {}
                    if packages[0].mode == "valid":
                        rewards[entry["training_steps"]] = entry.get("valid-metrics/reward", math.nan)
                        if collect_valid_results:
                            results.append(entry)
                            steps = entry["training_steps"]
                            write_json(self.paths.valid_metrics(self.local_start_time_str, steps), entry)
                    if keep_checkpoints is not None:
                        folder = Path(self.checkpoint_dir(create_if_none=False))
                        remove_old_checkpoints(folder, keep_checkpoints, rewards, validation)
            except RunError as error:
                if not stop.requested:
                    raise
                get_logger().warning(f"While stopping: {error}")
            finally:
                if progress is not None:
                    progress.close()
                self._stop_workers()
                if sink is not None:
                    sink.close(failed=isinstance(sys.exception(), Exception))  # not if it is just stopped
                self._lock.release()
        if stop.requested:
            self._say_how_to_go_on()
            raise KeyboardInterrupt
        if self.newest_checkpoint is not None:
            get_logger().info(f"Training is complete: {self._where_output_is()}")
        return (self.local_start_time_str, results) if collect_valid_results else self.local_start_time_str

    @property
    def newest_checkpoint(self) -> str | None:
        """The checkpoint with the most environment steps that this training run has written, None if there is none."""
        if self._start_time is None:
            return None
        folder = self.checkpoint_dir(create_if_none=False)
        return find_checkpoints(folder)[-1] if any(Path(folder).glob("*.pt")) else None

    def _say_how_to_go_on(self) -> None:
        if (newest := self.newest_checkpoint) is not None:
            steps = step_from_checkpoint(newest)
            get_logger().info(f"Stopped at {steps:,} steps. To go on: --resume, or --checkpoint {newest}")

    def _where_output_is(self) -> str:
        folder, metrics = self.checkpoint_dir(create_if_none=False), self.metric_path(self.local_start_time_str)
        tensorboard = "" if self.disable_tensorboard else f"; watch with: tensorboard --logdir {self.output_dir}"
        return f"checkpoints in {folder}, metrics in {metrics}{tensorboard}"

    def _progress(self, resumed: bool) -> TrainingProgress | None:
        """Returns what shows training on a terminal, if that is wanted and this machine is the only one."""
        if (
            not self.live_progress
            or self.machine_id
            or len(self.local_worker_ids("train")) < len(self.worker_devices("train"))
        ):
            return None
        return progress_on_terminal(self.experiment_name, self.config.training_pipeline(), resumed=resumed)

    def _find_continuation(self) -> Continuation | None:
        """Returns where the newest run goes on; says so if there is none."""
        found = find_continuation(self.paths, self.seed if self._seed_is_given else None)
        if found is None:
            of = f" of seed {self.seed}" if self._seed_is_given else ""
            get_logger().info(f"--resume: no run of {self.experiment_name}{of} in {self.output_dir}. This one starts.")
            return None
        get_logger().info(f"--resume: the run of {found.start_time} goes on from {found.checkpoint}")
        self._lock.take(self.paths.train_metrics(found.start_time))
        self.seed = self.seed if found.state.trainer_seed is None else found.state.trainer_seed
        return found

    def _take_back_logs(self, found: Continuation) -> dict[int, float]:
        """Removes the logs of what is going to be done again; returns the rewards of validation that stay, by steps."""
        metrics = self.paths.train_metrics(found.start_time)
        take_back_logs(found, metrics, self.paths.train_tensorboard(found.start_time), self.config.training_pipeline())
        return rewards_of_validation(metrics)

    def _train_sink(
        self,
        callbacks: Sequence[Callback],
        collect_valid_results: bool,
        progress: TrainingProgress | None,
        goes_on: bool,
    ) -> LogSink:
        """Makes the run's folders, with a record of what is run, and what writes its logs."""
        if not goes_on:
            self._lock.take(self.paths.train_metrics(self.local_start_time_str))
        start_time = self.local_start_time_str
        get_logger().info(self._where_output_is())
        if not self.disable_config_saving and self.loaded_config_src_files is not None:
            folder = self.paths.used_configs(start_time)
            if goes_on:
                folder /= f"resumed_{time.strftime(START_TIME_FORMAT)}"
            save_used_configs(folder, self.loaded_config_src_files)
            for callback in callbacks:
                callback.after_save_project_state(base_dir=str(folder))
        if collect_valid_results and not goes_on:
            write_json(self.paths.valid_metrics(start_time, 0), [])
        self._start_callbacks(callbacks)
        writer = self._summary_writer(self.paths.train_tensorboard(start_time))
        if writer is not None and not goes_on:
            write_description(writer, describe_run(self.config, self.seed, self.loaded_config_src_files or {}))
        return LogSink(
            callbacks=callbacks,
            writer=writer,
            metrics_file=self.paths.train_metrics(start_time) / "metrics.jsonl",
            visualizer=None if self.disable_tensorboard else self._machine_params("valid").visualizer,
            progress=progress,
        )

    def _checkpoint_store(self, worker_id: int, at_every_host: bool) -> CheckpointStore | None:
        """Returns where a training worker saves; only the first one does, or the first one of each machine."""
        first = self.local_worker_ids("train")[0] if at_every_host else 0
        if worker_id != first:
            return None
        return CheckpointStore(self.checkpoint_dir(create_if_none=False), self.experiment_name)

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
        params = self._machine_params("test")
        check_evaluation_stages(self.config.training_pipeline())
        if infer_output_dir:
            root = Path(checkpoints[0]).resolve().parents[1]
            self.paths = RunDirectory(root, self.config.tag(), self.extra_tag, self.save_dir_fmt)
        callbacks = self._begin()
        metrics_path = self.paths.test_metrics(self.local_start_time_str)
        log_dir = self.paths.test_tensorboard(self.local_start_time_str, self.checkpoint_start_time_str(checkpoints[0]))
        kwargs = self._worker_kwargs(callbacks, max_sampler_processes_per_worker)
        sink: LogSink | None = None
        results: list[dict[str, Any]] = []
        actions = "expert" if inference_expert else "deterministic" if self.deterministic_agents else "sampled"
        report = EvaluationReport(self.config.tag(), actions, EVALUATION_SEED)
        with StopSignals() as stop:
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
                        visualize=not self.disable_tensorboard,
                    )
                    for worker_id in self.local_worker_ids("test")
                ]
                await_ready(testers, stop)
                write_json(metrics_path, results)
                self._start_callbacks(callbacks)
                visualizer = None if self.disable_tensorboard else params.visualizer
                brief = EvaluationProgress(len(checkpoints)) if self.live_progress and shows_progress() else None
                writer = self._summary_writer(log_dir)
                sink = LogSink(callbacks=callbacks, writer=writer, visualizer=visualizer, progress=brief)
                for path in checkpoints:
                    packages = evaluate_on(testers, path, stop)
                    results.append(sink.write(packages))
                    write_json(metrics_path, results)
                    report.add(path, results[-1], [seed for each in packages for seed in each.task_seeds])
                    report.write(metrics_path.parent)
            finally:
                self._stop_workers()
                if sink is not None:
                    sink.close(failed=isinstance(sys.exception(), Exception))  # not if it is just stopped
        report.print()
        pictures = "" if self.disable_tensorboard else f", TensorBoard's files in {log_dir}"
        videos = self.paths.videos(self.local_start_time_str)
        if videos.is_dir():
            pictures += f", videos in {videos}"
        get_logger().info(f"Results are in {metrics_path}, statistics in evaluation.json and .csv beside it{pictures}")
        return results

    # Parts of both

    def _machine_params(self, mode: str) -> MachineParams:
        """Returns the machine parameters of `mode`; where tasks are played, every worker has samplers."""
        needs_samplers = mode != "valid" and self.config.training_pipeline().rollout_storage_uuid is not None
        return (require_samplers if needs_samplers else machine_params_of)(self.config, mode, self.machine_id)

    def _begin(self, going_on: Continuation | None = None) -> list[Callback]:
        """Gives the run its start time, which names its folders, and sets up its callbacks."""
        callbacks = load_callbacks(self.callbacks_paths, self.config)
        self.paths.check_writable()
        self._start_time = self.paths.new_start_time() if going_on is None else going_on.start_time
        name = f"{self.experiment_name}/{self._start_time}"
        for callback in callbacks:
            callback.setup(name=name, config=self.config, mode=self.mode)
        return callbacks

    def _start_callbacks(self, callbacks: Sequence[Callback]) -> None:
        if callbacks:
            description = describe_run(self.config, self.seed, self.loaded_config_src_files or {})
            metrics_dir = Path(self.metric_path(self.local_start_time_str))
            for callback in callbacks:
                callback.on_start(output_dir=self.paths.output_dir, metrics_dir=metrics_dir, description=description)

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
        stop_workers(self._workers)
        self._workers.clear()

    def _summary_writer(self, folder: Path) -> Any:
        if self.disable_tensorboard:
            return None
        from allenact.utils.tensor_utils import SummaryWriter

        return SummaryWriter(
            log_dir=str(folder),
            filename_suffix=f"__{self.mode}_{self.local_start_time_str}",
            videos_dir=self.paths.videos(self.local_start_time_str),
        )

    def close(self, verbose: bool = True) -> None:
        """Ends all workers. Calling it again does nothing."""
        self._stop_workers()
        self._lock.release()

    def __enter__(self) -> OnPolicyRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
