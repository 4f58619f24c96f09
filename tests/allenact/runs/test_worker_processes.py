"""Messages of a training worker to a runner that is busy."""

import multiprocessing
import sys
import time

import pytest
import torch

from allenact.algorithms.onpolicy_sync import engine
from allenact.runs.worker_processes import Evaluate, Outbox, Ready, evaluation_worker


def test_nobody_waits_for_a_runner_that_does_not_read():
    ours, theirs = multiprocessing.Pipe()
    messages = [f"{number}" * 1_000_000 for number in range(5)]  # each is more than the pipe holds
    began = time.monotonic()
    outbox = Outbox(theirs)
    state = {"steps": 1}
    outbox.send(state)
    state["steps"] = 2
    for message in messages:
        outbox.send(message)
    assert time.monotonic() - began < 1.0
    assert ours.recv() == {"steps": 1}, "as it was when it was sent"
    assert [ours.recv() for _ in messages[:4]] == messages[:4]
    with outbox:
        assert ours.recv() == messages[4]
    assert not ours.poll()


def test_leaving_sends_what_waits_and_a_closed_pipe_is_no_reason_to_hang():
    ours, theirs = multiprocessing.Pipe()
    with Outbox(theirs) as outbox:
        outbox.send("last")
    assert ours.recv() == "last"
    ours.close()
    with Outbox(theirs) as outbox:
        outbox.send("nobody is listening")


def test_what_cannot_be_sent_is_raised_where_it_is_sent():
    _, theirs = multiprocessing.Pipe()
    with Outbox(theirs) as outbox, pytest.raises((AttributeError, TypeError), match="pickle"):
        outbox.send(lambda: None)


def send_a_tensor(pipe):
    with Outbox(pipe) as outbox:
        outbox.send({"distance": torch.arange(3.0)})


class OneEvaluation:
    """Answers one request with a tensor and ends the process with the next."""

    def __init__(self, **kwargs):
        self.answers = [{"distance": torch.arange(3.0)}]

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def check_tasks(self):
        pass

    def run_eval(self, checkpoint):
        return self.answers.pop() if self.answers else sys.exit()


def evaluate_once(pipe):
    engine.OnPolicyInference = OneEvaluation  # of this process
    evaluation_worker(pipe, mode="valid")


@pytest.mark.parametrize(("work", "before"), [(send_a_tensor, []), (evaluate_once, [Ready()])])
def test_tensors_arrive_after_their_process_has_ended(work, before):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    process.start()
    for _ in range(2):
        ours.send(Evaluate("a.pt"))
    process.join(timeout=60)
    assert [ours.recv() for _ in before] == before
    assert ours.recv()["distance"].tolist() == [0, 1, 2]
