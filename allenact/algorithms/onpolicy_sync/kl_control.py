"""How far an update moves the policy, and what follows from it: another learning rate, or no more passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from allenact.errors import ExperimentConfigError
from allenact.pipeline.settings import is_number

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.distributed import WorkerGroup
    from allenact.base_abstractions.misc import ActorCriticOutput
    from allenact.pipeline.settings import TrainingSettings

RATE_FACTOR = 1.5  # the rate changes by this factor once the divergence has left [target / 2, 2 target]
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1e-2  # rule, factor and bounds as in rl_games (`AdaptiveScheduler`)


class KLControl:
    """Watches the KL divergence between the policy that acted and the policy as it is now, during one update.

    With `kl_target` the learning rate is divided by `RATE_FACTOR` where the divergence is above twice the target, and
    multiplied by it where it is below half. The rate lives in the optimiser, and is saved and restored with it. Where
    neither `kl_target` nor `kl_stop` is set, or nothing is learned, nothing is watched and nothing happens.

    Args:
        settings: those of a stage component.
        optimizer: whose learning rate is changed; None where nothing is learned.
        workers: all training workers; each sees the divergence on the rows of all.
        steps: environment steps taken in the stage, from which a schedule of the target follows.

    Raises:
        ExperimentConfigError: the schedule returns no number above 0.

    Attributes:
        target: of this update, in nats; None: the rate is left alone.
        limit: of one mini-batch, in nats; None: no update is ended.
        stopped: whether `kl_stop` has been passed, and the update is to end.
    """

    def __init__(
        self, settings: TrainingSettings, optimizer: torch.optim.Optimizer | None, workers: WorkerGroup, steps: int
    ) -> None:
        self.target = None if optimizer is None else _target(settings.kl_target, steps)
        self.limit = None if optimizer is None else settings.kl_stop
        self.settings = settings
        self.optimizer = optimizer
        self.workers = workers
        self.stopped = False
        self._seen: list[float] = []  # since the rate was last judged

    def look(self, batch: dict[str, Any], output: ActorCriticOutput[Any] | None, rows: int) -> dict[str, Any]:
        """Measures the divergence on one mini-batch, before the step that is made with it.

        Args:
            batch: with `actions` and `old_action_log_probs`.
            output: what the model, as it is now, says about it.
            rows: of this worker.

        Returns:
            What to report: `kl`, the divergence in nats, or nothing if it is not watched.

        Raises:
            ExperimentConfigError: none of the losses has an action of the model's policy to look at.
        """
        if self.target is None and self.limit is None:
            return {}
        if output is None:
            raise ExperimentConfigError(
                "the KL divergence is to be watched where no loss works on the actions of the policy.",
                f"kl_target={self.settings.kl_target}, kl_stop={self.settings.kl_stop}",
                "set them only for the stage component that has a loss such as PPO.",
            )
        share = kl_estimate(output.distributions.log_prob(batch["actions"]), batch["old_action_log_probs"]) * rows
        total, all_rows = self.workers.sum(torch.stack((share.double(), share.new_tensor(rows).double()))).tolist()
        divergence = total / max(all_rows, 1)
        self._seen.append(divergence)
        self.stopped = self.limit is not None and divergence > self.limit
        return {"kl": divergence}

    def judge(self, now: str) -> None:
        """Changes the learning rate if it is judged after every `now` ("mini_batch", "pass", "update")."""
        if self.optimizer is None or self.target is None or now != self.settings.kl_judged or not self._seen:
            return
        divergence = sum(self._seen) / len(self._seen)
        self._seen.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = adapted_rate(float(group["lr"]), divergence, self.target)


def _target(target: float | Callable[[int], float] | None, steps: int) -> float | None:
    """Returns the target after `steps` environment steps."""
    if not callable(target):
        return target
    now = target(steps)
    if not is_number(now) or not now > 0:
        raise ExperimentConfigError(
            "a schedule of kl_target must return numbers above 0.",
            f"{target!r} returned {now!r} at {steps:,} environment steps of the stage",
            "let it end at a small number; kl_target=None leaves the learning rate alone.",
        )
    return float(now)


def adapted_rate(rate: float, divergence: float, target: float) -> float:
    """Returns the learning rate that follows `rate` after an update that moved the policy by `divergence`.

    A rate that begins beyond a bound may come back, but goes no further.
    """
    if divergence > 2 * target:
        return max(rate / RATE_FACTOR, min(rate, LOWEST_RATE))
    if divergence < target / 2:
        return min(rate * RATE_FACTOR, max(rate, HIGHEST_RATE))
    return rate


@torch.no_grad()
def kl_estimate(log_probs: torch.Tensor, old_log_probs: torch.Tensor) -> torch.Tensor:
    """Estimates KL(old || new) from actions of the old policy: the mean of (r - 1) - log r, r = new / old.

    Never negative, and of smaller variance than the mean of -log r (Schulman, 2020,
    http://joschu.net/blog/kl-approx.html, k3).

    Args:
        log_probs: [T, n] or [T, n, ...] as the distribution gives them; those of one action are added up.
        old_log_probs: the same when the actions were chosen.

    Returns:
        A tensor without dimensions, in nats.
    """
    difference = (
        (log_probs - old_log_probs).flatten(2) if log_probs.dim() > 2 else (log_probs - old_log_probs)[..., None]
    )
    log_ratio = difference.sum(-1)  # [T, n]
    return (log_ratio.expm1() - log_ratio).mean()
