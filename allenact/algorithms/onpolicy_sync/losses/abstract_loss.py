"""The interface of losses that are computed from a rollout and what the model says about it now."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from allenact.base_abstractions.misc import ActorCriticOutput, Loss, ObservationType
from allenact.errors import did_you_mean
from allenact.utils.system import warn_once

__all__ = [
    "AbstractActorCriticLoss",
    "LossResult",
    "LossTerms",
    "ObservationType",
    "align",
    "detached",
    "negative",
    "warn_of_unknown",
    "weighted_sum",
]

LossResult = (
    tuple[torch.Tensor, dict[str, torch.Tensor]] | tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]
)
"""(loss, info) or (loss, info, per_epoch_info); tensors without dimensions, read once per update."""

LossTerms = dict[str, tuple[torch.Tensor, float | None]]
"""Name -> loss of each step, [T, n, 1 or A], and its coefficient in the total; None is 1."""


class AbstractActorCriticLoss(Loss):
    """A loss on a rollout. The model runs once per mini-batch for all of these together."""

    @abc.abstractmethod
    def loss(
        self,
        step_count: int,
        batch: ObservationType,
        actor_critic_output: ActorCriticOutput[Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Computes the loss of one mini-batch of n samplers and T steps.

        Args:
            step_count: environment steps taken in the current stage, summed over samplers and workers.
            batch: a dict with

                - `observations`: nested dict, leaves [T, n, O...];
                - `memory`: recurrent state at the start of the rollout, without a step dimension;
                - `actions`, `prev_actions`: as the action space has them, leaves [T, n, ...];
                - `old_action_log_probs`: [T, n, ...] as the distribution gave them when acting;
                - `values`, `returns`, `masks`: [T, n, 1];
                - `adv_targ`, `norm_adv_targ`: [T, n, 1] advantages as they are and normalised over the rollout;
                - `bsize`: T * n.
            actor_critic_output: what the model, as it is now, says about these steps.
            *args: for subclasses.
            **kwargs: for subclasses.

        Returns:
            (loss, info) or (loss, info, per_epoch_info): a tensor without dimensions to minimise; numbers to
            report; and numbers to report for each pass over the rollout separately.
        """


def align(tensor: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """Adds trailing dimensions of 1 until `tensor` has as many as `advantages` ([T, n] -> [T, n, 1])."""
    missing = advantages.dim() - tensor.dim()
    return tensor.reshape(*tensor.shape, *(1,) * missing) if missing > 0 else tensor


def negative(tensor: torch.Tensor) -> torch.Tensor:
    """Returns `-tensor`, expanded where `tensor` is (a constant entropy): made full, it would have another mean."""
    once = tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())
    return (-tensor[once]).expand(tensor.shape)


def weighted_sum(terms: LossTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Returns the total of the terms' means with their coefficients, and the means; all without dimensions."""
    means = {name: term.mean() for name, (term, _) in terms.items()}
    weighted = [means[name] if weight is None else weight * means[name] for name, (_, weight) in terms.items()]
    return sum(weighted[1:], start=weighted[0]), means


def warn_of_unknown(loss: Loss, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Warns of arguments that a loss was given and has no use for: AllenAct's losses ignore them."""
    known = [name for name in inspect.signature(type(loss)).parameters if name not in ("args", "kwargs")]
    for given in (*map(repr, args), *kwargs):
        warn_once(f"{type(loss).__name__} ignores the argument {given}. {did_you_mean(given, known)}".rstrip())


def detached(scalars: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns numbers to report. They stay tensors, since reading one would wait for the GPU."""
    return {name: value.detach() for name, value in scalars.items()}
