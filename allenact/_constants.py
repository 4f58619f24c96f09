"""Where this package is installed."""

from __future__ import annotations

import os

ALLENACT_INSTALL_DIR = os.path.dirname(os.path.abspath(__file__))
