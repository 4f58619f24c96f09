"""The Ant tutorial without validation, to see what validation costs."""

from __future__ import annotations

from typing import Any

from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig


class UnvalidatedAnt(GymMuJoCoTutorialExperimentConfig):
    """Checkpoints are saved as in the tutorial, but nobody plays with them."""

    @classmethod
    def tag(cls) -> str:
        """Returns the name of the folders."""
        return "UnvalidatedAnt"

    def machine_params(self, mode: str = "train", **kwargs: Any) -> dict[str, Any]:
        """Returns the tutorial's, without a process for validation."""
        params = super().machine_params(mode, **kwargs)
        return {**params, "nprocesses": 0} if mode == "valid" else params
