"""The same training in other libraries: Stable-Baselines3, rl_games, and a plain PPO loop on EnvPool.

    pip install -r benchmarks/requirements-peers.txt
    python -m benchmarks.peers                                        # the Ant tutorial
    python -m benchmarks.peers --tasks LunarLanderContinuous
    python -m benchmarks.peers --samplers 64 --rollout_rows 4096 --mini_batch_rows 2048 --passes 4 --hidden 256 128 64

Everybody has the same network, rollout, mini-batches and passes, and a process of its own; they take turns. A ratio
says how many times as fast as the other one ours is, in the same round.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

# Before torch is imported, here and in the processes below: threads that wait by spinning are in the way of others.
from allenact.base_abstractions.experiment_config import ExperimentConfig, TaskSampler
from allenact_plugins.gym_plugin.gym_tasks import GymTaskSampler
from benchmarks.common import (
    Measurement,
    Turn,
    add_common_arguments,
    interleave,
    paired_ratios,
    print_row,
    record,
    write_result,
)
from benchmarks.plain_ppo import PlainPPO
from benchmarks.rl_games_ppo import RLGames
from benchmarks.workloads import EXPERIMENTS, Size, Training, has_physics
from projects.gym_baselines.experiments.mujoco.gym_mujoco_ant_ppo import GymMuJoCoAntModernConfig
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig

REQUIREMENTS = "benchmarks/requirements-peers.txt"
NO_CONTACT_FORCES = "ours, no contact forces"
MODERN, MODERN_NO_CONTACT_FORCES = "ours, modern recipe", "ours, modern recipe, no contact forces"
COMPARED_WITH = {  # the others: with the first of ours
    "EnvPool, 27 entries": NO_CONTACT_FORCES,
    "rl_games": MODERN,
    "rl_games, compiled": MODERN,
    "rl_games, 27 entries": MODERN_NO_CONTACT_FORCES,
    "rl_games, 27 entries, compiled": MODERN_NO_CONTACT_FORCES,
}
PACKAGES = ("stable_baselines3", "envpool", "rl_games")
WHAT = ("collect", "whole")
GYMNASIUM: dict[str, tuple[str, dict[str, Any]]] = {
    "Ant": ("Ant-v4", {"use_contact_forces": True}),
    "LunarLanderContinuous": ("LunarLanderContinuous-v3", {}),
}


class StableBaselines:
    """Stable-Baselines3's PPO.

    Args:
        task: a key of `GYMNASIUM`.
        size: of the rollout, its mini-batches and the model.
        seconds: least length of a turn; a turn ends after an update.
        subprocesses: SubprocVecEnv, which has a process for each sampler, instead of DummyVecEnv.
        name: prefix of what is measured.
        env_kwargs: of the environments, besides those of the task. By itself Stable-Baselines3 gives them a render
            mode, with which LunarLander simulates sparks and takes several times as long.
    """

    def __init__(
        self,
        task: str,
        size: Size,
        seconds: float,
        subprocesses: bool,
        name: str,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
        from torch import nn

        env_id, task_kwargs = GYMNASIUM[task]
        envs = make_vec_env(
            env_id,
            n_envs=size.num_samplers,
            seed=0,
            env_kwargs={**task_kwargs, **(env_kwargs or {})},
            vec_env_cls=SubprocVecEnv if subprocesses else DummyVecEnv,
        )
        hidden = list(size.hidden or (64, 32))
        self.seconds, self.name = seconds, name
        self.rows = size.num_steps * size.num_samplers
        self.collecting = 0.0
        self.ppo = PPO(
            "MlpPolicy",
            envs,
            n_steps=size.num_steps,
            batch_size=self.rows // size.num_mini_batch,
            n_epochs=size.passes,
            policy_kwargs={"net_arch": {"pi": hidden, "vf": hidden}, "activation_fn": nn.Tanh},
            device="cpu",
        )
        collect = self.ppo.collect_rollouts

        def timed_collect(*args: Any, **kwargs: Any) -> bool:
            start = time.perf_counter()
            try:
                return bool(collect(*args, **kwargs))
            finally:
                self.collecting += time.perf_counter() - start

        self.ppo.collect_rollouts = timed_collect

    def __call__(self) -> Measurement:
        """Returns environment steps per second, of collecting alone and of the whole loop."""
        self.collecting = 0.0
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            self.ppo.learn(self.rows, reset_num_timesteps=False)
            count += self.rows
        return {f"{self.name} collect": count / self.collecting, f"{self.name} whole": turn.rate(count)}

    def close(self) -> None:
        """Ends the environments."""
        self.ppo.env.close()


class OwnProcess:
    """A contestant in a process of its own, so that threads, memory and imports of the others do not matter to it.

    Args:
        make: builds the contestant there.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_take_turns, args=(there, make))
        self.process.start()
        there.close()

    def __call__(self) -> Measurement:
        """Returns what the contestant measures in one turn.

        Raises:
            RuntimeError: its process has ended; its traceback is above.
        """
        try:
            self.pipe.send("go")
            answer: Measurement = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise RuntimeError(f"a contestant ended with exit code {self.process.exitcode}") from None
        return answer

    def close(self) -> None:
        """Ends the process."""
        self.pipe.close()
        self.process.join()


def _take_turns(pipe: Connection, make: Callable[[], Any]) -> None:
    from allenact.utils.system import init_logging

    init_logging("warning")
    with closing(make()) as contestant:
        while True:
            try:
                pipe.recv()
            except EOFError:
                return
            pipe.send(contestant())


