"""The entry point: `allenact EXPERIMENT` or `python allenact/main.py EXPERIMENT` trains or evaluates an experiment."""

from __future__ import annotations

import os
import sys

if not __package__:  # run as a file: make `allenact` importable and keep our folders out of the top level
    _root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if __name__ == "__main__":
        sys.path[0] = _root
    elif _root not in sys.path:  # a process started by ours: its search path is ours, nothing in it may be lost
        sys.path.insert(0, _root)

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from allenact.errors import AllenActError, RunError
from allenact.utils.cli import get_args, get_argument_parser

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
    from allenact.base_abstractions.experiment_config import ExperimentConfig

__all__ = ["find_sub_modules", "get_args", "get_argument_parser", "load_config", "main"]

os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
# Threads that wait for each other by spinning make an update ten times slower when another process wants the cores, and
# threads that sleep at once make it half as fast when nobody does. So they spin for some microseconds, then sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's products are too small to share

INTERRUPTED = 130  # what shells report for a process that Ctrl-C stopped


def load_config(args: argparse.Namespace) -> tuple[ExperimentConfig, dict[str, str]]:
    """Imports the experiment that `args` names and builds its config.

    Returns:
        The config, and its source files as `{path: dotted module}` for the run's `used_configs` folder.

    Raises:
        ExperimentNotFoundError: no such file, module or class.
        ExperimentConfigError: `--config_kwargs` cannot be read or does not fit.
    """
    from allenact.utils.experiment_loading import load_experiment

    loaded = load_experiment(args.experiment, args.experiment_base, args.config_kwargs)
    return loaded.config, loaded.source_files


def find_sub_modules(path: str, module_list: list[str] | None = None) -> list[str]:
    """Lists the Python files below `path`, entering only folders with an `__init__.py` or a `setup.py`."""
    from allenact.utils.experiment_loading import find_python_files

    found = module_list if module_list is not None else []
    found.extend(find_python_files(path))
    return found


def run(args: argparse.Namespace) -> None:
    """Trains, or with `--eval` tests, the experiment that `args` describes."""
    from allenact.utils.experiment_loading import experiment_errors

    with experiment_errors():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    config, source_files = load_config(args)

    from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
    from allenact.runs.run_directory import SaveDirFormat
    from allenact.utils.next_command import suggest

    runner = OnPolicyRunner(
        config=config,
        output_dir=args.output_dir,
        loaded_config_src_files=source_files,
        seed=args.seed,
        mode="test" if args.eval else "train",
        deterministic_cudnn=args.deterministic_cudnn,
        deterministic_agents=args.deterministic_agents,
        extra_tag=args.extra_tag,
        disable_tensorboard=args.disable_tensorboard,
        disable_config_saving=args.disable_config_saving,
        distributed_ip_and_port=args.distributed_ip_and_port,
        machine_id=args.machine_id,
        save_dir_fmt=SaveDirFormat[args.save_dir_fmt.upper()],
        callbacks_paths=args.callbacks,
        sampler_backend=args.sampler_backend,
        live_progress=not args.plain_log,
    )
    with runner:
        if args.eval:
            runner.start_test(
                checkpoint_path_dir_or_pattern=args.checkpoint,
                infer_output_dir=args.infer_output_dir,
                approx_ckpt_step_interval=args.approx_ckpt_step_interval,
                max_sampler_processes_per_worker=args.max_sampler_processes_per_worker,
                inference_expert=args.test_expert,
            )
            if not args.disable_tensorboard:
                suggest("To look at it in a browser", shlex.join(["tensorboard", "--logdir", runner.output_dir]))
        else:
            _train(runner, args)


def _train(runner: OnPolicyRunner, args: argparse.Namespace) -> None:
    """Trains, and says in the end what to type next."""
    from allenact.utils.next_command import evaluation_command, resume_command, suggest

    try:
        runner.start_train(
            checkpoint=args.checkpoint,
            restart_pipeline=args.restart_pipeline,
            max_sampler_processes_per_worker=args.max_sampler_processes_per_worker,
            collect_valid_results=args.collect_valid_results,
            valid_on_initial_weights=args.valid_on_initial_weights,
            try_restart_after_task_error=args.enable_crash_recovery,
            save_ckpt_at_every_host=args.save_ckpt_at_every_host,
            resume=args.resume,
            keep_checkpoints=args.keep_checkpoints,
        )
    except (KeyboardInterrupt, RunError):
        if (newest := runner.newest_checkpoint) is not None:
            overtaken = runner.paths.start_times()[-1] != runner.local_start_time_str  # by a run that began later
            suggest("To go on", resume_command(get_argument_parser(), args, newest if overtaken else None))
        raise
    if runner.newest_checkpoint is not None:
        suggest("To evaluate the checkpoints", evaluation_command(get_argument_parser(), args, runner.checkpoint_dir()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    try:
        args = get_args(argv)

        from allenact.utils.worker_startup import warm_up_workers

        warm_up_workers()  # worker processes import torch while this one reads the experiment

        from allenact.utils.system import init_logging

        init_logging(args.log_level)
        run(args)
    except AllenActError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
