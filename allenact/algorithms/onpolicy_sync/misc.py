"""AllenAct's path of what the training loop reports about itself."""

from __future__ import annotations

from allenact.base_abstractions.tracking_info import TrackingInfo, TrackingInfoType

__all__ = ["TrackingInfo", "TrackingInfoType"]
