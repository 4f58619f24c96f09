"""MiniGrid grid worlds for AllenAct: environments, sensors, tasks with a shortest-path expert, models."""

from __future__ import annotations

import importlib.util
import os

from allenact.errors import MissingExtraError

for _package in ("minigrid", "networkx"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(
            "The MiniGrid plugin needs packages that are not installed.",
            given=f'import of "{__name__}", which needs "{_package}"',
            do='pip install "allenact-gym[minigrid]"',
        )

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which greets on stdout
