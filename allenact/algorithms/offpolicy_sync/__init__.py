"""Interfaces of losses that learn from stored data."""
