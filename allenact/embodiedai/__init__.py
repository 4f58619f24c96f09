"""Building blocks for embodied agents."""
