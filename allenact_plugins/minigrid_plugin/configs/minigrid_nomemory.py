"""The experiment of `projects/tutorials/minigrid_tutorial.py`, with a model that remembers nothing."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Discrete
from torch import nn

from allenact.base_abstractions.sensor import SensorSuite
from allenact_plugins.minigrid_plugin.minigrid_models import MiniGridSimpleConv
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask
from projects.tutorials.minigrid_tutorial import MiniGridTutorialExperimentConfig


class MiniGridNoMemoryExperimentConfig(MiniGridTutorialExperimentConfig):
    """The tutorial's recipe with `MiniGridSimpleConv`; arguments as there."""

    @classmethod
    def tag(cls) -> str:
        """Returns the name of the folders of a run."""
        return "MiniGridNoMemory"

    @classmethod
    def create_model(cls, **kwargs: Any) -> nn.Module:
        """Returns embeddings, a linear actor and a linear critic."""
        view = cls.SENSORS[0]
        return MiniGridSimpleConv(
            action_space=Discrete(len(MiniGridTask.class_action_names())),
            observation_space=SensorSuite(cls.SENSORS).observation_spaces,
            num_objects=view.num_objects,
            num_colors=view.num_colors,
            num_states=view.num_states,
        )
