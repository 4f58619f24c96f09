"""Lets experiment files say `import gym` or `import gym_minigrid`: the successors answer to the old names.

`gym` and `gym_minigrid` do not run with a current NumPy; their successors are `gymnasium` and `minigrid`.
After `import allenact`, importing an old name gives a module of that name with the successor's objects, so
`gym.spaces.Discrete is gymnasium.spaces.Discrete`. An installed original wins.

The environment classes of `gym_minigrid` also keep the calls of their time, because the files that import them use
these; see `legacy_minigrid`. So do the generators of `gym.utils.seeding`; see `legacy_seeding`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old top-level package -> its successor, and the command that installs the successor.
_SUCCESSORS = {
    "gym": ("gymnasium", "pip install gymnasium"),
    "gym_minigrid": ("minigrid", 'pip install "allenact-gym[minigrid]"'),
}

# Submodules that the successor has split or renamed: old name -> modules that together hold its contents.
# Those of `gym` kept their names. `gym_minigrid.wrappers` is left out: today's wrappers make new-style calls.
_MOVED = {
    "gym_minigrid.minigrid": (
        "minigrid.core.constants",
        "minigrid.core.actions",
        "minigrid.core.world_object",
        "minigrid.core.grid",
        "minigrid.minigrid_env",
    ),
    "gym_minigrid.envs": ("minigrid.envs",),
    "gym_minigrid.register": ("gymnasium.envs.registration",),
    "gym_minigrid.roomgrid": ("minigrid.core.roomgrid",),
    "gym_minigrid.rendering": ("minigrid.utils.rendering",),
}


def install_legacy_aliases() -> None:
    """Makes `gym` and `gym_minigrid` importable as described above; calling it again changes nothing.

    Raises:
        ImportError: not here, but where an old name is imported whose successor is not installed.
    """
    if not any(isinstance(finder, _LegacyFinder) for finder in sys.meta_path):
        sys.meta_path.append(_LegacyFinder())  # last, so that an installed original is found first


class _LegacyFinder(MetaPathFinder):
    """Finds the old names that nothing else finds."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns how to load `fullname`, None if it is not one of the old names or has no successor."""
        root, _, rest = fullname.partition(".")
        if root not in _SUCCESSORS:
            return None
        if not rest:
            return ModuleSpec(fullname, _AliasLoader(), is_package=True)
        if not isinstance(sys.modules.get(root), _AliasModule):
            return None  # the original is installed and lacks this submodule: that is its answer
        if not _module_sources(fullname):
            return None
        return ModuleSpec(fullname, _AliasLoader(), is_package=True)


class _AliasModule(ModuleType):
    """A module under an old name, filled from its successors; what is not there yet is looked up there."""

    sources: Sequence[ModuleType] = ()

    def __getattr__(self, name: str) -> Any:
        if self.__name__ == "gym_minigrid.envs":
            from allenact.utils.legacy_minigrid import old_style_env

            old_env = old_style_env(name)
            if old_env is not None:
                setattr(self, name, old_env)
                return old_env
        for source in self.sources:
            if hasattr(source, name):
                value = getattr(source, name)
                is_submodule = isinstance(value, ModuleType) and value.__name__ == f"{source.__name__}.{name}"
                return importlib.import_module(f"{self.__name__}.{name}") if is_submodule else value
        raise AttributeError(f"module {self.__name__!r}, an alias of its successor, has no {name!r}")


class _AliasLoader(Loader):
    """Fills an alias module."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns an empty module; its search path is empty too: every submodule comes through the finder."""
        return _AliasModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Imports the successors and copies their public names."""
        name = module.__name__
        if name in _SUCCESSORS:
            _check_successor_and_announce(name)
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which greets
        sources = [importlib.import_module(source) for source in _module_sources(name)]
        assert isinstance(module, _AliasModule)
        module.sources = sources
        if name == "gym_minigrid.envs":
            return  # each class is made when it is asked for
        for source in sources:
            for key, value in vars(source).items():
                if key == "__all__" or not (key.startswith("_") or isinstance(value, ModuleType)):
                    setattr(module, key, value)
        for key, value in _old_contents(name).items():
            setattr(module, key, value)


def _old_contents(name: str) -> dict[str, Any]:
    """Returns what the old module `name` had and its successors lack, or do otherwise."""
    if name == "gym.logger":
        return {"set_level": _set_log_level, "DEBUG": 10, "INFO": 20, "DISABLED": 50}
    if name == "gym.utils.seeding":
        from allenact.utils.legacy_seeding import np_random

        return {"np_random": np_random}
    if name == "gym_minigrid.minigrid":
        from allenact.utils.legacy_minigrid import old_style_base

        return {"MiniGridEnv": old_style_base()}
    return {}


def _set_log_level(level: int) -> None:
    """Has gymnasium warn of nothing that is less important than `level`: 30 are warnings, 40 errors."""
    import gymnasium.logger

    gymnasium.logger.min_level = level


def _module_sources(name: str) -> tuple[str, ...]:
    """Returns the modules that hold what the old module `name` held, () if there are none."""
    if name in _MOVED:
        return _MOVED[name]
    root, _, rest = name.partition(".")
    successor = _SUCCESSORS[root][0]
    if not rest:
        return (successor,)
    if root != "gym":
        return ()
    try:
        found = importlib.util.find_spec(f"{successor}.{rest}") is not None
    except ModuleNotFoundError:
        found = False
    return (f"{successor}.{rest}",) if found else ()


def _check_successor_and_announce(name: str) -> None:
    """Raises ImportError if the successor of `name` is missing; else says once that it stands in."""
    successor, install_command = _SUCCESSORS[name]
    if importlib.util.find_spec(successor) is None:
        raise ModuleNotFoundError(
            f'"{name}" is not installed, and neither is its maintained successor "{successor}".\n'
            f"  do:    {install_command}",
            name=name,
        )
    import multiprocessing

    if multiprocessing.parent_process() is None:  # sampler and worker processes need not repeat it
        from allenact.utils.system import get_logger

        get_logger().info(f'"{name}" is not installed: its successor "{successor}" answers to that name.')
