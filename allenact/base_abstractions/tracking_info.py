"""What the training loop reports about itself, beside the metrics of the tasks."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class TrackingInfoType(enum.Enum):
    """Where a reported number comes from; part of its tag in TensorBoard."""

    LOSS = "loss"
    TEACHER_FORCING = "teacher_forcing"
    UPDATE_INFO = "update_info"


@dataclass(kw_only=True)
class TrackingInfo:
    """Some numbers to average until the next log.

    Attributes:
        type: where they come from.
        info: name -> number.
        n: their weight in the average.
        storage_uuid: the storage whose data they describe, None if there is none.
        stage_component_uuid: the stage component they belong to, None if there is none.
    """

    type: TrackingInfoType
    info: dict[str, Any]
    n: int
    storage_uuid: str | None
    stage_component_uuid: str | None
