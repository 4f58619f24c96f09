"""Environments written for gym before 0.26: `seed(n)`, `reset()` returns the observation, `step()` four values."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator


class OldStyleEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Lets such an environment be called as Gymnasium calls its own.

    Args:
        env: an environment whose class is derived from `gym.Env`, which here is `gymnasium.Env`.
    """

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # a property, as in gymnasium.Wrapper
        """That of the environment, without this wrapper: nobody has asked for it when the environment is made."""
        return self.env.spec

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]  # a property, as in gymnasium.Wrapper
        """The mode "rgb_array" where the environment says that it has it."""
        metadata = self.env.metadata
        return "rgb_array" if "rgb_array" in metadata.get("render.modes", metadata.get("render_modes", ())) else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Seeds the environment if there is a seed, and starts an episode."""
        env: Any = self.env
        if seed is not None and hasattr(env, "seed"):
            env.seed(seed)
        answer = env.reset()
        is_new = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)
        return answer if is_new else (answer, {})

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes one environment step; the episode was cut where `info["TimeLimit.truncated"]` says so."""
        answer: tuple[Any, ...] = self.env.step(action)
        if len(answer) == 5:
            return answer  # it only looked like an old one
        observation, reward, done, info = answer
        truncated = bool(done and info.get("TimeLimit.truncated", False))
        return observation, reward, bool(done and not truncated), truncated, info

    def render(self) -> Any:
        """Returns a picture, [H, W, 3] uint8."""
        env: Any = self.env
        return env.render(mode="rgb_array")


def creator_of(spec: EnvSpec) -> Any:
    """Returns the class, or the function, that makes an environment."""
    return spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))


def with_todays_calls(spec: EnvSpec) -> EnvSpec:
    """Returns `spec` itself, or one that wraps the environment if it turns out to be written for gym."""
    creator = creator_of(spec)
    if isinstance(creator, type) and not _is_old(creator):
        return spec
    spec = copy.copy(spec)
    spec.entry_point = functools.partial(_wrapped, creator)
    return spec


def _is_old(env_class: type) -> bool:
    """Whether `reset` cannot be given a seed: by its parameters or, where it takes any, because there is `seed(n)`."""
    if not hasattr(env_class, "reset"):
        return False
    parameters = inspect.signature(env_class.reset).parameters.values()
    if any(parameter.name == "seed" for parameter in parameters):
        return False
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return not takes_any or hasattr(env_class, "seed")


def _wrapped(creator: Callable[..., gymnasium.Env[Any, Any]], **kwargs: Any) -> gymnasium.Env[Any, Any]:
    env = creator(**kwargs)
    return OldStyleEnv(env) if _is_old(type(env)) else env
