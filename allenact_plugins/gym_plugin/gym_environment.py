"""Any registered Gymnasium environment, behind the calls that AllenAct tasks make."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import (
    ClipAction,
    FlattenObservation,
    OrderEnforcing,
    PassiveEnvChecker,
    RescaleAction,
    TimeLimit,
)

from allenact.errors import (
    ExperimentConfigError,
    MissingExtraError,
    UnknownEnvironmentError,
    UsageError,
    did_you_mean,
)
from allenact.utils.rendering import choose_gl_backend
from allenact.utils.system import get_logger
from allenact_plugins.gym_plugin.drawn_view import DrawnView
from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS
from allenact_plugins.gym_plugin.old_style_env import creator_of, with_todays_calls

RENAMED_IDS = {
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "CarRacing-v0": "CarRacing-v3",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
}
"""Ids that AllenAct experiments use -> what Gymnasium calls the same task today."""

_MODE_ON_DEMAND = ("LunarLander-v3", "LunarLanderContinuous-v3")
"""Tasks that cost several times as much with a render mode, for they then simulate the sparks of their engines, and
that look at the mode only when they step or draw. The motion is the same with and without."""

_STATELESS_WRAPPERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
_TRANSLATING_WRAPPERS = (ClipAction, FlattenObservation, RescaleAction)
"""Wrappers that change actions or observations, and remember nothing."""


class GymEnvironment:
    """A Gymnasium environment that is called as AllenAct tasks always have called it.

    `reset()` returns the observation and `step()` four values, where `done` says that the episode is over for
    whatever reason. Which one is in `terminated` and `truncated`, and in `info["TimeLimit.truncated"]` as in
    gym. What is not defined here (`spec`, `action_space`, attributes of the environment) passes through.

    The environment is reset when its first observation is needed.

    Args:
        gym_env_name: a registered id, or `"module:id"` where importing the module registers it.
        gym_env_kwargs: for `gymnasium.make`, e.g. `max_episode_steps=200` or `contact_forces="zero"`.

    Attributes:
        env: the Gymnasium environment, with its wrappers.
        terminated: whether the last step ended the task.
        truncated: whether the last step reached a limit.
        saved_seed: what the sampler began the current task with.

    Raises:
        UnknownEnvironmentError: no environment has that id.
        MissingExtraError: the environment needs a package that is not installed.
        ExperimentConfigError: the environment does not take these keyword arguments.
    """

    def __init__(self, gym_env_name: str, **gym_env_kwargs: Any) -> None:
        self.env = make_environment(gym_env_name, **gym_env_kwargs)
        self.terminated = False
        self.truncated = False
        self._initial_observation: Any = None
        self._current_observation: Any = None
        self._next_seed: int | None = None
        self.saved_seed: int | None = None
        self._drawn_view: DrawnView | None = None

    @property
    def initial_observation(self) -> Any:
        """The first observation of this episode."""
        if self._initial_observation is None:
            self.reset()
        return self._initial_observation

    @property
    def current_observation(self) -> Any:
        """The latest observation of this episode."""
        if self._current_observation is None:
            self.reset()
        return self._current_observation

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seeds the environment's generator at the next `reset()`."""
        self._next_seed = seed
        return [seed]

    def reset(self, seed: int | None = None, **kwargs: Any) -> Any:
        """Starts a new episode and returns its first observation; without a seed, the generator goes on."""
        seed = self._next_seed if seed is None else seed
        self._next_seed = None
        observation, _ = self.env.reset(seed=seed, **kwargs)
        self._initial_observation = self._current_observation = observation
        self.terminated = self.truncated = False
        return observation

    def step(self, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
        """Takes one environment step; returns observation, reward, done and info."""
        if self._initial_observation is None:
            self.reset()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._current_observation = observation
        self.terminated, self.truncated = bool(terminated), bool(truncated)
        if self.truncated:
            info = {**info, "TimeLimit.truncated": not self.terminated}
        return observation, float(reward), self.terminated or self.truncated, info

    def render(self, mode: str = "rgb_array", without_opengl: bool = False) -> np.ndarray:
        """Returns a picture, [H, W, 3] uint8.

        Args:
            mode: accepted because gym wanted it here.
            without_opengl: where the environment is a MuJoCo task, draw its path and joints instead.

        Raises:
            RenderingUnavailable: it is a MuJoCo task, and MuJoCo cannot draw on this machine.
            UsageError: it offers no pictures.
        """
        if self._initial_observation is None:
            self.reset()
        innermost: Any = self.env.unwrapped
        is_gymnasiums = hasattr(innermost, "mujoco_renderer")  # -v4, -v5: takes the first back end it can import
        if without_opengl and isinstance(innermost, MuJoCoEnv):
            return innermost.render_without_opengl()
        if without_opengl and is_gymnasiums:
            if self._drawn_view is None:
                self._drawn_view = DrawnView(innermost.model, innermost.width, innermost.height)
            return self._drawn_view.draw(innermost.data)
        if is_gymnasiums:
            choose_gl_backend()
        if self.env.render_mode is None and self.env.spec is not None and self.env.spec.id in _MODE_ON_DEMAND:
            innermost.render_mode = "rgb_array"
        picture = self.env.render()
        if not isinstance(picture, np.ndarray):
            raise UsageError(
                f"{self.env.spec.id if self.env.spec else self.env} cannot be drawn as an array.",
                given=f'render_mode="{self.env.render_mode}"',
                do='make it with render_mode="rgb_array" if it offers that.',
            )
        return picture

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return self.env.get_wrapper_attr(name)

    # State, for exact resumption and for batches

    @property
    def mujoco_env(self) -> MuJoCoEnv | None:
        """The environment itself if it is one of ours and no wrapper changes what it does, else None."""
        *wrappers, innermost = self._layers()
        plain = all(type(wrapper) in _STATELESS_WRAPPERS for wrapper in wrappers)
        return innermost if plain and isinstance(innermost, MuJoCoEnv) else None

    def _saveable_env(self) -> Any:
        """Returns the environment itself if it can say and take over its state and no wrapper has more, else None."""
        *wrappers, innermost = self._layers()
        if any(type(wrapper) not in _STATELESS_WRAPPERS + _TRANSLATING_WRAPPERS for wrapper in wrappers):
            return None
        return innermost if hasattr(innermost, "state_dict") and hasattr(innermost, "load_state_dict") else None

    def synchronise(
        self, observation: Any, elapsed_steps: int, terminated: bool = False, truncated: bool = False
    ) -> None:
        """Takes over what happened in the current episode while something else stepped the simulation."""
        self._current_observation = observation
        if self._initial_observation is None:
            self._initial_observation = observation
        self.terminated, self.truncated = terminated, truncated
        for layer in self._layers():
            if isinstance(layer, TimeLimit):
                layer._elapsed_steps = elapsed_steps  # type: ignore[assignment]  # None before the first reset
            elif isinstance(layer, OrderEnforcing):
                layer._has_reset = True

    def state_dict(self) -> dict[str, Any] | None:
        """Returns all that decides the rest of this episode, or None if this environment cannot be saved.

        The MuJoCo -v2 tasks can, and environments that offer the same two methods: `state_dict()`, which returns
        numbers, strings, arrays, and lists and dicts of these, and `load_state_dict(state)`.
        """
        env = self._saveable_env()
        if env is None or self._initial_observation is None:
            return None
        return {
            "env": env.state_dict(),
            "initial_observation": self._initial_observation,
            "current_observation": self._current_observation,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }

    def load_state_dict(self, state: dict[str, Any], elapsed_steps: int) -> None:
        """Restores what `state_dict` returned, in an episode that is `elapsed_steps` steps old."""
        env = self._saveable_env()
        if env is None:
            raise ExperimentConfigError(
                "this environment cannot be restored from a saved state.",
                given=f"{self.env}, without state_dict and load_state_dict",
                do="resume with the environment the state was saved with.",
            )
        env.load_state_dict(state["env"])
        self._initial_observation = state["initial_observation"]
        self.synchronise(state["current_observation"], elapsed_steps, state["terminated"], state["truncated"])

    def _layers(self) -> Iterator[gymnasium.Env[Any, Any]]:
        """From the outermost wrapper to the environment itself."""
        layer = self.env
        while isinstance(layer, gymnasium.Wrapper):
            yield layer
            layer = layer.env
        yield layer


def make_environment(name: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Makes the environment of that id; `GymEnvironment` documents arguments and errors."""
    spec = find_spec(name)
    try:
        kwargs.setdefault("render_mode", _array_render_mode(spec))
        if kwargs["render_mode"] is None:
            del kwargs["render_mode"]
        return gymnasium.make(with_todays_calls(spec), **{"disable_env_checker": True, **kwargs})
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise _missing_package(spec.id, error) from error
    except TypeError as error:
        raise ExperimentConfigError(
            f"{spec.id} does not take these keyword arguments.",
            given=f"gym_env_kwargs={kwargs}",
            do=str(error),
        ) from error


def find_spec(name: str) -> EnvSpec:
    """Returns the registry's entry for an id, which may be one that has been renamed since.

    Raises:
        UnknownEnvironmentError: there is none.
    """
    module, _, env_id = str(name).rpartition(":")
    if env_id in RENAMED_IDS:
        _say_renamed(env_id)
        env_id = RENAMED_IDS[env_id]
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(env_id)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise UnknownEnvironmentError(
            f'no gym environment is called "{name}".',
            given=f'"{name}"; Gymnasium says: {error}',
            do=did_you_mean(env_id, gymnasium.registry) or "import the package that registers it.",
        ) from error


@functools.cache
def _say_renamed(env_id: str) -> None:
    get_logger().info('"%s" is now called "%s"; using that.', env_id, RENAMED_IDS[env_id])


def _array_render_mode(spec: EnvSpec) -> str | None:
    """Returns "rgb_array" if the environment offers it and it costs nothing until something is drawn."""
    if spec.id in _MODE_ON_DEMAND:
        return None
    metadata = getattr(creator_of(spec), "metadata", None)
    modes = (metadata.get("render_modes") or ()) if isinstance(metadata, dict) else ()
    return "rgb_array" if "rgb_array" in modes else None


def _missing_package(env_id: str, error: Exception) -> UsageError:
    ours = env_id.removesuffix("-v3") + "-v2"
    if ours in MUJOCO_TASKS:  # Gymnasium keeps the -v3 ids, but only to say that they are gone
        name = env_id.removesuffix("-v3")
        return UnknownEnvironmentError(
            f"{env_id} needs mujoco-py, which does not run any more.",
            given=f'"{env_id}"',
            do=f'use "{ours}", which is the same task, or Gymnasium\'s "{name}-v5".',
        )
    extra = "box2d" if env_id in RENAMED_IDS.values() else None
    return MissingExtraError(
        f"{env_id} needs a package that is not installed.",
        given=str(error),
        do=f'pip install "allenact-gym[{extra}]", or in a clone of the repository: pip install -e ".[{extra}]"'
        if extra
        else "install what the message above names.",
    )
