"""The PPO recipe on Ant-v2."""

from __future__ import annotations

from gymnasium.spaces import Box

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymMuJoCoAntConfig(GymMuJoCoPPOConfig):
    """A torso on four legs that is paid for moving along x."""

    ENV_NAME = "Ant-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    ACTION_SPACE = Box(-3.0, 3.0, (8,))
