"""A short run of a toy and of Ant, pinned number by number: a change that must not alter learning is seen not to.

The traces lie in `tests/runs/golden`: the scalars and episodes of every log, statistics of the parameters at the end,
their hash, and the platform that made them. On the same platform (versions, processor) the parameters must be equal,
bit for bit. Elsewhere arithmetic is rounded differently. The toy does not mind, so all of its numbers are compared with
the tolerance of OTHER_PLATFORM; the physics of falling bodies makes any difference large, so of Ant only those of the
first rollout and its update are.

If a change is meant to alter learning, or the versions in constraints.txt have moved, write the traces anew and commit
them with a line in the changelog that says why:

    UPDATE_GOLDEN=1 python -m pytest tests/runs/test_golden_trace.py
"""

import hashlib
import json
import os
import platform
from pathlib import Path

import pytest
import torch

from allenact.algorithms.onpolicy_sync.checkpointing import library_versions
from allenact.testing.experiments import ToyExperiment
from benchmarks.common import machine
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig

GOLDEN = Path(__file__).parent / "golden"
SAME_PLATFORM = {"rel": 1e-5, "abs": 1e-9}
OTHER_PLATFORM = {"rel": 1e-3, "abs": 1e-5}

SIZE = {"num_steps": 16, "num_train_samplers": 32, "update_repeats": 2, "save_interval": 10**9, "metric_interval": 1}
EXPERIMENTS = {
    "toy": lambda: ToyExperiment("push_right", stage_steps=(128,), num_steps=8),
    "toy-steps": lambda: ToyExperiment(
        "copy", stage_steps=(128,), num_steps=8, mini_batches_over="steps", bootstrap_truncated=True
    ),
    "ant": lambda: GymMuJoCoTutorialExperimentConfig(total_steps=3 * 32 * 16, **SIZE),
}
CHAOTIC = {"ant"}


def trace_of(run):
    """What a run says and leaves."""
    return {
        "logs": [
            {
                "steps": package.training_steps,
                "scalars": {tag: total / weight for tag, (total, weight) in sorted(package.scalars.items())},
                "episodes": [[task["ep_length"], task["reward"]] for task in package.metrics],
            }
            for package in run.packages
        ],
        "parameters": {
            name: [float(value.double().mean()), float(value.double().norm())] for name, value in run.parameters.items()
        },
    }


def hash_of(parameters):
    digest = hashlib.sha256()
    for name, value in sorted(parameters.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def this_platform():
    return {
        **{name: version for name, version in library_versions().items() if name != "python"},
        "cpu": machine()["cpu"],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def differences(golden, new, tolerance, path=""):
    """Lists where two traces differ by more than a tolerance."""
    if isinstance(golden, dict) and isinstance(new, dict):
        keys = sorted({*golden, *new})
        return [
            line
            for key in keys
            for line in differences(golden.get(key), new.get(key), tolerance, f"{path}/{key}" if path else str(key))
        ]
    if isinstance(golden, list) and isinstance(new, list) and len(golden) == len(new):
        pairs = enumerate(zip(golden, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{path}[{i}]")]
    numbers = isinstance(golden, (int, float)) and isinstance(new, (int, float))
    same = new == pytest.approx(golden, **tolerance) if numbers else new == golden
    return [] if same else [f"{path}: {golden} became {new}"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_golden_trace(name, train):
    run = train(EXPERIMENTS[name](), seed=11, backend="auto")
    trace, made_by, parameters = trace_of(run), this_platform(), hash_of(run.parameters)
    file = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        content = {"platform": made_by, "parameters_sha256": parameters, **trace}
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"wrote {file}")
    golden = json.loads(file.read_text())
    same_platform = golden.pop("platform") == made_by
    golden_hash = golden.pop("parameters_sha256")
    if not same_platform and name in CHAOTIC:
        golden, trace = golden["logs"][0], trace["logs"][0]
    found = differences(golden, trace, SAME_PLATFORM if same_platform else OTHER_PLATFORM)
    assert not found, "\n".join([f"{len(found)} numbers of {file} differ; the first ones:", *found[:10]])
    if same_platform:
        assert parameters == golden_hash, "the numbers agree, the last bits of the parameters do not"
