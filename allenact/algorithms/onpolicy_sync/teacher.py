"""Teacher forcing: in some steps of a rollout the expert's action is taken instead of the model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from allenact.base_abstractions.distributions import TeacherForcingDistr

if TYPE_CHECKING:
    import gymnasium as gym

    from allenact.algorithms.onpolicy_sync.tracking import Tracker


class Teacher:
    """Chooses the actions of a rollout, some from the model and some from the `expert_action` sensor.

    Args:
        probability: environment steps taken in the stage -> probability of the expert's action.
        action_space: the model's.
        stage_steps: returns the environment steps that all workers have taken in the stage.
        tracker: gets the share of expert actions.
    """

    def __init__(
        self,
        probability: Callable[[int], float],
        action_space: gym.Space[Any],
        stage_steps: Callable[[], int],
        tracker: Tracker,
    ) -> None:
        self.probability = probability
        self.action_space = action_space
        self.stage_steps = stage_steps
        self.tracker = tracker

    def __call__(self, distributions: Any, observations: dict[str, Any]) -> Any:
        """Returns actions, leaves [1, N, ...]."""
        return TeacherForcingDistr(
            distr=distributions,
            obs=observations,
            action_space=self.action_space,
            num_active_samplers=observations["expert_action"].shape[1],
            approx_steps=self.stage_steps(),
            teacher_forcing=self.probability,
            tracking_callback=self._track,
        ).sample()

    def _track(self, *, info: dict[str, float], n: int, **kwargs: Any) -> None:
        for key, value in info.items():
            self.tracker.add_scalar(f"{self.tracker.mode}-misc/{key}", float(value), n)
