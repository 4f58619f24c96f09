"""The modern PPO recipe on Ant-v2."""

from __future__ import annotations

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ppo import GymMuJoCoModernPPOConfig


class GymMuJoCoAntModernConfig(GymMuJoCoModernPPOConfig):
    """A torso on four legs that is paid for moving along x."""

    ENV_NAME = "Ant-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    NUM_ACTIONS = 8
    TOTAL_STEPS = 10_000_000
