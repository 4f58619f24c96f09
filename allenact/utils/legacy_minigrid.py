"""The environment classes of `gym_minigrid`, made of those of `minigrid`: constructors and calls of their time.

`reset()` returns the observation, `step()` four values, `seed(n)` seeds the next reset, `render(mode)` has a mode, and
`np_random` the methods of NumPy's `RandomState`.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any

from allenact.utils.legacy_seeding import OldStyleGenerator

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


def old_style_env(name: str) -> type | None:
    """Returns the class `name` of `gym_minigrid.envs`; None if there is none."""
    from minigrid import envs
    from minigrid.minigrid_env import MiniGridEnv

    base_name, fixed = _FIXED_SIZE_ENVS.get(name, (name, {}))
    base = getattr(envs, base_name, None)
    if not (isinstance(base, type) and issubclass(base, MiniGridEnv)):
        return None

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, *args, **{**fixed, **kwargs})

    return _with_old_calls(name, "gym_minigrid.envs", base, construct)


@functools.cache
def old_style_base() -> type:
    """Returns `gym_minigrid.minigrid.MiniGridEnv`, of which people derive environments of their own.

    Its constructor takes no space of missions, and makes a first grid.
    """
    from minigrid.core.actions import Actions
    from minigrid.core.mission import MissionSpace
    from minigrid.minigrid_env import MiniGridEnv

    def construct(
        self: Any,
        grid_size: int | None = None,
        width: int | None = None,
        height: int | None = None,
        max_steps: int = 100,
        see_through_walls: bool = False,
        **kwargs: Any,
    ) -> None:
        MiniGridEnv.__init__(
            self, MissionSpace(_no_mission), grid_size, width, height, max_steps, see_through_walls, **kwargs
        )
        self.reset()

    class AnyMiniGridEnv(abc.ABCMeta):
        """Of the class that is returned: people ask whether environments are of it, which are no subclasses."""

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, MiniGridEnv) if cls is env_class else super().__subclasscheck__(other)

    env_class = _with_old_calls("MiniGridEnv", "gym_minigrid.minigrid", MiniGridEnv, construct, AnyMiniGridEnv)
    env_class.Actions = Actions  # type: ignore[attr-defined]  # a class inside MiniGridEnv, then
    return env_class


def _no_mission() -> str:
    """The mission until the environment has made its first grid, and has said what it is."""
    return ""


def _with_old_calls(
    name: str, module: str, base: Any, construct: Callable[..., None], metaclass: type[type] = type
) -> type:
    """Returns a subclass of a MiniGrid environment with the calls of gym's time.

    Args:
        name: of the class.
        module: where it is found.
        base: the environment.
        construct: called with the object and the arguments of the constructor, without the seed.
        metaclass: of the class.
    """

    def __init__(self: Any, *args: Any, seed: int | None = None, **kwargs: Any) -> None:  # noqa: N807
        self._seed_of_next_reset = seed
        construct(self, *args, **kwargs)

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

    def render(self: Any, mode: str = "human", highlight: bool = True, tile_size: int = 32, **kwargs: Any) -> Any:
        return base.render(self) if mode == "human" else self.get_frame(highlight, tile_size)

    def np_random(self: Any) -> OldStyleGenerator:
        return OldStyleGenerator(base.np_random.fget(self).bit_generator)

    members: dict[str, Any] = {"__init__": __init__, "seed": seed, "reset": reset, "step": step, "render": render}
    members["np_random"] = property(np_random, base.np_random.fset)
    return metaclass(name, (base,), {**members, "__module__": module, "__doc__": base.__doc__})
