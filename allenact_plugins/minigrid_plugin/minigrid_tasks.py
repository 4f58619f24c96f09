"""MiniGrid tasks with an expert that knows the shortest path, and the sampler that hands them out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import DIR_TO_VEC
from minigrid.minigrid_env import MiniGridEnv

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.errors import ExperimentConfigError, TaskError
from allenact_plugins.minigrid_plugin.minigrid_environments import grid_world
from allenact_plugins.minigrid_plugin.seeded_task_sampler import SeededTask, SeededTaskSampler
from allenact_plugins.minigrid_plugin.shortest_paths import (
    GridState,
    distances_to_goal,
    neighbors,
    state_graph,
)

if TYPE_CHECKING:
    import networkx as nx


class MiniGridTask(SeededTask):
    """One episode in a MiniGrid environment.

    Actions are indices into `_ACTION_NAMES`; subclasses may define other names and numbers.

    Args:
        env: the environment, already reset.
        sensors: a suite, or the sensors to make one of.
        task_info: what describes this episode.
        max_steps: environment steps after which the episode is cut.
        task_cache_uid: name under which the expert's graph is shared with later tasks in the same grid.
        corrupt_expert_within_actions_of_goal: once the agent has been this many actions from the goal, or
            fewer, the expert's advice is random.
        **kwargs: ignored.
    """

    _ACTION_NAMES: ClassVar[tuple[str, ...]] = ("left", "right", "forward")
    _ACTION_IND_TO_MINIGRID_IND: ClassVar[tuple[int, ...]] = tuple(Actions[name].value for name in _ACTION_NAMES)
    _CACHED_GRAPHS: ClassVar[dict[str, nx.DiGraph]] = {}

    def __init__(
        self,
        env: MiniGridEnv,
        sensors: SensorSuite | Sequence[Sensor],
        task_info: dict[str, Any],
        max_steps: int,
        task_cache_uid: str | None = None,
        corrupt_expert_within_actions_of_goal: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(env=env, sensors=sensors, task_info=task_info, max_steps=max_steps, **kwargs)
        self._graph: nx.DiGraph | None = None
        self._minigrid_done = False
        self._minigrid_truncated = False
        self._task_cache_uid = task_cache_uid
        self.corrupt_expert_within_actions_of_goal = corrupt_expert_within_actions_of_goal
        self._closest_to_goal = float("inf")  # in actions, over the whole episode

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """One action for each of `_ACTION_NAMES`."""
        return gym.spaces.Discrete(len(self._ACTION_NAMES))

    @classmethod
    def class_action_names(cls, **kwargs: Any) -> tuple[str, ...]:
        """Returns the names of the actions, in the order of their indices."""
        return cls._ACTION_NAMES

    def render(self, mode: str = "rgb", *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the whole grid as an RGB image [H, W, 3] uint8, or shows it with mode "human"."""
        if mode == "human":
            return self.env.render()
        return grid_world(self.env).get_frame(*args, **kwargs)

    def get_observations(self, *, minigrid_output_obs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Returns sensor uuid -> observation; sensors may use what the environment's step returned."""
        return super().get_observations(minigrid_output_obs=minigrid_output_obs, **kwargs)

    def _step(self, action: Any) -> RLStepResult:
        if not isinstance(action, int):
            raise TaskError(
                f"{type(self).__name__} takes a Python int as its action.",
                given=f"{action!r} ({type(action).__name__})",
                do=f"use an index into {self._ACTION_NAMES}.",
            )
        observation, reward, terminated, truncated, info = _step_environment(
            self.env, self._ACTION_IND_TO_MINIGRID_IND[action]
        )
        self._minigrid_done = terminated or truncated
        self._minigrid_truncated = truncated and not terminated
        return RLStepResult(
            observation=self.get_observations(minigrid_output_obs=observation),
            reward=float(reward),
            done=self.is_done(),
            info=info,
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether seed and actions decide about everything: not with an expert that draws whenever it is asked."""
        return self.corrupt_expert_within_actions_of_goal is None

    def reached_terminal_state(self) -> bool:
        """Whether the environment has ended the episode."""
        return self._minigrid_done

    def was_truncated(self) -> bool:
        """Whether the step limit, the environment's or ours, ended the episode."""
        return self._minigrid_truncated or super().was_truncated()

    def close(self) -> None:
        """Does nothing: the environment belongs to the sampler."""

    def metrics(self) -> dict[str, Any]:
        """Returns length, reward, `success`, and the environment's own `metrics()`, if it has any."""
        env = grid_world(self.env)
        metrics = super().metrics()
        if hasattr(env, "metrics"):
            metrics.update({name: float(value) for name, value in env.metrics().items()})
        metrics["success"] = int(getattr(env, "was_successful", self.cumulative_reward > 0))
        return metrics

    # The expert

    def query_expert(self, **kwargs: Any) -> tuple[int, bool]:
        """Returns the first action of a shortest path to the goal, and True.

        Returns (-1, False) where there is none: the episode is over, or the agent stands on the goal or
        cannot reach it. Among equally short paths the action with the lowest index is taken.
        """
        if self.is_done():
            return -1, False
        distances = distances_to_goal(self.graph)
        state = self._agent_state()
        if state not in distances or distances[state] == 0:
            return -1, False

        self._closest_to_goal = min(self._closest_to_goal, distances[state])
        limit = self.corrupt_expert_within_actions_of_goal
        if limit is not None and self._closest_to_goal <= limit:
            # The environment's generator, so that the sampler's seed decides about this too.
            return int(grid_world(self.env).np_random.integers(len(self._ACTION_NAMES))), True

        nearer = [
            self._ACTION_NAMES.index(name)
            for name, neighbor in neighbors(state).items()
            if neighbor in self.graph[state] and distances.get(neighbor) == distances[state] - 1
        ]
        return min(nearer), True

    def _agent_state(self) -> GridState:
        env = grid_world(self.env)
        return int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir)

    @property
    def graph(self) -> nx.DiGraph:
        """Every state the agent can be in and the actions between them, made when first needed."""
        if self._graph is None:
            cached = self._CACHED_GRAPHS.get(self._task_cache_uid) if self._task_cache_uid else None
            self._graph = self.generate_graph() if cached is None else cached
            if self._task_cache_uid is not None:
                self._CACHED_GRAPHS[self._task_cache_uid] = self._graph
        return self._graph

    @graph.setter
    def graph(self, graph: nx.DiGraph) -> None:
        self._graph = graph

    @property
    def graph_created(self) -> bool:
        """Whether this task has its graph already."""
        return self._graph is not None

    @classmethod
    def possible_neighbor_offsets(cls) -> tuple[GridState, ...]:
        """Returns how one action can change (x, y, direction); a direction wraps around at 4."""
        moves = tuple((int(dx), int(dy), 0) for dx, dy in DIR_TO_VEC)
        return (*moves, (0, 0, 1), (0, 0, -1))

    def generate_graph(self) -> nx.DiGraph:
        """Returns a new graph of the present grid, see `state_graph`."""
        return state_graph(grid_world(self.env).grid)


def _step_environment(env: Any, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
    """Steps `env`; returns five values even if it answers with four, as in `gym_minigrid`'s time."""
    result = env.step(action)
    if len(result) == 5:
        return result
    observation, reward, done, info = result
    truncated = bool(info.get("TimeLimit.truncated", False))
    return observation, reward, done and not truncated, truncated, info


def _reset_with_seed(env: Any, seed: int) -> None:
    """Resets `env`, also one that is seeded by a call of its own, as in `gym_minigrid`'s time."""
    parameters = inspect.signature(env.reset).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if any(parameter.name == "seed" for parameter in parameters) or (takes_any and not hasattr(env, "seed")):
        env.reset(seed=seed)
    else:
        env.seed(seed)
        env.reset()


class AskForHelpSimpleCrossingTask(MiniGridTask):
    """A `MiniGridTask` with one more action: `toggle`, to see the next observation."""

    _ACTION_NAMES = ("left", "right", "forward", "toggle")
    _ACTION_IND_TO_MINIGRID_IND = tuple(Actions[name].value for name in _ACTION_NAMES)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_toggles = 0

    def _step(self, action: Any) -> RLStepResult:
        self.num_toggles += action == self._ACTION_NAMES.index("toggle")
        return super()._step(action)

    def metrics(self) -> dict[str, Any]:
        """Returns the metrics of `MiniGridTask` and `toggle_percent`, the share of `toggle` steps."""
        return {**super().metrics(), "toggle_percent": self.num_toggles / max(self.num_steps_taken(), 1)}


class MiniGridTaskSampler(SeededTaskSampler):
    """Hands out tasks in one MiniGrid environment; `SeededTaskSampler` says which seed each gets.

    Args:
        env_class: called with `env_info` to make the environment.
        sensors: a suite, or the sensors to make one of.
        env_info: keyword arguments of `env_class`.
        max_tasks: see `SeededTaskSampler`.
        num_unique_seeds: see `SeededTaskSampler`.
        task_seeds_list: see `SeededTaskSampler`.
        deterministic_sampling: see `SeededTaskSampler`.
        cache_graphs: whether the expert's graph of each seed is kept; needs at most 1000 unique seeds.
        task_class: class of the tasks.
        repeat_failed_task_for_min_steps: see `SeededTaskSampler`.
        extra_task_kwargs: further keyword arguments of `task_class`.
        seed: see `SeededTaskSampler`.
        **kwargs: reported, then ignored.
    """

    def __init__(
        self,
        env_class: Callable[..., Any],
        sensors: SensorSuite | Sequence[Sensor],
        env_info: dict[str, Any] | None = None,
        max_tasks: int | None = None,
        num_unique_seeds: int | None = None,
        task_seeds_list: Sequence[int] | None = None,
        deterministic_sampling: bool = False,
        cache_graphs: bool = False,
        task_class: Callable[..., MiniGridTask] = MiniGridTask,
        repeat_failed_task_for_min_steps: int = 0,
        extra_task_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            env=env_class(**(env_info or {})),
            max_tasks=max_tasks,
            num_unique_seeds=num_unique_seeds,
            task_seeds_list=task_seeds_list,
            deterministic_sampling=deterministic_sampling,
            repeat_failed_task_for_min_steps=repeat_failed_task_for_min_steps,
            seed=seed,
            unknown_arguments=kwargs,
        )
        self.sensors = sensors if isinstance(sensors, SensorSuite) else SensorSuite(sensors)
        self.task_class = task_class
        self.extra_task_kwargs = extra_task_kwargs or {}
        self.cache_graphs = cache_graphs
        self._graphs: dict[int, nx.DiGraph] = {}  # by seed
        if cache_graphs and not 0 < (self.num_unique_seeds or 0) <= 1000:
            raise ExperimentConfigError(
                "cache_graphs keeps one graph for each seed, so there must be few of them.",
                given=f"num_unique_seeds={self.num_unique_seeds}",
                do="use between 1 and 1000 unique seeds, or cache_graphs=False.",
            )

    def _make_task(self, seed: int, repeated: bool) -> MiniGridTask:
        last_task, graph = self._last_task, self._graphs.get(seed)
        if isinstance(last_task, MiniGridTask) and last_task.graph_created:
            if repeated:
                graph = last_task.graph
            elif self.cache_graphs and self._last_seed is not None:
                self._graphs[self._last_seed] = last_task.graph
                graph = self._graphs.get(seed)

        world: Any = grid_world(self.env)  # some have a method or attribute that MiniGridEnv has not
        if repeated and hasattr(world, "same_seed_reset"):
            world.same_seed_reset()
        else:
            _reset_with_seed(self.env, seed)
            world.saved_seed = seed
        task = self.task_class(
            env=self.env,
            sensors=self.sensors,
            task_info={},
            max_steps=world.max_steps,
            **self.extra_task_kwargs,
        )
        if graph is not None:
            task.graph = graph
        return task
