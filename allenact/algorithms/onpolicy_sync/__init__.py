"""On-policy learning: collect a rollout with the current policy, learn from it, forget it."""
