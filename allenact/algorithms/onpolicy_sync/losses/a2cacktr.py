"""Advantage actor-critic (Mnih et al., 2016)."""

from __future__ import annotations

from typing import Any

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import (
    AbstractActorCriticLoss,
    LossResult,
    align,
    detached,
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
    """

    def __init__(
        self,
        value_loss_coef: float,
        entropy_coef: float,
        acktr: bool = False,
        entropy_method_name: str = "entropy",
    ) -> None:
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
            The loss; `a2c_total`, `value`, `action` and `entropy` (with its sign turned), before the
            coefficients.
        """
        advantages: Any = batch["adv_targ"]  # [T, n, 1]
        log_probs = align(actor_critic_output.distributions.log_prob(batch["actions"]), advantages)
        entropy = getattr(actor_critic_output.distributions, self.entropy_method_name)()
        losses = {
            "value": value_loss(batch, actor_critic_output, clip=None),
            "action": -(advantages * log_probs).mean(),
            "entropy": -entropy.mean(),
        }
        total = losses["action"] + self.value_loss_coef * losses["value"] + self.entropy_coef * losses["entropy"]
        return total, detached({self.loss_key: total, **losses})


class A2C(A2CACKTR):
    """Advantage actor-critic; arguments as for `A2CACKTR`."""

    def __init__(self, value_loss_coef: float, entropy_coef: float, entropy_method_name: str = "entropy") -> None:
        super().__init__(value_loss_coef, entropy_coef, False, entropy_method_name)


class ACKTR(A2CACKTR):
    """Kept for old experiment files: the same loss as `A2C`; arguments as for `A2CACKTR`."""

    def __init__(self, value_loss_coef: float, entropy_coef: float, entropy_method_name: str = "entropy") -> None:
        super().__init__(value_loss_coef, entropy_coef, True, entropy_method_name)
