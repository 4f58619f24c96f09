"""The experiments of the gym baselines and what they share."""
