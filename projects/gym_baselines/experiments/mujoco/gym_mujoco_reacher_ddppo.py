"""The PPO recipe on Reacher-v2."""

from __future__ import annotations

from gymnasium.spaces import Box

from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from projects.gym_baselines.experiments.gym_mujoco_ddppo import GymMuJoCoPPOConfig


class GymMuJoCoReacherConfig(GymMuJoCoPPOConfig):
    """An arm with two joints that brings its fingertip to a target."""

    ENV_NAME = "Reacher-v2"
    SENSORS = [GymMuJoCoSensor(ENV_NAME, uuid="gym_mujoco_data")]
    ACTION_SPACE = Box(-1.0, 1.0, (2,))
