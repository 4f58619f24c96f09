"""A clock and a terminal for what is shown while a run goes on."""

import pytest

from allenact.testing.terminal import Terminal


class Clock:
    """Says what time it is told."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()
