"""What is made of py-spy's stacks."""

import pytest

from benchmarks.python_profile import by_role, running, shares

SAMPLER = ["process 3:python", "main (multiprocessing/forkserver.py:1)", "run_worker (allenact/a/worker.py:99)"]
TRAINING = ["process 2:python", "OnPolicyTrainer.run_pipeline (allenact/a/engine.py:160)"]


def test_stacks_are_sorted_by_kind_of_process():
    step = "Simulations.step (allenact_plugins/gym_plugin/simulations.py:7)"
    stacks = [
        (["process 1:python", "main (allenact/main.py:1)"], 50),
        ([*SAMPLER, step], 6),
        ([*SAMPLER, step.replace(":7", ":8")], 1),
        ([*SAMPLER, step, "clip (numpy/core.py:7)"], 2),
        ([*SAMPLER, "poll (selectors.py:3)"], 1),
        ([*TRAINING, "backward (torch/tensor.py:4)"], 5),
    ]
    roles = by_role(stacks)
    assert roles["a sampler process"] == {"Simulations.step (simulations.py)": 9, "waiting": 1}
    assert roles["training"] == {"OnPolicyTrainer.run_pipeline (engine.py)": 5}
    assert shares(roles["a sampler process"]) == {
        "Simulations.step (simulations.py)": 90.0,
        "waiting": 10.0,
        "all others": 0.0,
    }


def test_many_functions_are_cut():
    functions = {f"f{index}": index for index in range(1, 21)}
    shown = shares(functions)
    assert len(shown) == 9
    assert shown["f20"] == pytest.approx(100 * 20 / 210, abs=0.05)
    assert sum(shown.values()) == pytest.approx(100, abs=0.5)


def test_stacks_without_any_function_of_ours():
    assert running(["process 1:python", "run (threading.py:9)"]) == "run (threading.py)"
