"""Storages of experience: what was seen, done and received, cut into batches for the losses."""

from allenact.algorithms.onpolicy_sync.storage.base import (
    ExperienceStorage,
    MiniBatchStorageMixin,
    RolloutStorage,
    StreamingStorageMixin,
)
from allenact.algorithms.onpolicy_sync.storage.rollout_block import RolloutBlockStorage

__all__ = [
    "ExperienceStorage",
    "MiniBatchStorageMixin",
    "RolloutBlockStorage",
    "RolloutStorage",
    "StreamingStorageMixin",
]
