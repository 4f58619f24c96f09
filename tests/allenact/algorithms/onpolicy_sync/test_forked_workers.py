"""What forked workers must leave alone: objects and threads of the process that they are a copy of."""

import gc
import multiprocessing
import os

import pytest
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorSampledTasks
from allenact.runs.worker_processes import WorkerProcess
from allenact.testing.tasks import CopyTask, ToyTaskSampler
from allenact.utils.torch_threads import most_threads, threads_for, torch_threads


class Engine:
    """Part of a cycle, which only the collector ends; says which process did."""

    def __init__(self, path):
        self.path = path
        self.itself = self

    def __del__(self):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


def collect(pipe):
    """What the worker process does."""
    gc.collect()
    pipe.send("collected")


class CollectingSampler(ToyTaskSampler):
    """Collects garbage when it is made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        gc.collect()


def in_a_training_worker():
    worker = WorkerProcess(multiprocessing.get_context("fork"), "train 0", collect, {}, log_level=30)
    assert worker.receive() == "collected"
    worker.process.join(timeout=10)


def in_a_sampler_process():
    args = [{"task_class": CopyTask, "seed": 1}]
    VectorSampledTasks(CollectingSampler, args, multiprocessing_start_method="fork", should_log=False).close()


@pytest.mark.parametrize("collect_in_a_fork", [in_a_training_worker, in_a_sampler_process])
def test_what_they_inherit_is_not_destroyed(collect_in_a_fork, tmp_path):
    gc.collect()
    gc.disable()
    try:
        Engine(tmp_path / "destroyed_in")
        collect_in_a_fork()
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "destroyed_in").read_text().split() == [str(os.getpid())]


def multiply():
    """Enough work for torch to start its threads, if it may."""
    return (torch.ones(1000, 500) @ torch.ones(500, 1000)).tanh().sum()


def multiply_in_worker(pipe):
    """What the worker process does."""
    multiply()
    with torch_threads(threads_for(1e6, 1000)):
        multiply()
    pipe.send((torch.get_num_threads(), most_threads()))


def test_they_do_not_wait_for_threads_that_are_not_there():
    with torch_threads(2):
        multiply()
        worker = WorkerProcess(multiprocessing.get_context("fork"), "train 0", multiply_in_worker, {}, log_level=30)
    try:
        assert worker.connection.poll(30), "it waits"
        assert worker.receive() == (1, 1)
    finally:
        worker.process.kill()
        worker.process.join(timeout=10)
