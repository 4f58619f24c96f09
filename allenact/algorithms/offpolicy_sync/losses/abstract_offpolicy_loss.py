"""The interface that losses on stored data had before `GenericAbstractLoss`."""

from __future__ import annotations

import abc
from typing import Any, Generic

import torch

from allenact.base_abstractions.misc import Loss, Memory, ModelType, ObservationType

__all__ = ["AbstractOffPolicyLoss", "Memory", "ModelType", "ObservationType"]


class AbstractOffPolicyLoss(Loss, Generic[ModelType]):
    """Kept so that old files import; training takes `GenericAbstractLoss` instead."""

    @abc.abstractmethod
    def loss(
        self, *, step_count: int, model: ModelType, batch: ObservationType, memory: Memory, **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, float], Memory, int]:
        """Returns the loss, numbers to report, the model's memory after the batch, and the batch size."""
