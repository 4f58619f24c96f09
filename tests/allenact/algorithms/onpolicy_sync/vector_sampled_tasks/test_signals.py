"""Signals wait until the critical part is over."""

import signal
import threading

import pytest

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import DelaySignalHandling


@pytest.fixture(autouse=True)
def _python_handles_interrupts():
    """As it does in a shell's foreground; what a shell starts in the background ignores them."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_an_interrupt_comes_afterwards():
    done = []

    def critical():
        with DelaySignalHandling():
            signal.raise_signal(signal.SIGINT)
            done.append("everything")

    with pytest.raises(KeyboardInterrupt):
        critical()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_get_their_signals_in_order():
    received = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with DelaySignalHandling():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert received == []
        assert received == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_other_threads_are_left_alone():
    errors = []

    def enter():
        try:
            with DelaySignalHandling():
                pass
        except ValueError as error:  # what signal.signal raises outside of the main thread
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors == []
