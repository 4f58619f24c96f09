"""Toy tasks that are learned in seconds, and checks that a task, sampler, sensor or storage keeps its contract."""
