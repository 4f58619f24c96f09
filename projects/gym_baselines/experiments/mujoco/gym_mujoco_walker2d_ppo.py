"""The modern PPO recipe on Walker2d-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoWalker2dModernConfig(GymMuJoCoModernPPOConfig):
    """Two legs in a plane that walk forward and must not fall."""

    ENV_NAME = "Walker2d-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 6
