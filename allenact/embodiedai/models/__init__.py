"""Models for embodied agents."""
