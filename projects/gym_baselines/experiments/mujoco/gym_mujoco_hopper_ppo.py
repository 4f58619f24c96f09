"""The modern PPO recipe on Hopper-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoHopperModernConfig(GymMuJoCoModernPPOConfig):
    """One leg in a plane that hops forward and must not tip over."""

    ENV_NAME = "Hopper-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 3
    KL_TARGET_STEPS = 300_000
