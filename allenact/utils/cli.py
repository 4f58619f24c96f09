"""The command line: every flag, its unit and its default.

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from allenact import __version__
from allenact._constants import LOG_LEVELS, SAMPLER_BACKENDS
from allenact.errors import AllenActError, did_you_mean


class _Parser(argparse.ArgumentParser):
    """Answers a wrong command line with what is wrong, not with all that would be right."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").strip().partition(" ")[0].partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        hint = did_you_mean(unknown, flags) if message.startswith("unrecognized") else ""
        self.exit(2, f"{self.prog}: {message}\n  do:    {hint or f'{self.prog} --help lists all flags.'}\n")


class _Help(argparse.Action):
    """Prints all flags and, if an experiment has been named before, the keyword arguments that it takes."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *args: Any) -> NoReturn:
        parser.print_help()
        if getattr(namespace, "experiment", None) is not None:
            from allenact.utils.config_kwargs import describe_keyword_arguments
            from allenact.utils.experiment_loading import experiment_errors, load_experiment_class

            try:
                with experiment_errors():
                    config_class = load_experiment_class(namespace.experiment, namespace.experiment_base)
            except AllenActError as error:
                parser.exit(error.exit_status, f"{type(error).__name__}: {error}\n")
            print(f"\n{describe_keyword_arguments(config_class)}")
        parser.exit()


class _RemovedFlag(argparse.Action):
    """A flag that upstream removed: any use is answered with what to use instead."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(self.metavar)


def _positive_int(text: str) -> int:
    value = int(text) if text.lstrip("+-").isdigit() else None
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text!r}")
    return value


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"needs a number above 0, got {text!r}")
    return value


def _seed(text: str) -> int:
    value = int(text) if text.isdigit() else -1
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"needs a whole number from 0 to 2**31 - 1, got {text!r}")
    return value


def get_argument_parser() -> argparse.ArgumentParser:
    """Returns the parser of the `allenact` command."""
    parser = _Parser(
        prog="allenact",
        description="Train or evaluate an experiment: a Python file with one ExperimentConfig class.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "-h",
        "--help",
        action=_Help,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show this, and after an experiment (gym_mujoco_tutorial -b projects/tutorials --help) also what"
        " --config_kwargs can change",
    )
    parser.add_argument(
        "experiment",
        type=str,
        help="experiment module or file, relative to --experiment_base (gym_mujoco_tutorial), or a path to it;"
        " FILE.py:Class picks one of several classes",
    )
    parser.add_argument("--version", action="version", version=f"allenact {__version__}")
    _add_what_to_run(parser.add_argument_group("what to run"))
    _add_output(parser.add_argument_group("where the output goes"))
    _add_how_to_run(parser.add_argument_group("how to run it"))
    _add_several_machines(parser.add_argument_group("several machines"))
    _add_removed(parser)
    return parser


