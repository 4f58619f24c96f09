"""Where this repository lies on disk."""

import os

ABS_PATH_OF_TOP_LEVEL_DIR = os.path.abspath(os.path.dirname(__file__))
