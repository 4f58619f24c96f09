"""Advantage actor-critic (Mnih et al., 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

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
from allenact.algorithms.onpolicy_sync.losses.ppo import value_loss
from allenact.base_abstractions.misc import ActorCriticOutput, ObservationType
from allenact.utils.system import get_logger

A2CConfig = {"value_loss_coef": 0.5, "entropy_coef": 0.01}


class A2CACKTR(AbstractActorCriticLoss):
    """Policy gradient with advantages as they are (not normalised), value loss and entropy bonus.

    Args:
        value_loss_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        acktr: only changes the name of the total that is reported; there is no natural gradient.
        entropy_method_name: method of the distribution that returns the entropy.
        args: reported, then ignored.
        kwargs: reported, then ignored.
    """

    def __init__(
        self,
        value_loss_coef: float,
        entropy_coef: float,
        acktr: bool = False,
        entropy_method_name: str = "entropy",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        warn_of_unknown(self, args, kwargs)
        self.value_loss_coef = value_loss_coef
        self.entropy_coef = entropy_coef
        self.acktr = acktr
        self.entropy_method_name = entropy_method_name
        self.loss_key = "aktr_total" if acktr else "a2c_total"
        if acktr:
            get_logger().warning("ACKTR has no natural gradient here: its loss is that of A2C.")

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
            The loss, and the means of what `loss_per_step` returns, before the coefficients: `a2c_total`, `value`,
            `action` and `entropy` (with its sign turned).
        """
        total, means = weighted_sum(self.loss_per_step(step_count, batch, actor_critic_output))
        return total, detached({self.loss_key: total, **means})

    def loss_per_step(
        self, step_count: int, batch: ObservationType, actor_critic_output: ActorCriticOutput[Any]
    ) -> LossTerms:
        """Returns the loss of each step, for losses that weigh steps differently; arguments as for `loss`.

        Returns:
            `value`, `action` and `entropy` (with its sign turned), [T, n, 1 or A], with their coefficients.
        """
        advantages: Any = batch["adv_targ"]  # [T, n, 1]
        log_probs = align(actor_critic_output.distributions.log_prob(batch["actions"]), advantages)
        entropy = align(getattr(actor_critic_output.distributions, self.entropy_method_name)(), advantages)
        return {
            "value": (value_loss(batch, actor_critic_output, clip=None), self.value_loss_coef),
            "action": (-(advantages * log_probs), None),
            "entropy": (negative(entropy), self.entropy_coef),
        }


class A2C(A2CACKTR):
    """Advantage actor-critic; arguments as for `A2CACKTR`."""

    _acktr: ClassVar[bool] = False

    def __init__(
        self,
        value_loss_coef: float,
        entropy_coef: float,
        entropy_method_name: str = "entropy",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_loss_coef, entropy_coef, self._acktr, entropy_method_name, *args, **kwargs)


class ACKTR(A2C):
    """Kept for old experiment files: the loss of `A2C`, reported under another name."""

    _acktr = True