def _add_what_to_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-b", "--experiment_base", type=str, default=os.getcwd(), help="directory of experiment modules")
    group.add_argument(
        "--config_kwargs",
        type=str,
        default=None,
        help="keyword arguments of the experiment class: 'total_steps=1000000 learning_rate=1e-3', or JSON, or the"
        " path of a JSON file",
    )
    group.add_argument("--eval", action="store_true", help="test instead of train; needs --checkpoint")
    group.add_argument(
        "-c",
        "--checkpoint",
        type=str,
        default=None,
        help="training: the file to go on from, in new folders; with --eval: a file, a folder or a glob of"
        " checkpoints to test",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="training: go on with the newest run of this experiment in --output_dir (of this seed, if one is given),"
        " from its newest good checkpoint and in its folders; start a run if there is none",
    )
    group.add_argument(
        "-r",
        "--restart_pipeline",
        action="store_true",
        help="training with --checkpoint: take the model's weights only and start the pipeline anew",
    )
    group.add_argument(
        "--approx_ckpt_step_interval",
        type=_positive_float,
        default=None,
        help="with --eval: test about one checkpoint per this many environment steps",
    )
    group.add_argument("--test_expert", action="store_true", help="with --eval: execute the expert's actions")
    group.add_argument("-s", "--seed", type=_seed, default=None, help="random seed; none: a random one")
    group.add_argument(
        "-e",
        "--deterministic_agents",
        action="store_true",
        help="validation and test use the mode of the action distribution; training always samples",
    )
    group.add_argument(
        "-d", "--deterministic_cudnn", action="store_true", help="deterministic cuDNN, without benchmarking"
    )
    group.add_argument(
        "--valid_on_initial_weights",
        action="store_true",
        help="save and validate a checkpoint before training begins",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-o", "--output_dir", type=str, default="experiment_output", help="root of all output")
    group.add_argument(
        "--save_dir_fmt",
        type=str.lower,
        choices=("flat", "nested"),
        default="flat",
        help="layout of the output directory",
    )
    group.add_argument("--extra_tag", type=str, default="", help="extra folder below the experiment's tag")
    group.add_argument(
        "--infer_output_dir",
        action="store_true",
        help="with --eval and nested layout: write beside the first checkpoint",
    )
    group.add_argument(
        "-l",
        "--log_level",
        type=str.lower,
        choices=LOG_LEVELS,
        default="info",
        help="what to print to the terminal",
    )
    group.add_argument(
        "--plain_log",
        action="store_true",
        help="print a line for each log of training also on a terminal, instead of one block drawn again in place",
    )
    group.add_argument(
        "-i", "--disable_tensorboard", action="store_true", help="write no event files, draw no pictures"
    )
    group.add_argument("-a", "--disable_config_saving", action="store_true", help="do not write used_configs")
    group.add_argument(
        "--collect_valid_results", action="store_true", help="write a JSON file for each validated checkpoint"
    )
    group.add_argument(
        "--keep_checkpoints",
        type=_positive_int,
        default=None,
        help="keep this many of the newest checkpoints, and the one with the best validation reward; none: all",
    )
    group.add_argument(
        "--callbacks",
        type=str,
        default="",
        help="comma-separated: csv (tables beside metrics.jsonl), wandb (Weights & Biases), or callbacks of your own:"
        " method names of the experiment or modules",
    )


def _add_how_to_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-m",
        "--max_sampler_processes_per_worker",
        type=_positive_int,
        default=None,
        help="most processes that task samplers are spread over; none: the cores, which the training workers of a"
        " machine share, and never more than these where auto gives each process a batch; validation always has one",
    )
    group.add_argument(
        "--sampler_backend",
        type=str.lower,
        choices=SAMPLER_BACKENDS,
        default="auto",
        help="how task samplers are stepped; auto: as a batch where the tasks offer it, in processes where they do"
        " not, and as a batch in each process where the policy can act there; validation has one process",
    )
    group.add_argument(
        "--enable_crash_recovery",
        action="store_true",
        help="replace processes of task samplers that crash during training, and a validation that fails or hangs",
    )


def _add_several_machines(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--distributed_ip_and_port",
        type=str,
        default="127.0.0.1:0",
        help="rendezvous address of worker 0; port 0 picks a free one",
    )
    group.add_argument("--machine_id", type=int, default=0, help="index of this machine")
    group.add_argument(
        "--save_ckpt_at_every_host",
        action="store_true",
        help="the first worker of every machine saves checkpoints",
    )


def _add_removed(parser: argparse.ArgumentParser) -> None:
    for names, instead in (
        (("-t", "--test_date"), "`--test_date` has been removed. Use `--eval --checkpoint DIR`."),
        (
            ("--approx_ckpt_steps_count",),
            "`--approx_ckpt_steps_count` has been removed. Use `--approx_ckpt_step_interval`.",
        ),
        (
            ("-k", "--skip_checkpoints"),
            "`--skip_checkpoints` has been removed. Use `--approx_ckpt_step_interval`.",
        ),
    ):
        parser.add_argument(
            *names, action=_RemovedFlag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, metavar=instead
        )


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line (default: `sys.argv`).

    Exits with status 2 and a message if the flags do not fit together.
    """
    parser = get_argument_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    words.sort(key=lambda word: word in ("-h", "--help"))  # help comes last: it needs to know -b
    args = parser.parse_args(words)
    if args.eval and args.checkpoint is None:
        newest = max(Path(args.output_dir).glob("checkpoints/**/*.pt"), key=os.path.getmtime, default=None)
        hint = "" if newest is None else f"; the newest are in {newest.parent}"
        parser.error(f"--eval needs --checkpoint: a file, a folder or a glob of checkpoints{hint}")
    if args.infer_output_dir and (not args.eval or args.save_dir_fmt != "nested"):
        parser.error("--infer_output_dir works only with --eval and --save_dir_fmt nested")
    if args.restart_pipeline and args.checkpoint is None:
        parser.error("--restart_pipeline needs --checkpoint: the file whose weights to start from")
    if args.resume and (args.eval or args.checkpoint is not None):
        parser.error("--resume finds its checkpoint itself: use it without --checkpoint and --eval")
    if args.machine_id < 0:
        parser.error(f"--machine_id needs a whole number of at least 0, got {args.machine_id}")
    if args.test_expert:
        args.extra_tag = "__".join(part for part in (args.extra_tag, "enforced_test_expert") if part)
    return args
