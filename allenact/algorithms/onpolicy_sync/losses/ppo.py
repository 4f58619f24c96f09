"""Proximal policy optimisation (Schulman et al., 2017) with clipped values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import (
    AbstractActorCriticLoss,
    LossResult,
    LossTerms,
    align,
    detached,
    negative,
    warn_of_unknown,
    weighted_sum,
)
from allenact.base_abstractions.misc import ActorCriticOutput, ObservationType

PPOConfig = {"clip_param": 0.1, "value_loss_coef": 0.5, "entropy_coef": 0.01}


class PPO(AbstractActorCriticLoss):
    """Clipped surrogate for the policy, squared error for the value, and an entropy bonus.

    The ratio of probabilities is taken for each entry of the log-probabilities. A distribution that gives one
    log-probability per dimension of the action (`GaussianDistr`) is therefore clipped dimension by dimension.

    Args:
        clip_param: how far the ratio may leave 1, and the value its old one, before they are clipped.
        value_loss_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        use_clipped_value_loss: whether values are clipped.
        clip_decay: steps taken in the stage -> factor of `clip_param`; default 1.
        entropy_method_name: method of the distribution that returns the entropy; "conditional_entropy" for a
            `SequentialDistr`.
        normalize_advantage: whether to use the advantages normalised over the whole rollout.
        show_ratios: whether to report the ratios, separately for each pass over the rollout.
        args: reported, then ignored.
        kwargs: reported, then ignored.
    """

    def __init__(
        self,
        clip_param: float,
        value_loss_coef: float,
        entropy_coef: float,
        use_clipped_value_loss: bool = True,
        clip_decay: Callable[[int], float] | None = None,
        entropy_method_name: str = "entropy",
        normalize_advantage: bool = True,
        show_ratios: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        warn_of_unknown(self, args, kwargs)
        self.clip_param = clip_param
        self.value_loss_coef = value_loss_coef
        self.entropy_coef = entropy_coef
        self.use_clipped_value_loss = use_clipped_value_loss
        self.clip_decay = clip_decay
        self.entropy_method_name = entropy_method_name
        self.normalize_advantage = normalize_advantage
        self.show_ratios = show_ratios

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
            The loss, and the means of what `loss_per_step` returns, before the coefficients: `ppo_total`, `value`,
            `action` and `entropy` (of which the sign is turned); with `show_ratios` also those of the ratios.
        """
        terms, ratios = self.loss_per_step(step_count, batch, actor_critic_output)
        total, means = weighted_sum(terms)
        info = detached({"ppo_total": total, **means})
        if not self.show_ratios:
            return total, info
        return total, info, detached({name: ratio.mean() for name, ratio in ratios.items()})

    def loss_per_step(
        self, step_count: int, batch: ObservationType, actor_critic_output: ActorCriticOutput[Any]
    ) -> tuple[LossTerms, dict[str, torch.Tensor]]:
        """Returns the loss of each step, for losses that weigh steps differently; arguments as for `loss`.

        Returns:
            `value`, `action` and `entropy` (of which the sign is turned), [T, n, 1 or A], with their coefficients;
            and with `show_ratios`, the `ratio`, the `ratio_clamped`, and the `ratio_used` (the one of the two that
            the surrogate is made of).
        """
        clip = clipping_range(self.clip_param, self.clip_decay, step_count)
        advantages: Any = batch["norm_adv_targ" if self.normalize_advantage else "adv_targ"]  # [T, n, 1]
        # The log-probability comes first: it conditions the groups whose entropy is then asked for.
        log_probs = align(actor_critic_output.distributions.log_prob(batch["actions"]), advantages)
        entropy = align(getattr(actor_critic_output.distributions, self.entropy_method_name)(), advantages)

        ratio = (log_probs - align(_tensor(batch, "old_action_log_probs"), advantages)).exp()  # [T, n, 1 or A]
        clamped = ratio.clamp(1 - clip, 1 + clip)
        surrogate = torch.min(ratio * advantages, clamped * advantages)

        value = value_loss(batch, actor_critic_output, clip if self.use_clipped_value_loss else None)
        terms: LossTerms = {
            "value": (value, self.value_loss_coef),
            "action": (-surrogate, None),
            "entropy": (negative(entropy), self.entropy_coef),
        }
        if not self.show_ratios:
            return terms, {}
        used = torch.where(ratio * advantages <= clamped * advantages, ratio, clamped)
        return terms, {"ratio": ratio, "ratio_clamped": clamped, "ratio_used": used}


class PPOValue(AbstractActorCriticLoss):
    """The value part of `PPO`, not scaled.

    Args:
        clip_param: how far a value may leave its old one before it is clipped.
        use_clipped_value_loss: whether values are clipped.
        clip_decay: steps taken in the stage -> factor of `clip_param`; default 1.
        args: reported, then ignored.
        kwargs: reported, then ignored.
    """

    def __init__(
        self,
        clip_param: float,
        use_clipped_value_loss: bool = True,
        clip_decay: Callable[[int], float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        warn_of_unknown(self, args, kwargs)
        self.clip_param = clip_param
        self.use_clipped_value_loss = use_clipped_value_loss
        self.clip_decay = clip_decay

    def loss(
        self,
        step_count: int,
        batch: ObservationType,
        actor_critic_output: ActorCriticOutput[Any],
        *args: Any,
        **kwargs: Any,
    ) -> LossResult:
        """Computes the loss, and reports it as `value`; see `AbstractActorCriticLoss.loss`."""
        clip = clipping_range(self.clip_param, self.clip_decay, step_count)
        loss = value_loss(batch, actor_critic_output, clip if self.use_clipped_value_loss else None).mean()
        return loss, detached({"value": loss})


def clipping_range(clip_param: float, decay: Callable[[int], float] | None, step_count: int) -> float:
    """Returns the range of clipping after `step_count` environment steps of the stage."""
    return clip_param if decay is None else clip_param * decay(step_count)


def value_loss(batch: ObservationType, output: ActorCriticOutput[Any], clip: float | None) -> torch.Tensor:
    """Half the squared error of the value of each step.

    Errors and clipping range are in units of `output.extras["value_scale"]` where a model gives one: a number, for
    models that predict normalised returns, whose values are nevertheless in units of the reward.

    Args:
        batch: holds `returns`, and the `values` when acting, [T, n, 1].
        output: of the model as it is now, with values [T, n, 1].
        clip: where not None, the error is the larger one of the value and of the value moved to at most this
            far from the old one, so that moving further is not rewarded.

    Returns:
        [T, n, 1].
    """
    values = output.values
    scale = (output.extras or {}).get("value_scale")  # models written for AllenAct may give None
    returns, old_values = _tensor(batch, "returns"), _tensor(batch, "values")
    if scale is not None:
        values, returns, old_values = values / scale, returns / scale, old_values / scale  # [T, n, 1]
    squares = (values - returns).square()  # [T, n, 1]
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        squares = torch.max(squares, (clipped - returns).square())
    return 0.5 * squares  # [T, n, 1]


def _tensor(batch: ObservationType, key: str) -> torch.Tensor:
    """Returns an entry that is never nested."""
    value = batch[key]
    if not isinstance(value, torch.Tensor):
        raise TypeError(f'the entry "{key}" of a batch must be a tensor, not {type(value)}')
    return value
