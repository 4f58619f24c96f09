"""The logger's format and levels, free ports, and advice for missing packages."""

import io
import logging
import re
import socket
import sys

import pytest

from allenact.testing.terminal import Terminal
from allenact.utils.system import (
    HUMAN_LOG_LEVELS,
    ImportChecker,
    find_free_port,
    get_logger,
    init_logging,
    update_log_level,
)

LINE = r"\[\d\d/\d\d \d\d:\d\d:\d\d {level}:\] {message}\t\[test_system\.py: \d+\]\n"


@pytest.fixture(autouse=True)
def _restore_level():
    level = get_logger().level
    yield
    get_logger().setLevel(level)


def test_lines_go_to_stderr_in_the_documented_format(capsys):
    init_logging("info")
    get_logger().info("TRAIN: %d rollout steps", 2048)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(LINE.format(level="INFO", message="TRAIN: 2048 rollout steps"), captured.err)


def test_the_stream_is_looked_up_when_writing_and_printing_is_left_alone(monkeypatch, capsys):
    get_logger()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    stdout = sys.stdout
    init_logging("warning")
    get_logger().warning("here")
    assert "here" in sys.stderr.getvalue()
    assert sys.stdout is stdout


def test_colours_appear_on_a_terminal_only(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    get_logger().error("red")
    assert sys.stderr.getvalue().startswith("\033[J\033[31m["), "room is made above a live block"
    assert "\033[0m red\t[" in sys.stderr.getvalue()


@pytest.mark.parametrize(("name", "value", "code"), [("NO_COLOR", "1", "m"), ("TERM", "dumb", "J")])
def test_terminals_whose_user_wants_no_colours_or_that_know_no_codes(monkeypatch, name, value, code):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal())
    get_logger().error("plain")
    assert not re.search(rf"\033\[\d*{code}", sys.stderr.getvalue())


def test_levels_filter(capsys):
    for level in HUMAN_LOG_LEVELS:
        init_logging(level)
        for name in ("debug", "info", "warning", "error"):
            getattr(get_logger(), name)("by %s at %s", name, level)
    lines = [line.split(" at ")[0].split("by ")[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["debug", "info", "warning", "error", "info", "warning", "error", "warning", "error", "error"]


def test_exceptions_come_with_their_traceback(capsys):
    try:
        raise ValueError("inner")
    except ValueError:
        get_logger().exception("outer")
    assert re.search(r"outer\t\[.*\]\nTraceback .*\n(.*\n)*ValueError: inner\n", capsys.readouterr().err)


def test_asking_for_the_logger_twice_writes_lines_once(capsys):
    get_logger()
    init_logging("info")
    get_logger().info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match='unknown log level "loud"; choose one of debug'):
        update_log_level(logging.getLogger("allenact"), "loud")


def test_a_free_port_can_be_bound():
    port = find_free_port()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))


def test_import_checker_adds_advice_to_missing_modules_only():
    with (
        pytest.raises(ModuleNotFoundError, match=r"(?s)no_such_package.*pip install it") as info,
        ImportChecker("pip install it"),
    ):
        import no_such_package  # noqa: F401
    assert info.value.name == "no_such_package"
    with pytest.raises(ValueError, match=r"^other$"), ImportChecker("pip install it"):
        raise ValueError("other")
    with ImportChecker("unused"):
        pass
