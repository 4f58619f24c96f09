"""Imitation of an expert that only says which group of actions to choose from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import (
    AbstractActorCriticLoss,
    LossResult,
    detached,
    warn_of_unknown,
)
from allenact.base_abstractions.misc import ActorCriticOutput, ObservationType
from allenact.errors import ExperimentConfigError


class GroupedActionImitation(AbstractActorCriticLoss):
    """Mean of -log of the probability of all actions in the expert's group.

    The observation `expert_group_action` ([T, n] or [T, n, 1]) is the index of a group; one group more, the last,
    contains all actions.

    Args:
        nactions: number of actions, K.
        action_groups: sets of actions, in which each action occurs once.
        args: reported, then ignored.
        kwargs: reported, then ignored.

    Raises:
        ExperimentConfigError: an action occurs in no group, in several, or does not exist.
    """

    def __init__(self, nactions: int, action_groups: Sequence[Collection[int]], *args: Any, **kwargs: Any) -> None:
        warn_of_unknown(self, args, kwargs)
        if sorted(action for group in action_groups for action in group) != list(range(nactions)):
            raise ExperimentConfigError(
                "the action groups do not contain each action once.",
                given=f"nactions={nactions}, action_groups={[sorted(group) for group in action_groups]}",
                do=f"put each of the actions 0 to {nactions - 1} into one group.",
            )
        self.nactions = nactions
        self.action_groups = action_groups
        groups = [*action_groups, range(nactions)]
        self._members = torch.zeros(len(groups), nactions, dtype=torch.bool)  # [groups, K]
        for index, group in enumerate(groups):
            self._members[index, list(group)] = True

    def loss(
        self,
        step_count: int,
        batch: ObservationType,
        actor_critic_output: ActorCriticOutput[Any],
        *args: Any,
        **kwargs: Any,
    ) -> LossResult:
        """Computes the loss; reports `grouped_action_cross_entropy`. See `AbstractActorCriticLoss.loss`."""
        observations: Any = batch["observations"]
        log_probs = actor_critic_output.distributions.log_probs_tensor  # [T, n, K]
        groups = observations["expert_group_action"].reshape(log_probs.shape[:-1]).long()  # [T, n]
        members = self._members.to(log_probs.device)[groups]  # [T, n, K]
        group_log_probs = log_probs.masked_fill(~members, -torch.inf).logsumexp(dim=-1)  # [T, n]
        loss = -group_log_probs.mean()
        return loss, detached({"grouped_action_cross_entropy": loss})
