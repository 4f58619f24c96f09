"""Lets old tools install the package; everything is said in pyproject.toml."""

from setuptools import setup

setup()
