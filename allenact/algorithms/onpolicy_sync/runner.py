"""OnPolicyRunner: trains an experiment with validation beside it, or tests its checkpoints, in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore, find_checkpoints, one_checkpoint
from allenact.algorithms.onpolicy_sync.distributed import meeting_point
from allenact.algorithms.onpolicy_sync.runner_base import RunnerBase
from allenact.pipeline.validation import check_evaluation_stages
from allenact.runs.evaluation_run import EvaluationRun
from allenact.runs.progress import TrainingProgress, progress_on_terminal
from allenact.runs.resume_point import ResumePoint, find_resume_point
from allenact.runs.run import Run
from allenact.runs.run_directory import RunDirectory, SaveDirFormat, changes_since
from allenact.runs.stop_signals import StopSignals
from allenact.runs.supervision import Validation
from allenact.runs.training_run import TrainingRun
from allenact.runs.worker_processes import (
    IMPATIENT_GRACE_S,
    STOP_GRACE_S,
    WorkerProcess,
    evaluation_worker,
    train_worker,
)
from allenact.utils.callback_loading import load_callbacks
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR
from allenact.utils.system import get_logger

__all__ = ["CONFIG_KWARGS_STR", "OnPolicyRunner", "SaveDirFormat"]


class OnPolicyRunner(RunnerBase):
    """Runs one experiment: trains it with validation beside, or tests its checkpoints.

    It starts the worker processes, has what they report written, and sees to it that all of them end. Its arguments
    are those of `RunnerBase`.
    """

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
            try_restart_after_task_error: restart crashed task samplers, and a validation that fails.
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
        self._check_pipeline()
        run = self._begin_training(checkpoint, restart_pipeline, resume, collect_valid_results, keep_checkpoints)
        common = self._worker_kwargs(run, max_sampler_processes_per_worker)
        if self.running_validation:
            start = partial(self._start_evaluator, "validation", common, mode="valid")
            run.validation = Validation(start, replaces_worker=try_restart_after_task_error)
            if self.sampler_backend == "process":
                get_logger().info("Validation, beside training, steps its task samplers in its own process.")
        with self._at_work(run) as stop:
            trainers = self._start_trainers(
                run,
                common,
                valid_on_initial_weights=valid_on_initial_weights,
                save_ckpt_after_every_pipeline_stage=save_ckpt_after_every_pipeline_stage,
                try_restart_after_task_error=try_restart_after_task_error,
                save_ckpt_at_every_host=save_ckpt_at_every_host,
            )
            run.follow(trainers, stop)
        if stop.requested:
            run.log_how_to_resume()
            raise KeyboardInterrupt
        run.log_output_location()
        return (run.start_time, run.results) if collect_valid_results else run.start_time

    def _check_pipeline(self) -> None:
        params = self._machine_params("train")
        samplers = [int(count) for count in params.nprocesses]
        self.config.training_pipeline().validate(min(samplers), len(params.devices))

    def _begin_training(
        self,
        checkpoint: str | None,
        restart_pipeline: bool,
        resume: bool,
        collect_valid_results: bool,
        keep_checkpoints: int | None,
    ) -> TrainingRun:
        """Decides where training starts from, and begins the run; arguments as for `start_train`."""
        if checkpoint is not None:
            checkpoint = one_checkpoint(checkpoint)
            if not restart_pipeline:
                self._warn_of_changes(self.checkpoint_start_time_str(checkpoint))
        resumed_from = self._find_resume_point() if resume else None
        if resumed_from is not None:
            checkpoint, restart_pipeline = resumed_from.checkpoint, False
        run = TrainingRun(
            **self._run_kwargs(None if resumed_from is None else resumed_from.start_time),
            checkpoint=checkpoint,
            restart_pipeline=restart_pipeline,
            resumed_from=resumed_from,
            lock=self._lock,
            saves_config=not self.disable_config_saving and self.loaded_config_src_files is not None,
            collects_results=collect_valid_results,
            keep_checkpoints=keep_checkpoints,
            progress=self._progress(resumed=checkpoint is not None and not restart_pipeline),
        )
        self._set_up(run)
        return run

    def _progress(self, resumed: bool) -> TrainingProgress | None:
        """Returns what shows training on a terminal, if that is wanted and this machine is the only one."""
        if (
            not self.live_progress
            or self.machine_id
            or len(self.local_worker_ids("train")) < len(self.worker_devices("train"))
        ):
            return None
        return progress_on_terminal(self.experiment_name, self.config.training_pipeline(), resumed=resumed)

    def _find_resume_point(self) -> ResumePoint | None:
        """Returns where to resume the newest run; logs that this is a new run if there is none."""
        found = find_resume_point(self.paths, self.seed if self._seed_is_given else None)
        if found is None:
            of = f" of seed {self.seed}" if self._seed_is_given else ""
            get_logger().info(f"--resume: no run of {self.experiment_name}{of} in {self.output_dir}. This one starts.")
            return None
        get_logger().info(f"--resume: the run of {found.start_time} goes on from {found.checkpoint}")
        self._warn_of_changes(found.start_time)
        self._lock.take(self.paths.train_metrics(found.start_time))
        self.seed = self.seed if found.state.trainer_seed is None else found.state.trainer_seed
        return found

    def _warn_of_changes(self, start_time: str) -> None:
        """Warns of what differs from the run that is to be resumed, as far as that was recorded."""
        changes = changes_since(self.paths.used_configs(start_time), self.loaded_config_src_files or {})
        if changes:
            get_logger().warning(
                f"The run of {start_time} goes on with another experiment, so not exactly: {'; '.join(changes)}."
            )

    def _start_trainers(
        self,
        run: TrainingRun,
        common: dict[str, Any],
        *,
        valid_on_initial_weights: bool,
        save_ckpt_at_every_host: bool,
        **kwargs: Any,
    ) -> list[WorkerProcess]:
        """Starts the training workers of this machine; only the first one saves, or the first one of each machine."""
        num_workers, ids = len(self.worker_devices("train")), self.local_worker_ids("train")
        saves = ids[0] if save_ckpt_at_every_host else 0
        kwargs |= {
            "checkpoint": run.checkpoint,
            "restart_pipeline": run.restart_pipeline,
            "valid_on_initial_weights": valid_on_initial_weights
            and run.validation is not None
            and run.resumed_from is None,
            "seed": self.seed,
            "machine_id": self.machine_id,
            "num_workers": num_workers,
            "distributed_address": (
                meeting_point(self.distributed_ip_and_port, self.machine_id) if num_workers > 1 else ""
            ),
        }
        store = CheckpointStore(run.checkpoint_dir, run.name)
        return [
            self._start_worker(
                "training" if num_workers == 1 else f"training {worker_id}",
                train_worker,
                **common,
                **kwargs,
                worker_id=worker_id,
                checkpoints=store if worker_id == saves else None,
            )
            for worker_id in ids
        ]

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
            inference_expert: take the expert's actions.

        Returns:
            One dict of results per checkpoint.

        Raises:
            UsageError: something is wrong with experiment, checkpoints or output directory.
            RunError: a worker failed.
            KeyboardInterrupt: the test was stopped.
        """
        checkpoints = find_checkpoints(checkpoint_path_dir_or_pattern, approx_ckpt_step_interval)
        self._machine_params("test")  # which checks that it can be done
        check_evaluation_stages(self.config.training_pipeline())
        if infer_output_dir:
            root = Path(checkpoints[0]).resolve().parents[1]
            self.output_dir = str(root)
            self.paths = RunDirectory(root, self.config.tag(), self.extra_tag, self.save_dir_fmt)
        run = EvaluationRun(
            **self._run_kwargs(),
            checkpoints=checkpoints,
            actions="expert" if inference_expert else "deterministic" if self.deterministic_agents else "sampled",
            live_progress=self.live_progress,
        )
        self._set_up(run)
        common = self._worker_kwargs(run, max_sampler_processes_per_worker)
        with self._at_work(run) as stop:
            run.follow(self._start_testers(common, enforce_expert=inference_expert), stop)
        run.print_report()
        return run.results

    def _start_testers(self, common: dict[str, Any], enforce_expert: bool) -> list[WorkerProcess]:
        """Starts the test workers of this machine, each of which gets its share of the tasks."""
        num_workers = len(self.worker_devices("test"))
        return [
            self._start_evaluator(
                "test" if num_workers == 1 else f"test {worker_id}",
                common,
                mode="test",
                worker_id=worker_id,
                num_workers=num_workers,
                enforce_expert=enforce_expert,
            )
            for worker_id in self.local_worker_ids("test")
        ]

    # Parts of both

    def _run_kwargs(self, start_time: str | None = None) -> dict[str, Any]:
        """Returns the arguments of `Run`: callbacks, and a start time unless one is given, which names its folders."""
        callbacks = load_callbacks(self.callbacks_paths, self.config)
        self.paths.check_writable()
        return {
            "config": self.config,
            "name": self.experiment_name,
            "mode": self.mode,
            "seed": self.seed,
            "machine_id": self.machine_id,
            "paths": self.paths,
            "start_time": start_time or self.paths.new_start_time(),
            "source_files": self.loaded_config_src_files or {},
            "callbacks": callbacks,
            "draws": not self.disable_tensorboard,
        }

    def _set_up(self, run: Run) -> None:
        self._run = run
        run.set_up_callbacks()

    @contextmanager
    def _at_work(self, run: Run) -> Iterator[StopSignals]:
        """Within the block, signals ask the run to stop; after it no worker is left, and the logs are closed."""
        with StopSignals() as stop:
            try:
                yield stop
            finally:
                error = sys.exception()
                self._stop_workers(IMPATIENT_GRACE_S if isinstance(error, KeyboardInterrupt) else STOP_GRACE_S)
                run.close(failed=isinstance(error, Exception))  # not if it is just stopped
                self._lock.release()

    def _worker_kwargs(self, run: Run, max_sampler_processes: int | None) -> dict[str, Any]:
        sensors = [sensor for callback in run.callbacks for sensor in (callback.callback_sensors() or ())]
        return {
            "config": self.config,
            "max_sampler_processes": max_sampler_processes,
            "sampler_backend": self.sampler_backend,
            "deterministic_agents": self.deterministic_agents,
            "deterministic_cudnn": self.deterministic_cudnn,
            "callback_sensors": sensors or None,
        }

    def _start_evaluator(self, name: str, common: dict[str, Any], **kwargs: Any) -> WorkerProcess:
        return self._start_worker(name, evaluation_worker, **common, **kwargs, visualize=not self.disable_tensorboard)
