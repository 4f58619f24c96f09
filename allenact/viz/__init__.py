"""Pictures of evaluated episodes: what is recorded while they run, and how it is drawn afterwards."""

from allenact.viz.actor import ActorViz
from allenact.viz.agent_view import AgentViewViz
from allenact.viz.base import AbstractViz
from allenact.viz.multi_trajectory import MultiTrajectoryViz
from allenact.viz.suite import VizSuite
from allenact.viz.tensor import AbstractTensorViz, TensorViz1D, TensorViz2D
from allenact.viz.trajectory import TrajectoryViz

__all__ = [
    "AbstractTensorViz",
    "AbstractViz",
    "ActorViz",
    "AgentViewViz",
    "MultiTrajectoryViz",
    "TensorViz1D",
    "TensorViz2D",
    "TrajectoryViz",
    "VizSuite",
]
