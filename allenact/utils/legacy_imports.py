"""Lets experiment files say `import gym` or `import gym_minigrid`: the successors answer to the old names.

`gym` and `gym_minigrid` do not run with a current NumPy; their successors are `gymnasium` and `minigrid`.
After `import allenact`, importing an old name gives a module of that name with the successor's objects, so
`gym.spaces.Discrete is gymnasium.spaces.Discrete`. An installed original wins.

The environment classes of `gym_minigrid.envs` also keep the calls of their time, because the files that
import them use these: `reset()` returns the observation, `step()` four values, `seed(n)` seeds a reset.
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

# Environment classes that became arguments of another class.
_FIXED_SIZE_ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "EmptyEnv5x5": ("EmptyEnv", {"size": 5}),
    "EmptyEnv6x6": ("EmptyEnv", {"size": 6}),
    "EmptyEnv16x16": ("EmptyEnv", {"size": 16}),
    "EmptyRandomEnv5x5": ("EmptyEnv", {"size": 5, "agent_start_pos": None}),
    "EmptyRandomEnv6x6": ("EmptyEnv", {"size": 6, "agent_start_pos": None}),
    "LavaCrossingEnv": ("CrossingEnv", {"size": 9, "num_crossings": 1, "obstacle_type": "lava"}),
    "LavaCrossingS9N2Env": ("CrossingEnv", {"size": 9, "num_crossings": 2, "obstacle_type": "lava"}),
    "LavaCrossingS9N3Env": ("CrossingEnv", {"size": 9, "num_crossings": 3, "obstacle_type": "lava"}),
    "LavaCrossingS11N5Env": ("CrossingEnv", {"size": 11, "num_crossings": 5, "obstacle_type": "lava"}),
    "SimpleCrossingEnv": ("CrossingEnv", {"size": 9, "num_crossings": 1, "obstacle_type": "wall"}),
    "SimpleCrossingS9N2Env": ("CrossingEnv", {"size": 9, "num_crossings": 2, "obstacle_type": "wall"}),
    "SimpleCrossingS9N3Env": ("CrossingEnv", {"size": 9, "num_crossings": 3, "obstacle_type": "wall"}),
    "SimpleCrossingS11N5Env": ("CrossingEnv", {"size": 11, "num_crossings": 5, "obstacle_type": "wall"}),
    "DoorKeyEnv5x5": ("DoorKeyEnv", {"size": 5}),
    "DoorKeyEnv6x6": ("DoorKeyEnv", {"size": 6}),
    "DoorKeyEnv16x16": ("DoorKeyEnv", {"size": 16}),
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
        if self.__name__ == "gym_minigrid.envs" and (old_env := _old_style_env(name)) is not None:
            setattr(self, name, old_env)
            return old_env
        for source in self.sources:
            if hasattr(source, name):
                return getattr(source, name)
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
                if key == "__all__" or not key.startswith("_"):
                    setattr(module, key, value)
        if name == "gym_minigrid.minigrid" and not hasattr(module.MiniGridEnv, "Actions"):
            module.MiniGridEnv.Actions = module.Actions  # was a class inside MiniGridEnv


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


def _old_style_env(name: str) -> type | None:
    """Returns the class `name` of `gym_minigrid.envs` with the calls of its time; None if there is none."""
    from minigrid import envs
    from minigrid.minigrid_env import MiniGridEnv

    base_name, fixed = _FIXED_SIZE_ENVS.get(name, (name, {}))
    base = getattr(envs, base_name, None)
    if not (isinstance(base, type) and issubclass(base, MiniGridEnv)):
        return None

    def __init__(self: Any, *args: Any, seed: int | None = None, **kwargs: Any) -> None:  # noqa: N807
        base.__init__(self, *args, **{**fixed, **kwargs})
        self._seed_of_next_reset = seed

    def seed(self: Any, seed: int | None = None) -> list[int | None]:
        self._seed_of_next_reset = seed
        return [seed]

    def reset(self: Any, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        seed = self._seed_of_next_reset if seed is None else seed
        self._seed_of_next_reset = None
        observation, _ = base.reset(self, seed=seed, options=options)
        return observation

    def step(self: Any, action: Any) -> tuple[Any, Any, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = base.step(self, action)
        info = {**info, "TimeLimit.truncated": truncated and not terminated}
        return observation, reward, terminated or truncated, info

    methods: dict[str, Any] = {"__init__": __init__, "seed": seed, "reset": reset, "step": step}
    return type(name, (base,), {**methods, "__module__": "gym_minigrid.envs", "__doc__": base.__doc__})
