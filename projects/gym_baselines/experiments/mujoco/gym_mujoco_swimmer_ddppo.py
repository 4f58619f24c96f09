"""The PPO recipe on Swimmer-v2."""

from __future__ import annotations

from gymnasium.spaces import Box

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymMuJoCoSwimmerConfig(GymMuJoCoPPOConfig):
    """Three links that swim through a viscous fluid."""

    ENV_NAME = "Swimmer-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    ACTION_SPACE = Box(-1.0, 1.0, (2,))
