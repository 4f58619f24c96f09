"""A live block stays below everything else that is written to the terminal."""

import io
import sys

import pytest

from allenact.testing.terminal import Terminal
from allenact.utils.system import get_logger
from allenact.utils.terminal import LiveBlock, wants_live_text


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_block_is_drawn_over_the_last_one(terminal):
    block = LiveBlock(terminal)
    block.draw(["one", "two", "three"])
    block.draw(["four", "five"])
    assert terminal.lines == ["", "four", "five"]
    block.leave(["six"])
    terminal.write("a prompt")
    assert terminal.lines == ["six", "a prompt"]


def test_log_lines_come_above_it(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    block = LiveBlock(terminal)
    block.draw(["a long line of the block " * 2, "second"])
    get_logger().warning("first\nof two lines")
    block.draw(["newer"])
    assert terminal.lines[0].endswith("WARNING:] first")
    assert terminal.lines[1].startswith("of two lines\t")
    assert terminal.lines[2:] == ["", "newer"]


def test_other_output_comes_above_it(terminal):
    """What knows nothing of the block, a library in C for instance, writes on the empty line that is left for it."""
    block = LiveBlock(terminal)
    block.draw(["block"])
    terminal.write("WARNING: Nan in QACC\n")
    block.draw(["block"])
    terminal.write("\n")  # somebody pressed enter
    block.draw(["block"])
    assert terminal.lines == ["WARNING: Nan in QACC", "", "", "block"]


def test_a_block_is_never_higher_than_the_terminal(terminal, monkeypatch):
    monkeypatch.setenv("LINES", "6")
    LiveBlock(terminal).draw([str(number) for number in range(20)])
    assert terminal.lines == ["", "0", "1", "2", "3"]


def test_a_terminal_that_is_gone_ends_nothing(terminal):
    block = LiveBlock(terminal)
    terminal.close()
    block.draw(["nobody reads this"])
    block.leave(["nor this"])


@pytest.mark.parametrize(
    ("stream", "environment", "wanted"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
    ],
)
def test_where_it_is_wanted(stream, environment, wanted, monkeypatch):
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **environment}.items():
        monkeypatch.setenv(name, value)
    assert wants_live_text(stream) is wanted
