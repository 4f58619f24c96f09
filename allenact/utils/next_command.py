"""The command to type next, made from the command that was typed."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Collection, Sequence

from allenact.utils.system import get_logger

_ONLY_TO_START = {"checkpoint", "restart_pipeline", "resume", "valid_on_initial_weights"}
_ONLY_TO_TRAIN = {
    "collect_valid_results",
    "disable_config_saving",
    "distributed_ip_and_port",
    "enable_crash_recovery",
    "keep_checkpoints",
    "machine_id",
    "plain_log",
    "save_ckpt_at_every_host",
}


def evaluation_command(parser: argparse.ArgumentParser, args: argparse.Namespace, checkpoints: str) -> str:
    """Returns the command that evaluates what a training command has trained.

    Args:
        parser: of the command line.
        args: the training command's.
        checkpoints: file, folder or glob to evaluate.
    """
    words = _words(parser, args, leave_out=_ONLY_TO_START | _ONLY_TO_TRAIN)
    return shlex.join([*_program(), *words, "--eval", "--checkpoint", checkpoints])


def resume_command(parser: argparse.ArgumentParser, args: argparse.Namespace, checkpoint: str | None) -> str:
    """Returns the command that goes on with training.

    Args:
        parser: of the command line.
        args: the training command's.
        checkpoint: to go on from, in folders of a new run; None: `--resume`, which takes the newest run.
    """
    words = _words(parser, args, leave_out=_ONLY_TO_START)
    return shlex.join([*_program(), *words, *(["--resume"] if checkpoint is None else ["--checkpoint", checkpoint])])


def suggest(purpose: str, command: str) -> None:
    """Prints a command on a line of its own, ready to be copied, unless the user wants to be told less."""
    if get_logger().isEnabledFor(logging.INFO):
        print(f"{purpose}:\n\n    {command}\n", file=sys.stderr, flush=True)


def _words(parser: argparse.ArgumentParser, args: argparse.Namespace, leave_out: Collection[str]) -> list[str]:
    """Returns the arguments that give `args`: what the user has set, all else has its default."""
    words: list[str] = []
    for action in parser._actions:  # argparse offers no other list of them
        value = getattr(args, action.dest, None)
        if action.dest in leave_out or value == action.default or value is None:
            continue
        if not action.option_strings:
            words.insert(0, str(value))
        elif action.nargs == 0:
            words.append(action.option_strings[0])
        else:
            words += [action.option_strings[0], str(value)]
    return words


def _program() -> Sequence[str]:
    """Returns how this program was called: `allenact`, or the interpreter and the script or module."""
    if os.path.basename(sys.argv[0]) == "allenact":
        return ["allenact"]
    typed = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    return typed if os.path.basename(sys.argv[0]) == "main.py" else ["allenact"]
