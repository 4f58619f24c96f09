"""Rollouts in which an expert sometimes acts instead of the agent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from allenact.base_abstractions.distributions import ConditionalDistr, Distr, SequentialDistr
from allenact.base_abstractions.expert_sensors import AbstractExpertSensor, ExpertActionSensor
from allenact.base_abstractions.tracking_info import TrackingInfoType
from allenact.errors import ExperimentConfigError
from allenact.utils import spaces_utils


class TeacherForcingDistr(Distr):
    """A distribution whose samples are replaced by the expert's actions with some probability.

    For each sampler, and each group of a sequential distribution, the expert acts with probability
    `teacher_forcing(approx_steps)` where it knows what to do. Log-probabilities and entropies stay those of
    the agent's own distribution.

    Args:
        distr: the agent's distribution.
        obs: observations; "expert_action" holds what the expert sensor returned, [T, N, flattened size].
        action_space: the model's action space.
        num_active_samplers: weight of the tracked scalars.
        approx_steps: environment steps taken in the current stage.
        teacher_forcing: schedule from steps to a probability.
        tracking_callback: called with `type`, `info` and `n` for each sample; info holds
            "teacher_ratio/enforced" (the probability) and "teacher_ratio/sampled" or
            "teacher_ratio/sampled_<group>" (the fraction of actions replaced).
        always_enforce: let the expert act wherever it knows what to do.

    Raises:
        ExperimentConfigError: there is no expert.
    """

    def __init__(
        self,
        distr: Distr,
        obs: Mapping[str, Any],
        action_space: Any,
        num_active_samplers: int,
        approx_steps: int | None,
        teacher_forcing: Callable[[int], float] | None,
        tracking_callback: Callable[..., None],
        always_enforce: bool = False,
    ) -> None:
        if "expert_action" not in obs:
            raise ExperimentConfigError(
                "an expert is to act, but no sensor says what it would do.",
                f"observations {sorted(obs)}",
                'add an ExpertActionSensor (its uuid is "expert_action") to the sensors of this experiment.',
            )
        self.distr = distr
        self.is_grouped = isinstance(distr, ConditionalDistr | SequentialDistr)
        self.num_active_samplers = num_active_samplers
        self.approx_steps = approx_steps
        self.teacher_forcing = teacher_forcing
        self.tracking_callback = tracking_callback
        self.always_enforce = always_enforce
        expert_space = ExpertActionSensor.flagged_space(action_space, use_dict_as_groups=self.is_grouped)
        self.expert = spaces_utils.unflatten(expert_space, obs["expert_action"])  # leaves [T, N, ...]

    def sample(self, sample_shape: Sequence[int] = ()) -> Any:
        """Returns a sample [T, N, ...], partly the expert's."""
        if sample_shape:
            raise NotImplementedError("teacher forcing knows one expert action, so it draws one sample only")
        probability = 1.0 if self.always_enforce else self.probability()
        info = {"teacher_ratio/enforced": probability}

        def choose_group(group: ConditionalDistr) -> Any:
            name = group.action_group_name
            action, ratio = self._enforce(group.sample()[name], self.expert[name], probability)
            info[f"teacher_ratio/sampled_{name}"] = ratio
            return action

        action: Any
        if isinstance(self.distr, SequentialDistr):
            action = self.distr.choose(choose_group)
        elif isinstance(self.distr, ConditionalDistr):
            action = SequentialDistr(self.distr).choose(choose_group)
        else:
            action, ratio = self._enforce(self.distr.sample(), self.expert, probability)
            info["teacher_ratio/sampled"] = ratio
        self.tracking_callback(type=TrackingInfoType.TEACHER_FORCING, info=info, n=self.num_active_samplers)
        return action

    def probability(self) -> float:
        """Returns the probability with which the expert acts where it can."""
        if self.teacher_forcing is None or self.approx_steps is None:
            raise ValueError("without always_enforce, both teacher_forcing and approx_steps are needed")
        return float(self.teacher_forcing(self.approx_steps))

    @staticmethod
    def _enforce(action: Any, expert: Mapping[str, Any], probability: float) -> tuple[Any, float]:
        """Returns the action with some of its rows replaced by the expert's, and the fraction replaced."""
        success = expert[AbstractExpertSensor.EXPERT_SUCCESS_LABEL].bool()  # [T, N]
        # Drawn where the observations are; 1 always enforces, because draws are below 1.
        enforced = success & (torch.rand(success.shape, device=success.device) < probability)  # [T, N]
        replaced = _replace(action, expert[AbstractExpertSensor.ACTION_POLICY_LABEL], enforced)
        return replaced, enforced.float().mean().item()

    def log_prob(self, actions: Any) -> Any:
        """Returns the log-probability under the agent's own distribution."""
        return self.distr.log_prob(actions)

    def entropy(self) -> Any:
        """Returns the entropy of the agent's own distribution."""
        return self.distr.entropy()

    def conditional_entropy(self) -> Any:
        """Returns the conditional entropy of the agent's own sequential distribution."""
        if not isinstance(self.distr, SequentialDistr):
            raise NotImplementedError(f"{type(self.distr).__name__} has no conditional entropy; use entropy")
        return self.distr.conditional_entropy()


def _replace(action: Any, expert_action: Any, enforced: torch.Tensor) -> Any:
    """Returns `action` with the rows [T, N] in `enforced` taken from `expert_action`, leaf by leaf."""
    if isinstance(action, Mapping):
        return OrderedDict((key, _replace(action[key], expert_action[key], enforced)) for key in action)
    if isinstance(action, tuple):
        return tuple(_replace(a, e, enforced) for a, e in zip(action, expert_action, strict=True))
    mask = enforced.reshape(*enforced.shape, *(1,) * (action.dim() - enforced.dim()))  # [T, N, 1...]
    return torch.where(mask, expert_action.reshape(action.shape).to(action.dtype), action)  # [T, N, ...]


class AddBias(nn.Module):
    """Adds a learned bias to the features of [B, A] or the channels of [B, A, H, W].

    Args:
        bias: [A] initial value.
    """

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self._bias = nn.Parameter(bias.unsqueeze(1), requires_grad=True)  # [A, 1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` plus the bias."""
        if x.dim() not in (2, 4):
            raise ValueError(f"a bias can be added to two or four dimensions, not to {tuple(x.shape)}")
        return x + self._bias.reshape(1, -1, *(1,) * (x.dim() - 2))  # [B, A] or [B, A, H, W]
