"""Processes that are forked from the server of the workers."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import multiprocessing, signal, time
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker_pool import warm_up_samplers
from allenact.utils.worker_startup import WORKER_NAME, warm_up_workers

if __name__ == "__main__":
    {warm_up}()
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=time.sleep, args=(20,), name=name) for name in (None, WORKER_NAME + "1")]
    for process in processes:
        process.start()
        process.terminate()
    processes[0].join(10)
    print([process.exitcode for process in processes])
    processes[1].kill()
"""


@pytest.mark.parametrize("warm_up", ["warm_up_workers", "warm_up_samplers"])
def test_only_our_workers_start_with_blocked_signals(warm_up, tmp_path):
    """Those of an experiment can be terminated as any other."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(warm_up=warm_up))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[-15, None]\n", "")
