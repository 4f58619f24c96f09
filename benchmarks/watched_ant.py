"""The Ant tutorial with a video of every validation: the most that logging has to do while a policy is trained."""

from __future__ import annotations

from typing import Any

from allenact.utils.viz_utils import AgentViewViz, VizSuite
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig


class WatchedAnt(GymMuJoCoTutorialExperimentConfig):
    """The first 400 frames of each of four episodes, side by side."""

    @classmethod
    def tag(cls) -> str:
        """Returns the name of the folders."""
        return "WatchedAnt"

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        """Returns the tutorial's, with a visualiser for validation."""
        params = super().machine_params(mode, **kwargs)
        video = AgentViewViz(label="episode_vid", max_clip_length=400, max_video_length=400, fps=30)
        return {**params, "visualizer": VizSuite(mode="valid", video=video) if mode == "valid" else None}
