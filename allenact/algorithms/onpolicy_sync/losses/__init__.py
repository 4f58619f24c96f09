"""Losses computed on rollouts."""

from allenact.algorithms.onpolicy_sync.losses.a2cacktr import A2C, A2CACKTR, ACKTR
from allenact.algorithms.onpolicy_sync.losses.ppo import PPO

__all__ = ["A2C", "A2CACKTR", "ACKTR", "PPO"]
