"""BabyAI tasks, with BabyAI's bot as expert, and the sampler that hands them out."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv
from minigrid.utils.baby_ai_bot import BabyAIBot

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.utils.system import get_logger
from allenact_plugins.minigrid_plugin.minigrid_environments import grid_world
from allenact_plugins.minigrid_plugin.seeded_task_sampler import SeededTask, SeededTaskSampler

# Seconds the bot may think: it plans the whole episode at its first step, and sometimes loops for ever.
_FIRST_ADVICE_TIMEOUT_S = 4.0
_ADVICE_TIMEOUT_S = 2.0


class BabyAITask(SeededTask):
    """One BabyAI mission. Actions are MiniGrid's seven.

    Args:
        env: the level, already reset; its own step limit should be above `max_steps`.
        sensors: a suite, or the sensors to make one of.
        task_info: what describes this episode.
        max_steps: environment steps after which the episode is cut; None: the level's own limit.
        **kwargs: ignored.
    """

    def __init__(
        self,
        env: MiniGridEnv,
        sensors: SensorSuite | Sequence[Sensor],
        task_info: dict[str, Any],
        max_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        max_steps = grid_world(env).max_steps if max_steps is None else max_steps
        super().__init__(env=env, sensors=sensors, task_info=task_info, max_steps=max_steps, **kwargs)
        self._minigrid_done = False
        self._was_successful = False
        self._bot: BabyAIBot | None = None
        self._bot_failed = False
        self._advice: int | None = None  # what the bot says about the present state

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """MiniGrid's actions."""
        return gym.spaces.Discrete(len(Actions))

    @classmethod
    def class_action_names(cls, **kwargs: Any) -> tuple[str, ...]:
        """Returns the names of the actions, in the order of their indices."""
        return tuple(action.name for action in Actions)

    def render(self, mode: str = "rgb", *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the whole level as an RGB image [H, W, 3] uint8."""
        return grid_world(self.env).get_frame(*args, **kwargs)

    def get_observations(self, *, minigrid_output_obs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Returns sensor uuid -> observation; sensors may use what the environment's step returned."""
        return super().get_observations(minigrid_output_obs=minigrid_output_obs, **kwargs)

    def _step(self, action: Any) -> RLStepResult:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._minigrid_done = bool(terminated or truncated)
        self._was_successful = bool(self._minigrid_done and float(reward) > 0)
        self._advice = None
        if self._bot is not None and not self._minigrid_done:
            self._ask_bot(action_taken=action, timeout_s=_ADVICE_TIMEOUT_S)  # it has to see every action
        return RLStepResult(
            observation=self.get_observations(minigrid_output_obs=observation),
            reward=float(reward),
            done=self.is_done(),
            info=info,
        )

    def reached_terminal_state(self) -> bool:
        """Whether the level has ended the episode."""
        return self._minigrid_done

    def close(self) -> None:
        """Does nothing: the environment belongs to the sampler."""

    def metrics(self) -> dict[str, Any]:
        """Returns length, reward and `success`, 1 if the mission was accomplished."""
        return {**super().metrics(), "success": int(self._was_successful)}

    def query_expert(self, **kwargs: Any) -> tuple[int, bool]:
        """Returns the bot's advice and True; (-1, False) if the episode is over or the bot has given up on it."""
        if self.is_done() or self._bot_failed:
            return -1, False
        if self._bot is None:
            self._ask_bot(action_taken=None, timeout_s=_FIRST_ADVICE_TIMEOUT_S)
        return (-1, False) if self._advice is None else (self._advice, True)

    def _ask_bot(self, action_taken: int | None, timeout_s: float) -> None:
        """Stores the bot's advice; a bot that fails or takes too long is not asked again in this episode."""
        try:
            with _time_limit(timeout_s):
                if self._bot is None:
                    self._bot = BabyAIBot(grid_world(self.env))
                self._advice = int(self._bot.replan(action_taken))
        except Exception as error:  # the bot gives up with all kinds of errors, most of them assertions
            get_logger().debug(f"BabyAI's bot gave up on {grid_world(self.env).mission!r}: {error!r}")
            self._bot, self._bot_failed, self._advice = None, True, None


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside the block after `seconds`, where the system and the thread allow it."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {seconds} seconds")

    old_handler = signal.signal(signal.SIGALRM, give_up)
    old_timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *old_timer)
        signal.signal(signal.SIGALRM, old_handler)


class BabyAITaskSampler(SeededTaskSampler):
    """Hands out missions of one BabyAI level; `SeededTaskSampler` says which seed each gets.

    Args:
        env_builder: gymnasium id of the level, for example "BabyAI-GoToObj-v0", or a function that makes it.
        sensors: a suite, or the sensors to make one of.
        max_tasks: see `SeededTaskSampler`.
        num_unique_seeds: see `SeededTaskSampler`.
        task_seeds_list: see `SeededTaskSampler`.
        deterministic_sampling: see `SeededTaskSampler`.
        extra_task_kwargs: further keyword arguments of `BabyAITask`.
        seed: see `SeededTaskSampler`.
        **kwargs: reported, then ignored.
    """

    def __init__(
        self,
        env_builder: str | Callable[..., Any],
        sensors: SensorSuite | Sequence[Sensor],
        max_tasks: int | None = None,
        num_unique_seeds: int | None = None,
        task_seeds_list: Sequence[int] | None = None,
        deterministic_sampling: bool = False,
        extra_task_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        made = gym.make(env_builder, disable_env_checker=True) if isinstance(env_builder, str) else env_builder()
        super().__init__(
            env=made.unwrapped,
            max_tasks=max_tasks,
            num_unique_seeds=num_unique_seeds,
            task_seeds_list=task_seeds_list,
            deterministic_sampling=deterministic_sampling,
            seed=seed,
            unknown_arguments=kwargs,
        )
        self.sensors = sensors if isinstance(sensors, SensorSuite) else SensorSuite(sensors)
        self.extra_task_kwargs = extra_task_kwargs or {}
        self._fixed_max_steps = self.env.max_steps if self.env.fixed_max_steps else None

    def _make_task(self, seed: int, repeated: bool) -> BabyAITask:
        with contextlib.redirect_stdout(io.StringIO()):  # levels print a line for each mission they reject
            self.env.reset(seed=seed)
        max_steps = self._fixed_max_steps or self.env.max_steps  # the level decides anew in each reset
        self.env.max_steps = max_steps + 1  # our limit acts first, so that the level only ends what is decided
        return BabyAITask(
            env=self.env, sensors=self.sensors, task_info={}, max_steps=max_steps, **self.extra_task_kwargs
        )
