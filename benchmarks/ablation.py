"""Trains the modern recipe on Ant with one option changed at a time, to see what each of them contributes.

    python -m benchmarks.ablation --parallel 2
    python -m benchmarks.ablation --only constant-rate wide-start

Each variant is a result of `benchmarks.learning` and can be interrupted and started again like it; variants that have
a result with these seeds and steps are not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import learning
from benchmarks.common import RESULTS

EXPERIMENT = ["gym_mujoco_ant_ppo", "-b", "projects/gym_baselines/experiments/mujoco"]
STEPS = 1_000_000


class Variant(NamedTuple):
    """What a variant is called in the table, and the keyword arguments with which it differs from the recipe."""

    label: str
    config_kwargs: dict[str, Any]


# The most telling ones first, for those who cannot wait for all.
VARIANTS = {
    "recipe": Variant("the recipe", {}),
    "raw-returns": Variant("values in units of the reward", {"model": {"normalize_returns": False}}),
    "raw-observations": Variant("observations as they are", {"model": {"normalize_observations": False}}),
    "fixed-std": Variant("the standard deviation stays as it is at first", {"model": {"learn_std": False}}),
    "wide-start": Variant("first standard deviation 1", {"initial_log_std": 0.0}),
    "per-dimension": Variant("a probability ratio for each entry of the action", {"model": {"joint": False}}),
    "no-bootstrap": Variant("the time limit ends what can be earned", {"bootstrap_truncated": False}),
    "samplers": Variant("mini-batches over samplers", {"mini_batches_over": "samplers"}),
    "constant-target": Variant("a KL target that stays at 0.05", {"kl_target_end": None}),
    "constant-rate": Variant("constant learning rate", {"kl_target": None}),
    "judged-per-update": Variant("KL judged once per rollout", {"kl_judged": "update"}),
    "free-values": Variant("no clipping of values", {"use_clipped_value_loss": False}),
    "two-networks": Variant("separate networks", {"model": {"shared_torso": False}}),
    "orthogonal": Variant("orthogonal initialisation", {"model": {"initialisation": "orthogonal"}}),
    "small-tanh": Variant("tanh 64, 64", {"model": {"hidden_sizes": [64, 64], "activation": "tanh"}}),
    "hand-written": Variant(
        "separate networks, KL judged once per rollout, no clipping of values, first standard deviation 1",
        {
            "model": {"shared_torso": False},
            "kl_judged": "update",
            "use_clipped_value_loss": False,
            "initial_log_std": 0.0,
        },
    ),
    "low-target": Variant("KL target 0.008", {"kl_target": 0.008}),
    "low-target-wide-start": Variant(
        "KL target 0.008, first standard deviation 1", {"kl_target": 0.008, "initial_log_std": 0.0}
    ),
    "high-target-wide-start": Variant(
        "KL target 0.2 that stays, first standard deviation 1",
        {"kl_target_end": None, "kl_target": 0.2, "initial_log_std": 0.0},
    ),
}


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of training")
    parser.add_argument("--steps", type=int, default=STEPS, help="environment steps of each run")
    parser.add_argument("--parallel", type=int, default=1, help="seeds trained side by side, each on a core of its own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    for name in options.only:
        if not is_done(name, options):
            learning.main(command(name, options))


def keyword_arguments(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of a variant's experiment."""
    return {"total_steps": options.steps, **VARIANTS[name].config_kwargs}


def is_done(name: str, options: argparse.Namespace) -> bool:
    """Whether there is a result of a variant with all seeds and steps asked for; it is written seed by seed."""
    path = options.results / f"learning-ablation-{name}.json"
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    seeds = [row["seed"] for row in result["rows"]]
    return seeds == options.seeds and result["settings"]["config_kwargs"] == keyword_arguments(name, options)


def command(name: str, options: argparse.Namespace) -> list[str]:
    """Returns the arguments with which `benchmarks.learning` trains and evaluates a variant."""
    kwargs = json.dumps(keyword_arguments(name, options))
    seeds = [str(seed) for seed in options.seeds]
    results = [] if options.results == RESULTS else ["--results", str(options.results)]
    return [
        *EXPERIMENT,
        *("--name", f"ablation-{name}", "--label", VARIANTS[name].label, "--config_kwargs", kwargs, "--seeds", *seeds),
        *("--parallel", str(options.parallel), *results),
    ]


if __name__ == "__main__":
    learning.end_on_signals()
    main()
