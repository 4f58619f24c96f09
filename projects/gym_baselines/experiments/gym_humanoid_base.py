"""What tasks with the humanoid body share."""

from __future__ import annotations

from gymnasium.spaces import Box

from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymHumanoidBaseConfig(GymMuJoCoPPOConfig):
    """Seventeen motors, each limited to 0.4, driven with the shared recipe."""

    ACTION_SPACE = Box(-0.4, 0.4, (17,))
