"""Tells people which of AllenAct's modules this package does not have, when they import one.

AllenAct also holds robot simulators (THOR, Habitat) and the models and losses that only they use. A bare "no
module named ..." would look like a broken installation, so the names are kept in one table, and importing one
says what exists instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PLUGINS = "the plugins here are gym_plugin (MuJoCo, Box2D, any gymnasium task), minigrid_plugin and babyai_plugin."
_MODELS = "the models here are in allenact.embodiedai.models.basic_models and in the plugins."
_LOSSES = "the losses here are in allenact.algorithms.onpolicy_sync.losses."
_SENSORS = "derive from allenact.base_abstractions.sensor.Sensor, or use the sensors of a plugin."
_PREPROCESSORS = "derive from allenact.base_abstractions.preprocessor.Preprocessor."
_STORAGES = "the storages here are in allenact.algorithms.onpolicy_sync.storage."
_NAVIGATION = "only AllenAct's navigation plugins use it, and they are out of scope, too."

# Module -> what to use instead. The modules in it are out of scope with it.
OUT_OF_SCOPE = {
    "allenact_plugins.clip_plugin": _PLUGINS,
    "allenact_plugins.habitat_plugin": _PLUGINS,
    "allenact_plugins.ithor_plugin": _PLUGINS,
    "allenact_plugins.lighthouse_plugin": _PLUGINS,
    "allenact_plugins.manipulathor_plugin": _PLUGINS,
    "allenact_plugins.navigation_plugin": _PLUGINS,
    "allenact_plugins.robothor_plugin": _PLUGINS,
    "allenact.embodiedai.aux_losses": _LOSSES,
    "allenact.embodiedai.mapping": _NAVIGATION,
    "allenact.embodiedai.models.aux_models": _MODELS,
    "allenact.embodiedai.models.fusion_models": _MODELS,
    "allenact.embodiedai.models.resnet": _MODELS,
    "allenact.embodiedai.models.visual_nav_models": _MODELS,
    "allenact.embodiedai.preprocessors": _PREPROCESSORS,
    "allenact.embodiedai.sensors": _SENSORS,
    "allenact.embodiedai.storage": _STORAGES,
    "allenact.utils.cache_utils": _NAVIGATION,
    "allenact.utils.cacheless_frcnn": _NAVIGATION,
}


class OutOfScopeFinder(MetaPathFinder):
    """Comes last among Python's finders, so a module that does exist is found before it is asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for the modules of the table; knows nothing of any other."""
        if fullname in OUT_OF_SCOPE:
            raise ModuleNotFoundError(
                f'"{fullname}" is out of scope: this is AllenAct\'s core without the robot simulators.\n'
                f"  do:    {OUT_OF_SCOPE[fullname]}",
                name=fullname,
            )
        return None


def install() -> None:
    """Adds the finder, once."""
    if not any(isinstance(finder, OutOfScopeFinder) for finder in sys.meta_path):
        sys.meta_path.append(OutOfScopeFinder())
