"""The small types that travel between tasks, models and losses."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch

from allenact.base_abstractions.memory import Memory

if TYPE_CHECKING:
    from allenact.base_abstractions.distributions import Distr
    from allenact.base_abstractions.task import Task

EnvType = TypeVar("EnvType")
SubTaskType = TypeVar("SubTaskType", bound="Task")
DistributionType = TypeVar("DistributionType", bound="Distr")
ModelType = TypeVar("ModelType", bound=torch.nn.Module)
ObservationType = dict[str, torch.Tensor | dict[str, Any]]

__all__ = [
    "ActorCriticOutput",
    "DistributionType",
    "EnvType",
    "GenericAbstractLoss",
    "Loss",
    "LossOutput",
    "Memory",
    "ModelType",
    "ObservationType",
    "RLStepResult",
    "SubTaskType",
]


class RLStepResult(NamedTuple):
    """What one step of a task returned.

    Attributes:
        observation: sensor uuid -> observation after the step.
        reward: a number, or one number for each agent.
        done: whether the episode ended, for whatever reason (`Task.was_truncated` tells which).
        info: anything else, by name.
    """

    observation: Any
    reward: float | list[float] | None
    done: bool | None
    info: dict[str, Any] | None

    def clone(self, new_info: Mapping[str, Any]) -> RLStepResult:
        """Returns a copy with the fields named in `new_info` replaced."""
        return self._replace(**new_info)

    def merge(self, other: RLStepResult) -> RLStepResult:
        """Returns `other`'s fields where they are not None, else ours; the two `info` dicts are united."""
        fields = {name: value for name, value in other._asdict().items() if value is not None}
        if self.info is not None and other.info is not None:
            fields["info"] = {**self.info, **other.info}
        return self._replace(**fields)


class ActorCriticOutput(NamedTuple, Generic[DistributionType]):
    """What an actor-critic answers for T steps of N samplers.

    Attributes:
        distributions: a distribution over actions whose samples are [T, N, ...].
        values: [T, N, 1] the critic's V(s_t).
        extras: whatever else a loss may need, by name; passed on untouched.
    """

    distributions: DistributionType
    values: torch.Tensor
    extras: dict[str, Any]


class Loss(abc.ABC):
    """Base of all losses."""

    @abc.abstractmethod
    def loss(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the loss."""


@dataclass(kw_only=True)
class LossOutput:
    """What a loss that runs the model itself returns.

    Attributes:
        value: 0-dimensional tensor to minimise.
        info: scalars to report, by name.
        per_epoch_info: scalars to report for each pass over the rollout separately.
        batch_memory: memory shared by all losses of one batch; None: the one that the loss was given.
        stream_memory: memory that persists across the batches of one stage component; None: the one that it was given.
        bsize: rows in the batch, the weight of the reported scalars.
    """

    value: torch.Tensor
    info: dict[str, float]
    per_epoch_info: dict[str, float]
    batch_memory: Memory | None
    stream_memory: Memory | None
    bsize: int


class GenericAbstractLoss(Loss):
    """A loss that runs the model itself, on whatever batches its storage produces."""

    @abc.abstractmethod
    def loss(
        self, *, model: torch.nn.Module, batch: ObservationType, batch_memory: Memory, stream_memory: Memory
    ) -> LossOutput:
        """Computes the loss of one batch.

        Args:
            model: the actor-critic.
            batch: what the storage produced.
            batch_memory: new for each batch, shared by all losses of it.
            stream_memory: persists across batches (recurrent states on streamed data); detached after every
                optimiser step, emptied when the stream restarts.
        """
