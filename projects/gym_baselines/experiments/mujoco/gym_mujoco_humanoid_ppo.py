"""The modern PPO recipe on Humanoid-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoHumanoidModernConfig(GymMuJoCoModernPPOConfig):
    """A human-shaped body that is paid for walking and for not falling."""

    ENV_NAME = "Humanoid-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 17
    TOTAL_STEPS = 20_000_000
