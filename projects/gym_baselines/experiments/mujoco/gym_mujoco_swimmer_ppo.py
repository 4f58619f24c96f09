"""The modern PPO recipe on Swimmer-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoSwimmerModernConfig(GymMuJoCoModernPPOConfig):
    """Three links that swim through a viscous fluid."""

    ENV_NAME = "Swimmer-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 2
    TOTAL_STEPS = 3_000_000
    GAMMA = 0.999  # a stroke pays much later than it costs
