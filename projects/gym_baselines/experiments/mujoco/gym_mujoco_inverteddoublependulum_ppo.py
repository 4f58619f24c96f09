"""The modern PPO recipe on InvertedDoublePendulum-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoInvertedDoublePendulumModernConfig(GymMuJoCoModernPPOConfig):
    """Two poles on top of each other, balanced by a cart."""

    ENV_NAME = "InvertedDoublePendulum-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 1
    TOTAL_STEPS = 1_000_000
    KL_TARGET_STEPS = 300_000
