"""Imitation of an expert that an expert sensor has asked: cross entropy."""

from __future__ import annotations

from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import (
    AbstractActorCriticLoss,
    LossResult,
    align,
    detached,
    warn_of_unknown,
)
from allenact.base_abstractions.distributions import (
    CategoricalDistr,
    ConditionalDistr,
    Distr,
    SequentialDistr,
)
from allenact.base_abstractions.expert_sensors import AbstractExpertSensor
from allenact.base_abstractions.misc import ActorCriticOutput, ObservationType
from allenact.errors import ExperimentConfigError
from allenact.utils.spaces_utils import unflatten


class Imitation(AbstractActorCriticLoss):
    """Cross entropy between the expert and the policy, over the steps where the expert knew what to do.

    Reads the observation `expert_action` if there is one, else `expert_policy`.

    Args:
        expert_sensor: the sensor behind `expert_action`; needed if it asks for groups of actions separately.
        args: reported, then ignored.
        kwargs: reported, then ignored.
    """

    def __init__(self, expert_sensor: AbstractExpertSensor | None = None, *args: Any, **kwargs: Any) -> None:
        warn_of_unknown(self, args, kwargs)
        self.expert_sensor = expert_sensor

    def loss(
        self,
        step_count: int,
        batch: ObservationType,
        actor_critic_output: ActorCriticOutput[Any],
        *args: Any,
        **kwargs: Any,
    ) -> LossResult:
        """Computes the loss; see `AbstractActorCriticLoss.loss`.

        Returns:
            The loss, 0 if the expert knew nothing; `expert_cross_entropy`, and `<group>_cross_entropy` of each
            group, where the expert knew something.

        Raises:
            NotImplementedError: there is no such observation, or the distribution is of another kind.
        """
        observations: Any = batch["observations"]
        distributions = actor_critic_output.distributions
        if "expert_action" in observations:
            if self.expert_sensor is not None and self.expert_sensor.use_groups:
                return _imitate_groups(self.expert_sensor, observations["expert_action"], distributions)
            expert = observations["expert_action"]  # [T, n, 2]
            terms = [("", _imitate_action(distributions, expert[..., 0], expert[..., 1]), expert[..., 1])]
        elif "expert_policy" in observations:
            expert = observations["expert_policy"]  # [T, n, K + 1]
            terms = [("", _imitate_policy(distributions, expert[..., :-1], expert[..., -1]), expert[..., -1])]
        else:
            raise NotImplementedError(
                "Imitation needs an observation called expert_action or expert_policy, "
                f"but there are only {sorted(observations)}"
            )
        return _total(terms)


def _imitate_groups(sensor: AbstractExpertSensor, expert_action: torch.Tensor, distributions: Any) -> LossResult:
    """Imitates each group of actions, given that the earlier groups are chosen by the expert."""
    if not isinstance(distributions, SequentialDistr):
        raise NotImplementedError(f"groups of actions need a SequentialDistr, not a {type(distributions).__name__}")
    expert = unflatten(sensor.observation_space, expert_action)
    names = [group.action_group_name for group in distributions.conditional_distrs]
    if set(names) != set(expert):
        raise ExperimentConfigError(
            "the groups of actions of the policy are not those of the expert sensor.",
            given=f"policy {names}, expert sensor {list(expert)}",
            do="use the same action space for the model and for the expert sensor.",
        )
    terms = []

    def follow_expert(group: ConditionalDistr) -> torch.Tensor:
        name = group.action_group_name
        action = expert[name][sensor.ACTION_POLICY_LABEL]
        success = expert[name][sensor.EXPERT_SUCCESS_LABEL]
        terms.append((name, _imitate_action(group, action, success), success))
        return _where_known(action, success)

    distributions.choose(follow_expert)
    return _total(terms)


def _total(terms: list[tuple[str, torch.Tensor, torch.Tensor]]) -> LossResult:
    """Sums the losses of (group, loss, success) and reports those where the expert knew something."""
    total = torch.stack([loss for _, loss, _ in terms]).sum()
    known = [(name, loss) for name, loss, success in terms if bool(success.any())]
    info = {f"{name}_cross_entropy": loss for name, loss in known if name}
    if known:
        info["expert_cross_entropy"] = total
    return total, detached(info)


def _imitate_action(distribution: Distr, action: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(expert's action) over the steps with success; actions and success are [T, n]."""
    _require_categorical(distribution)
    log_probs = distribution.log_prob(_where_known(action, success))  # [T, n]
    # Not a product: where the expert knew nothing, the log-probability of action 0 may be -inf.
    known = torch.where(success.bool(), log_probs, 0.0)  # [T, n]
    return -known.sum() / success.sum().clamp(min=1)


def _imitate_policy(distribution: Distr, policy: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the steps with success; `policy` [T, n, K] holds probabilities."""
    categorical = _require_categorical(distribution)
    weights = policy * align(success, policy)  # [T, n, K]
    terms = torch.where(weights > 0, weights * categorical.log_probs_tensor, 0.0)  # [T, n, K]
    return -terms.sum() / success.sum().clamp(min=1)


def _where_known(action: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """Replaces what the expert says when it knows nothing, often -1, by a valid action."""
    return torch.where(success.bool(), action, 0)


def _require_categorical(distribution: Distr) -> CategoricalDistr:
    inner = distribution.distr if isinstance(distribution, ConditionalDistr) else distribution
    if not isinstance(inner, CategoricalDistr):
        raise NotImplementedError(f"Imitation is implemented for categorical policies, not for {type(inner).__name__}")
    return inner
