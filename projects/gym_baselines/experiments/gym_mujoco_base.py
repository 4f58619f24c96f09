"""What every MuJoCo baseline shares: the model, the sensor and the machine."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Box
from torch import nn

from allenact.base_abstractions.sensor import SensorSuite
from allenact.utils.viz_utils import AgentViewViz, VizSuite
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from projects.gym_baselines.experiments.gym_base import GymBaseConfig


class GymMuJoCoBaseConfig(GymBaseConfig):
    """Eight samplers on the CPU, two small networks, one vector of numbers to look at.

    Attributes:
        ACTION_SPACE: one entry per motor, with the range the simulator accepts.
    """

    ACTION_SPACE: Box

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        return MemorylessActorCritic(
            input_uuid="gym_mujoco_data",
            action_space=cls.ACTION_SPACE,
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            action_std=0.5,
        )

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        visualizer = None
        if mode == "test":
            visualizer = VizSuite(
                mode="test",
                video=AgentViewViz(
                    label="episode_vid",
                    max_clip_length=400,
                    vector_task_source=("render", {"mode": "rgb_array"}),
                    fps=30,
                ),
            )
        return {"nprocesses": 8 if mode == "train" else 1, "devices": [], "visualizer": visualizer}
