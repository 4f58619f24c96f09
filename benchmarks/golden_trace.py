"""Short runs whose every scalar is pinned, so that a change that must not alter learning is seen not to.

`python -m benchmarks.golden_trace` compares, `--accept` writes what it found as the new truth. A change that is meant
to alter learning accepts a new trace and says so in the changelog; any other must leave it as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore, library_versions
from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.base_abstractions.experiment_config import ExperimentConfig
from allenact.testing.experiments import ToyExperiment
from benchmarks.common import machine
from projects.gym_baselines.experiments.mujoco.gym_mujoco_ant_ppo import GymMuJoCoAntModernConfig
from projects.gym_baselines.experiments.mujoco.gym_mujoco_invertedpendulum_ppo import (
    GymMuJoCoInvertedPendulumModernConfig,
)
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig

GOLDEN = Path(__file__).parent / "golden" / "trace.json"
SEED = 12345
TOLERANCE = 1e-3
"""Relative difference of a scalar on another machine. Rounding makes up to 4e-5, what the tests break 0.2 and more."""
CONTACTS = frozenset({"Ant, tutorial", "Ant, modern"})
"""Runs whose feet touch the ground, of which only the first log is compared on another machine, with a tolerance of its
own: contacts make differences of rounding large, up to 3 % in the first log and half of everything in the second."""
CONTACT_TOLERANCE = 0.05
_MATTER = ("python", "torch", "numpy", "mujoco", "gymnasium")


class _Tutorial(GymMuJoCoTutorialExperimentConfig):
    """The tutorial's recipe in short rollouts."""

    def training_pipeline(self, **kwargs: Any) -> Any:
        pipeline = super().training_pipeline(**kwargs)
        pipeline.training_settings.metric_accumulate_interval = 1
        return pipeline


class _Pendulum(GymMuJoCoInvertedPendulumModernConfig):
    """The modern recipe without contacts; episodes end both by falling and by a limit."""

    def _env_kwargs(self) -> dict[str, Any]:
        return {**super()._env_kwargs(), "max_episode_steps": 12}


RUNS: dict[str, Callable[[], ExperimentConfig]] = {
    "toy, discrete": lambda: ToyExperiment("copy", metric_interval=1),
    "toy, with memory": lambda: ToyExperiment("remember", recurrent=True, metric_interval=1),
    "Ant, tutorial": lambda: _Tutorial(total_steps=768, num_steps=32, update_repeats=2, save_interval=0),
    "Ant, modern": lambda: GymMuJoCoAntModernConfig(
        total_steps=768, num_samplers=8, num_steps=32, save_interval=0, metric_interval=1
    ),
    "toy, cut short": lambda: ToyExperiment("push_right", bootstrap_truncated=True, max_steps=5, metric_interval=1),
    "pendulum, cut short": lambda: _Pendulum(
        total_steps=768, num_samplers=8, num_steps=32, save_interval=0, metric_interval=1
    ),
}


def trace(config: ExperimentConfig) -> dict[str, Any]:
    """Trains `config` in this process and returns what came of it.

    Returns:
        `sha256` of the final weights and statistics, and `logs`: for each rollout its steps and its scalars by tag,
        with the mean reward of the episodes that ended in it.
    """
    packages: list[LogPackage] = []

    def keep(message: LogPackage | Path) -> None:
        if isinstance(message, LogPackage):
            packages.append(message)

    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), "trace")
        with OnPolicyTrainer(config, seed=SEED, sampler_backend="serial", checkpoints=store, send=keep) as trainer:
            trainer.train()
            weights = {name: value.detach().cpu() for name, value in trainer.actor_critic.state_dict().items()}
    return {"sha256": weights_hash(weights), "logs": [_log(package) for package in packages]}


def weights_hash(weights: dict[str, torch.Tensor]) -> str:
    """Returns the SHA-256 of all tensors, with their names, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _log(package: LogPackage) -> dict[str, Any]:
    entry: dict[str, Any] = {"steps": package.training_steps}
    entry.update({tag: total / weight for tag, (total, weight) in sorted(package.scalars.items()) if weight})
    rewards = [float(metrics["reward"]) for metrics in package.metrics]
    if rewards:
        entry["reward"] = sum(rewards) / len(rewards)
    return entry


def environment() -> dict[str, str]:
    """Returns what the last bits of a run depend on besides the code."""
    versions = {name: version for name, version in library_versions().items() if name in _MATTER}
    return {**versions, "cpu": str(machine()["cpu"]), "kernels": torch.backends.cpu.get_cpu_capability()}


def differences(found: dict[str, Any], golden: dict[str, Any], bit_for_bit: bool, contacts: bool = False) -> list[str]:
    """Returns what differs between two traces, in words; nothing if they agree.

    Args:
        found: what `trace` returned.
        golden: what it should be.
        bit_for_bit: whether both were made in the same `environment`.
        contacts: whether the run is one of `CONTACTS`.
    """
    if bit_for_bit and found["sha256"] != golden["sha256"]:
        return [
            f"the weights: {found['sha256'][:12]} instead of {golden['sha256'][:12]}",
            *_scalars(found, golden, 0.0),
        ]
    if bit_for_bit:
        return _scalars(found, golden, 0.0)
    if contacts:
        return _scalars({"logs": found["logs"][:1]}, {"logs": golden["logs"][:1]}, CONTACT_TOLERANCE)
    return _scalars(found, golden, TOLERANCE)


def _scalars(found: dict[str, Any], golden: dict[str, Any], tolerance: float) -> list[str]:
    wrong = []
    if len(found["logs"]) != len(golden["logs"]):
        wrong.append(f"{len(found['logs'])} logs instead of {len(golden['logs'])}")
    for ours, theirs in zip(found["logs"], golden["logs"], strict=False):
        for tag in sorted(ours.keys() | theirs.keys()):
            a, b = ours.get(tag), theirs.get(tag)
            if a is None or b is None or abs(a - b) > tolerance * max(abs(a), abs(b), 1e-2):
                wrong.append(f"{tag} at {theirs['steps']} steps: {a} instead of {b}")
    return wrong


def main(args: Sequence[str] | None = None) -> int:
    """Compares all runs with the golden file, or writes it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--accept", action="store_true", help="write what was found as the new truth")
    accept = parser.parse_args(args).accept
    found = {name: trace(make()) for name, make in RUNS.items()}
    if accept:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({"environment": environment(), "runs": found}, indent=1) + "\n")
        print(f"wrote {GOLDEN}")
        return 0
    golden = json.loads(GOLDEN.read_text())
    bit_for_bit = golden["environment"] == environment()
    elsewhere = f"another machine or other versions: to a relative {TOLERANCE}, contacts: {CONTACT_TOLERANCE}"
    print("bit for bit" if bit_for_bit else elsewhere)
    wrong = False
    for name, run in found.items():
        lines = differences(run, golden["runs"][name], bit_for_bit, name in CONTACTS)
        print(f"{name}: {'as before' if not lines else '; '.join(lines[:5])}")
        wrong = wrong or bool(lines)
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
