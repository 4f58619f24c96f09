"""rl_games' PPO on EnvPool's Ant, with the settings that rl_games has for it."""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import Any

from allenact.utils.cores import usable_cores
from benchmarks.common import Measurement, Turn
from benchmarks.plain_ppo import ENVIRONMENTS
from benchmarks.workloads import Size

WARM_UP = 2  # epochs; torch.compile does its work in the first one


class RLGames:
    """rl_games' agent, let go for some of its own epochs in each turn.

    Neither its TensorBoard scalars nor its checkpoints, which it writes between epochs, are part of a turn.

    Args:
        task: a MuJoCo task of `ENVIRONMENTS`.
        size: of the rollout, its mini-batches and the model.
        seconds: least length of a turn; a turn ends after an epoch.
        compiled: its model goes through `torch.compile`, as it does by default in rl_games' own runner.
        name: prefix of what is measured.
    """

    def __init__(self, task: str, size: Size, seconds: float, compiled: bool, name: str) -> None:
        import torch
        from rl_games.torch_runner import Runner

        self.seconds, self.name = seconds, name
        self.rows = size.num_steps * size.num_samplers
        self.folder = tempfile.TemporaryDirectory()  # it makes folders even where nothing is written
        with contextlib.redirect_stdout(io.StringIO()):
            runner = Runner()  # it also chooses the number of torch's threads
            runner.load({"params": parameters(task, size, self.folder.name)})
            self.agent: Any = runner.algo_factory.create(runner.algo_name, base_name="run", params=runner.params)
            if compiled:
                self.agent.model = torch.compile(self.agent.model, mode="default")
            self.agent.init_tensors()
            self.agent.obs = self.agent.env_reset()
            for _ in range(WARM_UP):
                self.epoch()

    def __call__(self) -> Measurement:
        """Returns environment steps per second, of collecting alone and of the whole loop."""
        turn, count, collecting = Turn(self.seconds), 0, 0.0
        while turn.goes_on():
            collecting += self.epoch()
            count += self.rows
        return {f"{self.name} collect": count / collecting, f"{self.name} whole": turn.rate(count)}

    def epoch(self) -> float:
        """Collects a rollout and learns from it; returns the seconds of collecting, which include its advantages."""
        self.agent.update_epoch()
        _, collecting, *_ = self.agent.train_epoch()
        self.agent.dataset.update_values_dict(None)
        return float(collecting)

    def close(self) -> None:
        """Ends EnvPool's threads and removes the folders."""
        self.agent.vec_env.env.close()
        self.agent.writer.close()
        self.folder.cleanup()


def parameters(task: str, size: Size, folder: str) -> dict[str, Any]:
    """Returns rl_games' configuration for Ant, with other sizes and on the CPU.

    With 64 samplers, 64 steps, mini-batches of 2048 rows, 4 passes and layers of 256, 128 and 64 it is the one that
    rl_games comes with; mixed precision, which that one switches on, is for GPUs.
    """
    env_id, options = ENVIRONMENTS[task]
    environment = {"env_name": env_id, "env_type": "gymnasium", "num_threads": usable_cores(), "seed": 0, **options}
    return {
        "seed": 5,
        "algo": {"name": "a2c_continuous"},
        "model": {"name": "continuous_a2c_logstd"},
        "network": {
            "name": "actor_critic",
            "separate": False,  # one torso for policy and value
            "space": {
                "continuous": {
                    "mu_activation": "None",
                    "sigma_activation": "None",
                    "mu_init": {"name": "default"},
                    "sigma_init": {"name": "const_initializer", "val": 0},
                    "fixed_sigma": True,  # a parameter that does not depend on the observation
                }
            },
            "mlp": {
                "units": list(size.hidden or (256, 128, 64)),
                "activation": "elu",
                "initializer": {"name": "default"},
            },
        },
        "config": {
            "name": "peer",
            "env_name": "envpool",
            "env_config": environment,
            "train_dir": folder,
            "device": "cpu",
            "mixed_precision": False,
            "num_actors": size.num_samplers,
            "horizon_length": size.num_steps,
            "minibatch_size": size.num_steps * size.num_samplers // size.num_mini_batch,
            "mini_epochs": size.passes,
            "normalize_input": True,
            "normalize_value": True,
            "normalize_advantage": True,
            "value_bootstrap": True,
            "reward_shaper": {"scale_value": 1},
            "gamma": 0.99,
            "tau": 0.95,  # lambda of the advantage estimates
            "learning_rate": 3e-4,
            "lr_schedule": "adaptive",
            "kl_threshold": 0.008,
            "truncate_grads": True,
            "grad_norm": 1.0,
            "e_clip": 0.2,
            "clip_value": True,
            "use_smooth_clamp": True,
            "critic_coef": 2,
            "entropy_coef": 0.0,
            "bound_loss_type": "regularisation",
            "bounds_loss_coef": 0.0,
        },
    }
