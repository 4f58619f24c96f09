"""Experiments: tutorials to read and baselines to run."""