class NoContactForces:
    """An Ant experiment with zeros where contact forces are observed, which then need not be computed."""

    @classmethod
    def make_sampler_fn(cls, gym_env_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> TaskSampler:
        """The experiment's, with another environment."""
        options = {**(gym_env_kwargs or {}), "contact_forces": "zero"}
        return GymTaskSampler(gym_env_type="Ant-v2", gym_env_kwargs=options, **kwargs)


class AntWithoutContactForces(NoContactForces, GymMuJoCoTutorialExperimentConfig):
    """The Ant tutorial without contact forces."""


class ModernAntWithoutContactForces(NoContactForces, GymMuJoCoAntModernConfig):
    """The modern recipe for Ant without contact forces."""


def contestants(task: str, size: Size, seconds: float) -> dict[str, Callable[[], Any]]:
    """Returns name -> how to build it, ours first, of all that can run here."""
    ours: dict[str, tuple[Callable[[], ExperimentConfig], str, Size]] = {
        f"ours ({backend})": (EXPERIMENTS[task], backend, size)
        for backend in (("process",) if has_physics(task) else ("process", "serial"))
    }
    if task == "Ant":
        model = {"hidden_sizes": size.hidden} if size.hidden else {}
        modern = partial(GymMuJoCoAntModernConfig, model=model)
        ours[NO_CONTACT_FORCES] = (AntWithoutContactForces, "process", size)
        ours[MODERN] = (modern, "process", size)
        ours[MODERN_NO_CONTACT_FORCES] = (partial(ModernAntWithoutContactForces, model=model), "process", size)
        halved = replace(size, mini_batch_rows=max(1, size.mini_batch_rows // 2))
        ours[f"{MODERN}, halved mini-batches"] = (modern, "process", halved)
    makers: dict[str, Callable[[], Any]] = {
        name: partial(Training, experiment, its_size, backend, seconds, name)
        for name, (experiment, backend, its_size) in ours.items()
    }
    if importlib.util.find_spec("stable_baselines3") is not None:
        for name, subprocesses in {"SB3 DummyVecEnv": False, "SB3 SubprocVecEnv": True}.items():
            makers[name] = partial(StableBaselines, task, size, seconds, subprocesses, name)
            if task == "LunarLanderContinuous":
                bare = f"{name}, no render mode"
                makers[bare] = partial(StableBaselines, task, size, seconds, subprocesses, bare, {"render_mode": None})
    if importlib.util.find_spec("envpool") is not None:
        makers["EnvPool"] = partial(PlainPPO, task, size, seconds, "EnvPool")
        if task == "Ant":
            name = "EnvPool, 27 entries"
            makers[name] = partial(PlainPPO, "Ant without contact forces", size, seconds, name)
    if task == "Ant" and all(importlib.util.find_spec(package) is not None for package in ("envpool", "rl_games")):
        for name, environment in {"rl_games": "Ant", "rl_games, 27 entries": "Ant without contact forces"}.items():
            for label, compiled in {name: False, f"{name}, compiled": True}.items():
                makers[label] = partial(RLGames, environment, size, seconds, compiled, label)
    return makers


def comparisons(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns for each measurement of somebody else which one of ours is divided by it."""
    others = [name for name in names if not name.startswith("ours")]
    return {
        f"{other} {what}": (f"{COMPARED_WITH.get(other, names[0])} {what}", f"{other} {what}")
        for other in others
        for what in WHAT
    }


def main(args: Sequence[str] | None = None) -> None:
    options = parse(args)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}. Install with: pip install -r {REQUIREMENTS}")
    if {"stable_baselines3", "envpool"} <= set(missing):
        raise SystemExit("There is nobody to compare with.")
    hidden = tuple(options.hidden)
    size = Size(options.samplers, options.rollout_rows, options.mini_batch_rows, options.passes, hidden)
    result = record("peers", args, {"rounds": options.rounds, "seconds": options.seconds})
    for task in options.tasks:
        everybody = contestants(task, size, options.seconds)
        makers = {name: make for name, make in everybody.items() if name.startswith(tuple(options.who))}
        if not makers:
            raise SystemExit(f"Nobody is called {' or '.join(options.who)}; there are: {'; '.join(everybody)}.")
        with ExitStack() as stack:
            players = [stack.enter_context(closing(OwnProcess(make))) for make in makers.values()]
            series = interleave(players, options.rounds)
        row = {
            "task": task,
            "num_samplers": size.num_samplers,
            "num_steps": size.num_steps,
            "num_mini_batch": size.num_mini_batch,
            "passes": size.passes,
            "hidden": list(hidden),
            "steps_per_second": series,
            "ratios": paired_ratios(
                series,
                {name: pair for name, pair in comparisons(list(everybody)).items() if set(pair) <= series.keys()},
            ),
        }
        result["rows"].append(row)
        write_result(result, options.results, options.name)
        print_row(f"{task}; ratio: ours / this one", series, row["ratios"])


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=GYMNASIUM, default=["Ant"])
    parser.add_argument("--who", nargs="+", default=[""], help="beginnings of the names of the contestants; all")
    parser.add_argument("--samplers", type=int, default=8, help="number of samplers, N")
    parser.add_argument("--rollout_rows", type=int, default=16384, help="environment steps of a rollout, T * N")
    parser.add_argument("--mini_batch_rows", type=int, default=4096, help="environment steps of a mini-batch")
    parser.add_argument("--passes", type=int, default=10, help="over each rollout")
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 32], help="sizes of the hidden layers")
    add_common_arguments(parser, seconds=1.0)
    return parser.parse_args(args)


if __name__ == "__main__":
    main()
