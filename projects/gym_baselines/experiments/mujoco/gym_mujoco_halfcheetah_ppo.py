"""The modern PPO recipe on HalfCheetah-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoHalfCheetahModernConfig(GymMuJoCoModernPPOConfig):
    """Half a cheetah in a plane, paid for running; it never falls out of the task."""

    ENV_NAME = "HalfCheetah-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 6
    TOTAL_STEPS = 10_000_000
