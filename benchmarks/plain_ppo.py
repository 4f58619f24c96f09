"""PPO on EnvPool in one short loop with nothing around it: no logs, no checkpoints, one thread of control."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn

from allenact.utils.cores import usable_cores
from benchmarks.common import Measurement, Turn
from benchmarks.workloads import Size

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Ant": ("Ant-v4", {"use_contact_force": True, "post_constraint": True}),
    "Ant without contact forces": ("Ant-v4", {}),
    "LunarLanderContinuous": ("LunarLanderContinuous-v2", {}),
}
GAMMA, GAE_LAMBDA, CLIP, STD = 0.99, 0.95, 0.2, 0.5


class PlainPPO:
    """Collects and updates with the model, rollouts and mini-batches of `size`.

    Args:
        task: a key of `ENVIRONMENTS`.
        size: of the rollout, its mini-batches and the model.
        seconds: least length of a turn; a turn ends after an update.
        name: prefix of what is measured.
    """

    def __init__(self, task: str, size: Size, seconds: float, name: str) -> None:
        import envpool

        env_id, options = ENVIRONMENTS[task]
        n, steps = size.num_samplers, size.num_steps
        self.size, self.seconds, self.name = size, seconds, name
        self.envs = envpool.make(
            env_id, env_type="gymnasium", num_envs=n, num_threads=usable_cores(), seed=0, **options
        )
        observation_size, action_size = self.envs.observation_space.shape[0], self.envs.action_space.shape[0]
        hidden = size.hidden or (64, 32)
        self.actor = nn.Sequential(*_layers(observation_size, *hidden, action_size), nn.Tanh())
        self.critic = nn.Sequential(*_layers(observation_size, *hidden, 1))
        self.parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=3e-4)
        self.threads = torch.get_num_threads()

        self.observations = torch.zeros(steps + 1, n, observation_size)  # [T+1, N, O]
        self.actions = torch.zeros(steps, n, action_size)  # [T, N, A]
        self.log_probs = torch.zeros(steps, n)  # [T, N]
        self.values = torch.zeros(steps + 1, n)  # [T+1, N]
        self.rewards = torch.zeros(steps, n)  # [T, N]
        self.going_on = torch.zeros(steps, n)  # [T, N] 0 where the episode ended
        self.observations[-1] = torch.from_numpy(self.envs.reset()[0])

    def __call__(self) -> Measurement:
        """Returns environment steps per second, of collecting alone and of the whole loop."""
        turn, count, collecting = Turn(self.seconds), 0, 0.0
        while turn.goes_on():
            rollout = Turn(0)
            torch.set_num_threads(1)  # one step is too little work to share
            self.collect()
            torch.set_num_threads(self.threads)
            rows = self.rewards.numel()
            collecting += rows / rollout.rate(rows)
            self.update()
            count += rows
        return {f"{self.name} collect": count / collecting, f"{self.name} whole": turn.rate(count)}

    @torch.no_grad()
    def collect(self) -> None:
        """Fills one rollout."""
        self.observations[0] = self.observations[-1]
        for t in range(len(self.rewards)):
            policy = self.policy(self.observations[t])
            action = policy.sample()  # [N, A]
            self.actions[t], self.log_probs[t] = action, policy.log_prob(action).sum(-1)
            self.values[t] = self.critic(self.observations[t]).squeeze(-1)
            observation, reward, terminated, truncated, _ = self.envs.step(action.numpy().astype(np.float64))
            self.observations[t + 1] = torch.from_numpy(observation)
            self.rewards[t] = torch.from_numpy(reward)
            self.going_on[t] = torch.from_numpy(~(terminated | truncated))
        self.values[-1] = self.critic(self.observations[-1]).squeeze(-1)

    def policy(self, observations: torch.Tensor) -> torch.distributions.Normal:
        """Returns Gaussians over actions."""
        return torch.distributions.Normal(self.actor(observations), STD, validate_args=False)

    def advantages(self) -> torch.Tensor:
        """Returns generalised advantage estimates (Schulman et al., 2016), [T, N]."""
        result = torch.zeros_like(self.rewards)  # [T, N]
        last = torch.zeros_like(self.rewards[0])  # [N]
        for t in reversed(range(len(self.rewards))):
            error = self.rewards[t] + GAMMA * self.going_on[t] * self.values[t + 1] - self.values[t]
            result[t] = last = error + GAMMA * GAE_LAMBDA * self.going_on[t] * last
        return result

    def update(self) -> None:
        """Makes all passes over the rollout, in mini-batches of shuffled rows."""
        advantages = self.advantages()  # [T, N]
        returns = (advantages + self.values[:-1]).flatten()  # [T * N]
        normalised = ((advantages - advantages.mean()) / (advantages.std() + 1e-5)).flatten()  # [T * N]
        observations = self.observations[:-1].flatten(0, 1)  # [T * N, O]
        actions = self.actions.flatten(0, 1)  # [T * N, A]
        log_probs = self.log_probs.flatten()  # [T * N]
        for _ in range(self.size.passes):
            for rows in torch.randperm(len(returns)).chunk(self.size.num_mini_batch):
                ratio = (self.policy(observations[rows]).log_prob(actions[rows]).sum(-1) - log_probs[rows]).exp()
                surrogate = torch.min(ratio * normalised[rows], ratio.clamp(1 - CLIP, 1 + CLIP) * normalised[rows])
                value_loss = (self.critic(observations[rows]).squeeze(-1) - returns[rows]).square().mean()
                self.optimizer.zero_grad()
                (0.5 * value_loss - surrogate.mean()).backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()

    def close(self) -> None:
        """Ends EnvPool's threads."""
        self.envs.close()


def _layers(*sizes: int) -> list[nn.Module]:
    """Returns Linear layers with Tanh between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return layers[:-1]
