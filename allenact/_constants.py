"""Where this package is installed, and the choices that flags and code share. Imports nothing heavy."""

from __future__ import annotations

import os

ALLENACT_INSTALL_DIR = os.path.dirname(os.path.abspath(__file__))

LOG_LEVELS = ("debug", "info", "warning", "error", "none")
"""Levels a user may ask for; "none" silences the logger."""

SAMPLER_BACKENDS = ("auto", "batched", "process", "serial")
"""How task samplers are stepped, see `make_vector_tasks`."""
