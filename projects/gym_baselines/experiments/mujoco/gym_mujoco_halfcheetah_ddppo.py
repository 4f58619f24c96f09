"""The PPO recipe on HalfCheetah-v2."""

from __future__ import annotations

from gymnasium.spaces import Box

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymMuJoCoHalfCheetahConfig(GymMuJoCoPPOConfig):
    """Half a cheetah in a plane, paid for running; it never falls out of the task."""

    ENV_NAME = "HalfCheetah-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    ACTION_SPACE = Box(-1.0, 1.0, (6,))
