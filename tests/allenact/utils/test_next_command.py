"""The commands that are suggested are what a user would type."""

import shlex
import sys

import pytest

from allenact.utils.cli import get_args, get_argument_parser
from allenact.utils.next_command import evaluation_command, resume_command, suggest
from allenact.utils.system import init_logging


@pytest.fixture
def typed(monkeypatch):
    """Parses a command line as if it had been typed; returns parser and arguments."""

    def parse(*words, program=("python", "allenact/main.py")):
        monkeypatch.setattr(sys, "argv", [program[-1], *words])
        monkeypatch.setattr(sys, "orig_argv", [*program, *words])
        return get_argument_parser(), get_args(list(words))

    return parse


def test_the_evaluation_of_the_tutorial(typed):
    parser, args = typed(*["tutorial", "-b", "projects/tutorials", "-m", "8", "-o", "out", "-s", "0", "-e"])
    assert evaluation_command(parser, args, "out/checkpoints/T/1") == (
        "python allenact/main.py tutorial -b projects/tutorials -s 0 -e -o out -m 8"
        " --eval --checkpoint out/checkpoints/T/1"
    )


def test_flags_of_training_alone_are_left_out(typed):
    parser, args = typed(
        *["toy", "-c", "a.pt", "-r", "--collect_valid_results", "--enable_crash_recovery", "--plain_log", "-a"],
        "--config_kwargs",
        '{"total_steps": 7}',
    )
    command = evaluation_command(parser, args, "out/my run")
    assert shlex.split(command) == [
        *("python", "allenact/main.py", "toy", "--config_kwargs", '{"total_steps": 7}'),
        *("--eval", "--checkpoint", "out/my run"),
    ]
    assert get_args(shlex.split(command)[2:]).config_kwargs == '{"total_steps": 7}', "it can be typed"


def test_going_on_keeps_them(typed):
    parser, args = typed(*["toy", "-c", "a.pt", "-r", "--collect_valid_results"])
    assert resume_command(parser, args, "b.pt") == (
        "python allenact/main.py toy --collect_valid_results --checkpoint b.pt"
    )
    assert resume_command(parser, args, None) == "python allenact/main.py toy --collect_valid_results --resume"


@pytest.mark.parametrize("checkpoint", [None, "b.pt"])
def test_what_a_resumed_run_suggests_is_accepted(checkpoint, typed):
    parser, args = typed("toy", "--resume", "--keep_checkpoints", "3", "--config_kwargs", '{"task": "a b"}')
    for command in (resume_command(parser, args, checkpoint), evaluation_command(parser, args, "folder")):
        again = get_args(shlex.split(command)[2:])
        assert again.config_kwargs == '{"task": "a b"}'
        assert again.eval != (again.resume or again.checkpoint == "b.pt")


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (("python", "/venv/bin/allenact"), "allenact"),
        (("python", "-m", "pytest"), "allenact"),
        ((".venv/bin/python", "allenact/main.py"), ".venv/bin/python allenact/main.py"),
    ],
)
def test_how_the_program_was_called(typed, program, shown):
    parser, args = typed("toy", program=program)
    assert resume_command(parser, args, "b.pt") == f"{shown} toy --checkpoint b.pt"


def test_a_command_stands_on_a_line_of_its_own(capsys):
    init_logging("info")
    suggest("To go on", "allenact toy")
    init_logging("warning")
    suggest("To go on", "never shown")
    init_logging("info")
    assert capsys.readouterr().err.splitlines() == ["To go on:", "", "    allenact toy", ""]
