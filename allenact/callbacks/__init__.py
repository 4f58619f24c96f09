"""Callbacks that come with the package: `--callbacks csv,wandb`."""
