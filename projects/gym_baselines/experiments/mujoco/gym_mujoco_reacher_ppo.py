"""The modern PPO recipe on Reacher-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoReacherModernConfig(GymMuJoCoModernPPOConfig):
    """An arm with two joints that brings its fingertip to a target."""

    ENV_NAME = "Reacher-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 2
    TOTAL_STEPS = 1_000_000
    KL_TARGET_STEPS = 300_000
