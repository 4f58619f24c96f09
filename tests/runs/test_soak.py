"""Nothing grows with the length of a run: descriptors (shared memory is one of them), threads, processes, memory."""

import psutil
import pytest

from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference
from allenact.testing.experiments import ToyExperiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MOST_GROWTH = 30 * 2**20  # bytes; the allocator keeps what it once had


def usage():
    """Descriptors, threads and processes, and bytes of memory, of this process and its children."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    counts = {
        "descriptors": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "processes": len(processes),
    }
    return counts, sum(process.memory_info().rss for process in processes)


def assert_flat(before, after):
    assert after[0] == before[0]
    assert after[1] - before[1] < MOST_GROWTH


def test_two_thousand_rollouts(train):
    """In sampler processes, with a checkpoint every ten of them."""
    seen = {}
    config = ToyExperiment(stage_steps=(32 * 2000,), save_interval=320, metric_interval=320)

    class Watched(list):
        def append(self, package):
            rollout = package.training_steps // 32
            if rollout in (200, 1990):
                seen[rollout] = usage()

    train(config, backend="process", max_sampler_processes=2, packages=Watched())
    assert_flat(seen[200], seen[1990])


def test_two_hundred_validations(train):
    checkpoint = str(train(ToyExperiment()).checkpoints[-1])
    with OnPolicyInference(ToyExperiment(), "valid", sampler_backend="process") as validator:
        first = validator.run_eval(checkpoint)
        for _ in range(20):
            validator.run_eval(checkpoint)
        before = usage()
        for _ in range(180):
            last = validator.run_eval(checkpoint)
        assert_flat(before, usage())
    assert last.metrics == first.metrics
