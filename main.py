"""The same as `allenact/main.py`, for people who start experiments with `python main.py`."""

import sys

from allenact.main import main

if __name__ == "__main__":
    sys.exit(main())
