"""What an experiment file needs to describe its training, under the path that AllenAct gave it.

Nothing inside `allenact` imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from allenact.pipeline.builder import Builder, recursive_update
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.pipeline.schedules import GeometricDecay, LinearDecay, MultiLinearDecay
from allenact.pipeline.settings import TrainingSettings
from allenact.pipeline.stage import (
    EarlyStoppingCriterion,
    NeverEarlyStoppingCriterion,
    PipelineStage,
    StageComponent,
)
from allenact.utils.metrics import LoggingPackage, ScalarMeanTracker
from allenact.utils.seeding import set_deterministic_cudnn, set_seed
from allenact.utils.wandb_checkpoints import download_checkpoint_from_wandb

__all__ = [
    "Builder",
    "EarlyStoppingCriterion",
    "GeometricDecay",
    "LinearDecay",
    "LoggingPackage",
    "MultiLinearDecay",
    "NeverEarlyStoppingCriterion",
    "OffPolicyPipelineComponent",
    "PipelineStage",
    "ScalarMeanTracker",
    "StageComponent",
    "TrainingPipeline",
    "TrainingSettings",
    "download_checkpoint_from_wandb",
    "evenly_distribute_count_into_bins",
    "recursive_update",
    "set_deterministic_cudnn",
    "set_seed",
]


class OffPolicyPipelineComponent(NamedTuple):
    """Kept so that old experiment files import; nothing uses it. See `StageComponent` instead."""

    data_iterator_builder: Callable[..., Any]
    loss_names: Sequence[str]
    updates: int
    loss_weights: Sequence[float] | None = None
    data_iterator_kwargs_generator: Callable[[int, Any, int | None], dict[str, Any]] = (
        lambda cur_worker, rollouts_per_worker, seed: {}
    )


def evenly_distribute_count_into_bins(count: int, nbins: int) -> list[int]:
    """Splits `count` into `nbins` whole numbers that differ by at most one, the larger ones first."""
    return [count // nbins + (index < count % nbins) for index in range(nbins)]
