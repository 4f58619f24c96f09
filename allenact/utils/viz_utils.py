"""The visualisers under the names that experiments import them by; they live in `allenact.viz`."""

from allenact.viz import (
    AbstractTensorViz,
    AbstractViz,
    ActorViz,
    AgentViewViz,
    TensorViz1D,
    TensorViz2D,
    TrajectoryViz,
    VizSuite,
)

__all__ = [
    "AbstractTensorViz",
    "AbstractViz",
    "ActorViz",
    "AgentViewViz",
    "TensorViz1D",
    "TensorViz2D",
    "TrajectoryViz",
    "VizSuite",
]
