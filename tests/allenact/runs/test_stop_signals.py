"""What a signal means: stop, stop at once, or the same again."""

import os
import signal

import pytest

from allenact.runs import stop_signals
from allenact.runs.stop_signals import StopSignals


@pytest.fixture
def clock(monkeypatch):
    times = [0.0]
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: times[-1])
    return times


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_another_one_later_ends(number, clock):
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop()
        clock.append(1.5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_a_signal_that_comes_twice_at_once_is_one(clock, caplog):
    with StopSignals() as stop:
        for seconds in (0.0, 0.1, 0.9):
            clock.append(seconds)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert caplog.text.count("Stopping.") == 1
