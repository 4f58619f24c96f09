"""Evaluates a gym experiment on episodes that neither its training nor its validation has seen."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

from allenact.base_abstractions.experiment_config import MachineParams

FIRST_SEED = 10_000  # validation and test of the experiments in projects/ begin at 0; training draws from 31 bits
EPISODES = 20


def evaluate_held_out(
    experiment: str,
    base: str,
    checkpoints: str,
    output: Path,
    *,
    config_kwargs: dict[str, Any] | None = None,
    episodes: int = EPISODES,
    first_seed: int = FIRST_SEED,
    deterministic: bool = True,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tests checkpoints as `--eval` does, but for the episodes, which are those of `first_seed` and the next ones.

    Args:
        experiment: as on the command line.
        base: its folder, as after `-b`.
        checkpoints: a file, a folder or a glob.
        output: root of all output; `evaluation.json` and the metrics of each episode are written there.
        config_kwargs: keyword arguments of the experiment.
        episodes: number of episodes of each checkpoint.
        first_seed: where the seeds of the episodes begin.
        deterministic: play the mode of the policy instead of a sample.

    Returns:
        For each checkpoint the entry of the metrics file, with the metrics of every episode in `tasks`; and what
        `evaluation.json` holds.

    Raises:
        UsageError: something is wrong with experiment, checkpoints or output folder.
        RunError: the evaluation failed.
    """
    from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
    from allenact.utils.experiment_loading import load_experiment

    config = load_experiment(experiment, base, json.dumps(config_kwargs or {})).config
    with OnPolicyRunner(
        config=with_other_tests(config, episodes, first_seed),
        output_dir=output,
        loaded_config_src_files=None,
        seed=0,
        mode="test",
        deterministic_agents=deterministic,
        disable_tensorboard=True,
    ) as runner:
        results = runner.start_test(checkpoints)
        folder = runner.paths.test_metrics(runner.local_start_time_str).parent
    return results, json.loads((folder / "evaluation.json").read_text())


def with_other_tests(config: Any, episodes: int, first_seed: int) -> Any:
    """Returns the experiment with other test tasks: as many samplers as episodes, each with a seed of its own.

    Args:
        config: an experiment whose samplers understand `max_tasks`, `task_seeds_list` and `deterministic_sampling`.
        episodes: how many.
        first_seed: that of the first episode.
    """
    changed = copy.copy(config)
    changed.test_task_sampler_args = partial(_sampler_args, config, first_seed)
    changed.machine_params = partial(_machine_params, config, episodes)
    return changed


def _sampler_args(config: Any, first_seed: int, process_ind: int, *args: Any, **kwargs: Any) -> dict[str, Any]:
    own = config.test_task_sampler_args(process_ind, *args, **kwargs)
    return {**own, "max_tasks": 1, "task_seeds_list": [first_seed + process_ind], "deterministic_sampling": True}


def _machine_params(config: Any, episodes: int, mode: str = "train", **kwargs: Any) -> Any:
    own = MachineParams.instance_from(config.machine_params(mode, **kwargs))
    if mode != "test":
        return own
    graph = own.sensor_preprocessor_graph
    return MachineParams(episodes, own.devices[0], sensor_preprocessor_graph=graph)
