"""VectorTasks: what training and evaluation ask of N task samplers, whoever steps them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import protocol
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import RolloutChunk, RolloutRequest
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.base_abstractions.task import TaskSampler
from allenact.base_abstractions.task_batch import ObservationDict, StepBatch
from allenact.errors import ExperimentConfigError, MissingExtraError, TaskError
from allenact.utils.system import get_logger

FlatActions = np.ndarray | torch.Tensor  # [N, A]


class NoTaskError(TaskError, RuntimeError):
    """A sampler has no task to begin with."""


class DifferentObservationSpacesError(TaskError, NotImplementedError):
    """The samplers' tasks do not observe the same things."""


class VectorTasks(ABC):
    """N task samplers and their current tasks, stepped together.

    Samplers can be paused (an evaluation does so when one runs out of tasks): every argument and result then has
    one entry for each *active* sampler, in order, and N stands for their number.

    Attributes:
        description: one line for the start-up report.
        observation_space: what every task observes, a dict space.
        action_spaces: the action space of each sampler's first task.
        action_space: how flat actions become actions of the tasks.
        num_samplers: active or paused.
        active: indices of the active ones among them.
    """

    description: str
    observation_space: gym.spaces.Dict
    action_spaces: list[gym.Space]
    action_space: gym.Space
    _closed = True  # until the constructor has something to close

    def __init__(self, num_samplers: int) -> None:
        if num_samplers < 1:
            raise ExperimentConfigError(
                "there is no task sampler to run.",
                "an empty list of task sampler arguments",
                "set nprocesses >= 1 in machine_params for this mode.",
            )
        self.num_samplers = num_samplers
        self.active = list(range(num_samplers))
        self._closed = False

    # Steps and states of all active samplers

    @abstractmethod
    def observe(self) -> ObservationDict:
        """Returns the current observations, leaves [N, O...] (NumPy), which the next step may overwrite."""

    @abstractmethod
    def step_batch(self, flat_actions: FlatActions) -> StepBatch:
        """Takes one step in every active task; where one ends, draws the next.

        Args:
            flat_actions: [N, A], flattened as `spaces_utils.flatten(action_space, ...)` does.
        """

    @property
    def can_collect_rollouts(self) -> bool:
        """Whether `collect_rollout` can be called now."""
        return False

    def collect_rollout(self, request: RolloutRequest) -> Generator[RolloutChunk]:
        """Lets sampler processes collect a rollout by themselves; yields its chunks as they come.

        The chunks of one sampler come in order. The generator has to be closed if it is not used up.
        """
        raise NotImplementedError(f"{type(self).__name__} has no processes that could collect a rollout")

    @abstractmethod
    def state_dict(self) -> list[dict[str, Any] | None]:
        """Returns for each sampler (none may be paused) what is needed to continue, None where it cannot be saved."""

    @abstractmethod
    def load_state_dict(self, states: Sequence[dict[str, Any] | None], keep_unsaved: bool = False) -> list[int]:
        """Restores what `state_dict` returned; `observe()` then gives the restored observations.

        Args:
            states: one for each sampler (none may be paused). A sampler that cannot restore its state is reset and
                begins a new task.
            keep_unsaved: whether samplers whose state is None continue their current tasks; else they are reset, too.

        Returns:
            The indices of the samplers that were not restored.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the samplers and frees everything. Calling it again does nothing."""

    @abstractmethod
    def run_commands(self, positions: Sequence[int], commands: Sequence[str], data: Sequence[Any]) -> list[Any]:
        """Answers one command for each of some active samplers, by position."""

    # Which samplers take part

    @property
    def num_unpaused_tasks(self) -> int:
        """Number of active samplers."""
        return len(self.active)

    @property
    def is_closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def pause_at(self, sampler_index: int) -> None:
        """Excludes the active sampler at that position; those after it move down by one."""
        del self.active[sampler_index]

    def resume_all(self) -> None:
        """Includes all samplers again, in their original order."""
        self.active = list(range(self.num_samplers))

    # Commands to the tasks and samplers

    def command(self, commands: str | Sequence[str], data_list: Sequence[Any] | None = None) -> list[Any]:
        """Sends a command (a constant of `protocol`) to every active sampler and returns the answers.

        Args:
            commands: one for each active sampler, or one for all.
            data_list: what goes with each command; None: nothing.
        """
        n = self.num_unpaused_tasks
        commands = [commands] * n if isinstance(commands, str) else list(commands)
        data_list = [None] * n if data_list is None else list(data_list)
        if not len(commands) == len(data_list) == n:
            raise ValueError(f"{n} active samplers, {len(commands)} commands, {len(data_list)} data entries")
        if protocol.PAUSE_COMMAND in commands:
            raise NotImplementedError("samplers are paused one at a time: pause_at(index)")
        if commands[:1] == [protocol.RESUME_COMMAND]:
            self.resume_all()
            return []
        if commands[:1] == [protocol.CLOSE_COMMAND]:
            self.close()
            return []
        return [_unless_failed(answer) for answer in self.run_commands(range(n), commands, data_list)]

    def command_at(self, sampler_index: int, command: str, data: Any = None) -> Any:
        """Sends a command to one active sampler and returns its answer."""
        if command in (protocol.RESUME_COMMAND, protocol.CLOSE_COMMAND):
            raise NotImplementedError(f"{command!r} is for all samplers at once")
        if command == protocol.PAUSE_COMMAND:
            self.pause_at(sampler_index)
            return None
        return _unless_failed(self.run_commands([sampler_index], [command], [data])[0])

    def call(
        self,
        function_names: str | Sequence[str],
        function_args_list: Sequence[Sequence[Any] | None] | None = None,
    ) -> list[Any]:
        """Calls a method of every current task: one name for all or one each, with positional arguments for each."""
        names = self._for_each(function_names)
        args = function_args_list or [None] * len(names)
        return self.command(protocol.CALL_COMMAND, list(zip(names, args, strict=True)))

    def call_at(self, sampler_index: int, function_name: str, function_args: Sequence[Any] | None = None) -> Any:
        """Calls a method of one current task."""
        return self.command_at(sampler_index, protocol.CALL_COMMAND, (function_name, function_args))

    def attr(self, attr_names: str | Sequence[str]) -> list[Any]:
        """Returns an attribute of every current task: one name for all or one each."""
        return self.command(protocol.ATTR_COMMAND, self._for_each(attr_names))

    def attr_at(self, sampler_index: int, attr_name: str) -> Any:
        """Returns an attribute of one current task."""
        return self.command_at(sampler_index, protocol.ATTR_COMMAND, attr_name)

    def get_observations(self) -> list[Any]:
        """Returns the current observation dict of each active sampler."""
        return self.call("get_observations")

    def next_task(self, **kwargs: Any) -> list[Any]:
        """Abandons the current tasks and draws new ones with `sampler.next_task(**kwargs)`.

        Returns:
            The first observation of each new task, None where the sampler has none left.
        """
        return self.command(protocol.NEXT_TASK_COMMAND, [kwargs] * self.num_unpaused_tasks)

    def next_task_at(self, sampler_index: int) -> list[Any]:
        """Abandons one current task and draws another; returns a list of its first observation."""
        return [self.command_at(sampler_index, protocol.NEXT_TASK_COMMAND)]

    def reset_all(self) -> None:
        """Calls `sampler.reset()` and draws the first task of every active sampler.

        Raises:
            NoTaskError: (a RuntimeError) a sampler has no first task.
        """
        self.command(protocol.RESET_COMMAND)

    def set_seeds(self, seeds: Sequence[int]) -> None:
        """Seeds the generators of the active samplers, one seed each."""
        self.command(protocol.SEED_COMMAND, seeds)

    def lengths(self) -> list[float]:
        """Returns how many tasks each active sampler still has to hand out."""
        return self.command(protocol.SAMPLER_ATTR_COMMAND, self._for_each("length"))

    def render(self, mode: str = "human", *args: Any, **kwargs: Any) -> np.ndarray | list[np.ndarray] | None:
        """Draws the current tasks of the active samplers.

        Args:
            mode: "raw_rgb_list" returns a list of images [H, W, 3] uint8, "rgb_array" one image with all of them as
                tiles, "human" shows that image in a window (needs OpenCV).
            args: passed to `task.render("rgb", ...)`.
            kwargs: likewise.

        Raises:
            AllenActError: what a task raised, a TaskError unless it was one of ours. The tasks can go on.
        """
        images = self.command(protocol.RENDER_COMMAND, [(args, kwargs)] * self.num_unpaused_tasks)
        if mode == "raw_rgb_list":
            return images
        if mode not in ("rgb_array", "human"):
            raise NotImplementedError(f'render mode {mode!r}; there are "raw_rgb_list", "rgb_array" and "human"')
        from allenact.utils.tensor_utils import tile_images

        tile = tile_images(images)
        if mode == "rgb_array":
            return tile
        _show(tile)
        return None

    def _for_each(self, names: str | Sequence[str]) -> list[str]:
        return [names] * self.num_unpaused_tasks if isinstance(names, str) else list(names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be shutting down
            self.close()


def as_array(flat_actions: FlatActions) -> np.ndarray:
    """Returns flat actions, [N, A], as a NumPy array."""
    return flat_actions if isinstance(flat_actions, np.ndarray) else flat_actions.detach().cpu().numpy()


def common_observation_space(spaces: Sequence[gym.spaces.Dict], first: int = 0) -> gym.spaces.Dict:
    """Returns the observation space of all samplers; `first` is the index of the first one, for the message.

    Raises:
        DifferentObservationSpacesError: (a NotImplementedError) they have different ones.
    """
    for sampler, space in enumerate(spaces, start=first):
        if space != spaces[0]:
            raise DifferentObservationSpacesError(
                "all task samplers need the same observation space.",
                f"sampler {first}: {spaces[0]}; sampler {sampler}: {space}",
                "give all samplers the same sensors.",
            )
    return spaces[0]


def callback_suite(sensors: SensorSuite | Sequence[Sensor] | None) -> SensorSuite | None:
    """Returns the callback sensors as a suite, None if there are none."""
    if sensors is None or isinstance(sensors, SensorSuite):
        return sensors
    return SensorSuite(list(sensors)) if sensors else None


def close_samplers(samplers: Sequence[TaskSampler], first: int = 0) -> None:
    """Closes all samplers, with a warning about each that raises; `first` is the index of the first among all."""
    for index, sampler in enumerate(samplers):
        try:
            sampler.close()
        except Exception:
            get_logger().warning("task sampler %d raised while closing", first + index, exc_info=True)


def _unless_failed(answer: Any) -> Any:
    """Returns the answer of a task, or raises what it raised."""
    if not isinstance(answer, protocol.Failure):
        return answer
    if answer.error is not None:
        raise answer.error
    raise TaskError(f"a task could not be drawn:\n{answer.traceback.rstrip()}", do="look at the task's render().")


def _show(image: np.ndarray) -> None:
    """Shows an image [H, W, 3] in a window and gives the window system a moment."""
    try:
        import cv2  # type: ignore[import-not-found]  # nothing else needs it, so it is no dependency
    except ImportError:
        raise MissingExtraError(
            "showing tasks in a window needs OpenCV.",
            'render(mode="human")',
            'pip install opencv-python, or use mode="rgb_array".',
        ) from None
    cv2.imshow("vectorised tasks", image[:, :, ::-1])  # OpenCV wants BGR
    cv2.waitKey(1)
