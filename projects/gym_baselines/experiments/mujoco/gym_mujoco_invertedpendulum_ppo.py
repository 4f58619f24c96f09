"""The modern PPO recipe on InvertedPendulum-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoInvertedPendulumModernConfig(GymMuJoCoModernPPOConfig):
    """One pole balanced by a cart: the quickest of the nine."""

    ENV_NAME = "InvertedPendulum-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 1
    TOTAL_STEPS = 300_000
    KL_TARGET_STEPS = 300_000
