"""Which seed the next task gets, and how an episode is saved: what MiniGrid and BabyAI tasks share."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.utils.seeding import np_random
from minigrid.minigrid_env import MiniGridEnv

from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.task import Task, TaskSampler
from allenact.errors import ExperimentConfigError, TaskError, did_you_mean
from allenact.utils.legacy_seeding import OldStyleGenerator
from allenact.utils.system import get_logger
from allenact_plugins.minigrid_plugin.minigrid_environments import grid_world

# Keyword arguments that the framework or experiments pass to every sampler, whether it wants them or not.
_ALWAYS_ACCEPTED = {"mp_ctx"}
_warned_about: set[tuple[str, str]] = set()


class SeededTask(Task[MiniGridEnv]):
    """An episode that follows from the seed its environment was reset with and from the actions taken since.

    Args:
        **kwargs: for `Task`.

    Attributes:
        actions_since_reset: what `step` was called with.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.actions_since_reset: list[Any] = []

    def step(self, action: Any) -> RLStepResult:
        """Takes one environment step and remembers the action."""
        self.actions_since_reset.append(action)
        return super().step(action)

    @property
    def is_repeatable(self) -> bool:
        """Whether seed and actions decide about everything that is to come."""
        return True


class SeededTaskSampler(TaskSampler, abc.ABC):
    """A sampler whose tasks are told apart by the seed their environment is reset with.

    A task's seed is: with `deterministic_sampling`, the next one of the list, over and over; with a list or
    number of unique seeds, a random one of them; otherwise a new random number, except that a task that
    earned a reward of exactly 0 is repeated until `repeat_failed_task_for_min_steps` environment steps were
    spent on it.

    Args:
        env: the environment all tasks are played in.
        max_tasks: number of tasks handed out until `reset()`; None for no limit.
        num_unique_seeds: number of different tasks; their seeds are 0, 1, ... unless a list is given.
        task_seeds_list: the seeds of the different tasks.
        deterministic_sampling: whether to go through the seeds in order.
        repeat_failed_task_for_min_steps: environment steps spent on one failed task; 0 for no repetition.
        seed: seed of the sampler's own generator; None draws one from the operating system.
        unknown_arguments: what else the caller was given; reported, then ignored.

    Raises:
        ExperimentConfigError: the arguments contradict each other.
    """

    def __init__(
        self,
        env: Any,
        max_tasks: int | None,
        num_unique_seeds: int | None,
        task_seeds_list: Sequence[int] | None,
        deterministic_sampling: bool,
        repeat_failed_task_for_min_steps: int = 0,
        seed: int | None = None,
        unknown_arguments: dict[str, Any] | None = None,
    ) -> None:
        self.env = env
        self.max_tasks = max_tasks
        self.task_seeds_list = None if task_seeds_list is None else list(task_seeds_list)
        if num_unique_seeds is not None and self.task_seeds_list is None:
            self.task_seeds_list = list(range(num_unique_seeds))
        self.num_unique_seeds = None if self.task_seeds_list is None else len(self.task_seeds_list)
        self.deterministic_sampling = deterministic_sampling
        self.repeat_failed_task_for_min_steps = repeat_failed_task_for_min_steps
        self._check_arguments(num_unique_seeds)
        self._report_unknown(unknown_arguments or {})

        self.num_tasks_generated = 0
        self._last_task: Task | None = None
        self._last_seed: int | None = None
        self._steps_spent_on_last_seed = 0
        self._first_world_generator: Mapping[str, Any] = {}  # the environment's, when the last task began
        self.np_random, self._generator_seed = np_random(seed)

    def _check_arguments(self, num_unique_seeds: int | None) -> None:
        """Raises ExperimentConfigError if the arguments contradict each other."""
        name, unique, repeat = (
            type(self).__name__,
            self.num_unique_seeds,
            self.repeat_failed_task_for_min_steps,
        )
        listed = "None" if self.task_seeds_list is None else f"{unique} seeds"
        given = (
            f"num_unique_seeds={num_unique_seeds}, task_seeds_list={listed}, "
            f"deterministic_sampling={self.deterministic_sampling}, repeat_failed_task_for_min_steps={repeat}"
        )
        if num_unique_seeds is not None and num_unique_seeds != unique:
            do = "give the list alone, or as many seeds as num_unique_seeds says."
            raise ExperimentConfigError(f"{name}: the number of seeds does not fit the list.", given, do)
        if unique is not None and unique <= 0:
            do = "use at least one seed, or None for a new one each time."
            raise ExperimentConfigError(f"{name}: there is no seed to choose from.", given, do)
        if self.deterministic_sampling and unique is None:
            do = "set num_unique_seeds or task_seeds_list."
            raise ExperimentConfigError(f"{name}: deterministic_sampling needs unique seeds.", given, do)
        if num_unique_seeds is not None and repeat > 0:
            do = "use unique seeds or repetition, not both."
            raise ExperimentConfigError(f"{name}: failed tasks cannot be repeated with unique seeds.", given, do)
        if not self.deterministic_sampling and self.max_tasks is not None:
            get_logger().warning(
                f"{name}: max_tasks={self.max_tasks} without deterministic_sampling: "
                f"each evaluation plays a different choice of tasks."
            )

    def _report_unknown(self, arguments: dict[str, Any]) -> None:
        """Warns about arguments that nothing uses, once each, and names what may have been meant."""
        known = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        for name in arguments:
            if name in _ALWAYS_ACCEPTED or (type(self).__name__, name) in _warned_about:
                continue
            _warned_about.add((type(self).__name__, name))
            hint = did_you_mean(name, known)
            get_logger().warning(f'{type(self).__name__} ignores the argument "{name}". {hint}'.rstrip())

    @abc.abstractmethod
    def _make_task(self, seed: int, repeated: bool) -> Task:
        """Resets the environment with `seed`, which is the last task's if `repeated`, and returns a task."""

    def next_task(self, force_advance_scene: bool = False) -> Task | None:
        """Returns a task with the next seed, None if `max_tasks` have been handed out."""
        if self.length <= 0:
            return None
        seed, repeated = self._next_seed()
        self._last_task = self._make_task(seed, repeated)
        self._last_seed = seed
        self._first_world_generator = grid_world(self.env).np_random.bit_generator.state
        self.num_tasks_generated += 1
        return self._last_task

    def _next_seed(self) -> tuple[int, bool]:
        """Returns the seed of the next task, and whether it is a failed task's, tried once more."""
        if self.task_seeds_list is not None:
            index = self.num_tasks_generated % len(self.task_seeds_list)
            if not self.deterministic_sampling:
                index = int(self.np_random.integers(len(self.task_seeds_list)))
            return self.task_seeds_list[index], False

        if self._last_task is not None and self._last_seed is not None:
            self._steps_spent_on_last_seed += self._last_task.num_steps_taken()
            may_repeat = self._steps_spent_on_last_seed < self.repeat_failed_task_for_min_steps
            if may_repeat and self._last_task.cumulative_reward == 0:
                return self._last_seed, True
        self._steps_spent_on_last_seed = 0
        return int(self.np_random.integers(2**31 - 1)), False

    @property
    def np_seeded_random_gen(self) -> OldStyleGenerator:
        """The sampler's own generator, under its name in AllenAct."""
        return OldStyleGenerator(self.np_random.bit_generator)

    @property
    def length(self) -> float:
        """Number of tasks still to be handed out, infinite without `max_tasks`."""
        return float("inf") if self.max_tasks is None else self.max_tasks - self.num_tasks_generated

    @property
    def total_unique(self) -> int | None:
        """Number of different tasks, None if there is no limit."""
        return self.num_unique_seeds

    @property
    def last_sampled_task(self) -> Task | None:
        """The task handed out last, None at the start."""
        return self._last_task

    @property
    def all_observation_spaces_equal(self) -> bool:
        """True: every task has the same sensors."""
        return True

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def reset(self) -> None:
        """Starts over: as many tasks as at the beginning, and no failed task to repeat."""
        self.num_tasks_generated = 0
        self._last_task = None
        self._last_seed = None
        self._steps_spent_on_last_seed = 0

    def set_seed(self, seed: int) -> None:
        """Replaces the sampler's own generator; the environment is seeded anew with every task."""
        self.np_random, self._generator_seed = np_random(seed)

    # Saving: an episode is played again

    def state_dict(self, task: Task | None) -> dict[str, Any] | None:
        """Returns the generators, and the seed and actions of `task`; None if these do not decide about all of it."""
        if task is not self._last_task or not isinstance(task, SeededTask) or not task.is_repeatable:
            return None
        return {
            "generator": self.np_random.bit_generator.state,
            "num_tasks_generated": self.num_tasks_generated,
            "steps_spent_on_last_seed": self._steps_spent_on_last_seed,
            "seed": self._last_seed,
            "world_generator": self._first_world_generator,
            "actions": list(task.actions_since_reset),
            "outcome": self._outcome_of(task),
        }

    def load_state_dict(self, state: dict[str, Any]) -> Task:
        """Restores what `state_dict` returned, and returns the task that was being played.

        Raises:
            TaskError: the seed and the actions lead elsewhere, because the environment has changed.
        """
        self._last_task = None  # it has nothing to do with the task that is made here
        task = self._last_task = self._make_task(state["seed"], repeated=False)
        self._last_seed = state["seed"]
        self._first_world_generator = state["world_generator"]
        grid_world(self.env).np_random.bit_generator.state = state["world_generator"]
        task.get_observations()  # as when it began: experts may have to watch from the start
        for action in state["actions"]:
            if not task.is_done():
                task.step(action)
        self.np_random.bit_generator.state = state["generator"]
        self.num_tasks_generated = state["num_tasks_generated"]
        self._steps_spent_on_last_seed = state["steps_spent_on_last_seed"]
        if self._outcome_of(task) != state["outcome"]:
            raise TaskError(
                "a saved episode cannot be played again: its seed and its actions lead elsewhere.",
                given=f"seed {state['seed']}, {len(state['actions'])} actions, {type(grid_world(self.env)).__name__}",
                do="resume with the environment, its arguments and the version of minigrid that it was saved with.",
            )
        return task

    def _outcome_of(self, task: Task) -> list[Any]:
        """Returns what tells whether an episode went as another one: pose, mission, reward. It is cheap to get."""
        world = grid_world(self.env)
        x, y = world.agent_pos
        return [int(x), int(y), int(world.agent_dir), str(world.mission), task.cumulative_reward]
