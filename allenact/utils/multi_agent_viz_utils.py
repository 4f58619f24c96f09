"""Visualisers of tasks with several agents, under the name that experiments import; see `allenact.viz`."""

from allenact.viz import MultiTrajectoryViz

__all__ = ["MultiTrajectoryViz"]
