"""Experiments written to be read from top to bottom; `docs/tutorials` holds the rendered pages."""
