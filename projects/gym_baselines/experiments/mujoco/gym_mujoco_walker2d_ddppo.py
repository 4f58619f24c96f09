"""The PPO recipe on Walker2d-v2."""

from __future__ import annotations

from gymnasium.spaces import Box

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymMuJoCoWalker2dConfig(GymMuJoCoPPOConfig):
    """Two legs in a plane that walk forward and must not fall."""

    ENV_NAME = "Walker2d-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    ACTION_SPACE = Box(-1.0, 1.0, (6,))
