"""Checks that what a plugin provides keeps the promises the framework relies on.

In a test of the plugin::

    def test_my_tasks_keep_the_contract():
        check_task_sampler(lambda: MyTaskSampler(seed=0))

Each check raises `ContractError`, an `AssertionError` that says which promise is broken and how.
"""

from __future__ import annotations

import io
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import layout_of
from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task import Task, TaskSampler
from allenact.errors import TaskError
from allenact.testing.expectations import ContractError, expect
from allenact.testing.storage_contract import check_storage
from allenact.utils.plain_values import decode_plain, encode_plain
from allenact.utils.seeding import preserve_rng_state, set_seed
from allenact.utils.spaces_utils import action_list, flatten, torch_point

__all__ = ["ContractError", "check_sensor", "check_storage", "check_task", "check_task_sampler"]


def check_task(task: Task, seed: int = 0, check_render: bool = False) -> None:
    """Plays a fresh task to its end with random actions.

    Args:
        task: not stepped yet.
        seed: of the random actions.
        check_render: whether to ask for a picture too.

    Raises:
        ContractError: observations outside their spaces or of changing type, rewards that are not numbers, wrong
            step counts, an episode that does not end at `max_steps`, or metrics that cannot be averaged.
    """
    name = type(task).__name__
    actions = _Actions(task.action_space, seed)
    expect(task.num_steps_taken() == 0 and not task.is_done(), f"a new {name} has taken no step and is not over.")
    observation = task.get_observations()
    _check_observation(observation, task.observation_space, name)
    layout = layout_of(observation)
    if check_render:
        _check_picture(task.render("rgb"), name)
    while not task.is_done():
        steps = task.num_steps_taken()
        result = task.step(actions.next())
        _check_result(result, task, steps)
        _check_observation(result.observation, task.observation_space, name)
        expect(
            layout_of(result.observation) == layout,
            f"{name} observes the same shapes and types at every step.",
            f"at first {layout}, after step {steps + 1} {layout_of(result.observation)}",
        )
    expect(isinstance(task.was_truncated(), bool | np.bool_), f"{name}.was_truncated() is True or False.")
    _check_metrics(task.metrics(), name)
    try:
        task.step(actions.next())
    except (TaskError, AssertionError):
        return
    raise ContractError(f"{name}.step() raises after the end of the episode.", do="override _step(), not step().")


def check_task_sampler(
    make_sampler: Callable[[], TaskSampler], seed: int = 0, num_tasks: int = 3, check_render: bool = False
) -> None:
    """Draws tasks, plays them, and compares samplers that must behave alike.

    Args:
        make_sampler: returns a new sampler; called several times.
        seed: given to `set_seed`.
        num_tasks: tasks to play in each comparison (fewer if the sampler has fewer).
        check_render: whether to ask for pictures too.

    Raises:
        ContractError: no first task, a `length` that does not count down, tasks that differ for equal seeds, or a
            saved state that cannot be stored or does not continue equally.
        Whatever `check_task` raises.
    """
    samplers = [make_sampler() for _ in range(3)]
    try:
        name = type(samplers[0]).__name__
        first = samplers[0].next_task()
        expect(first is not None, f"the first next_task() of {name} returns a task.")
        assert first is not None
        check_task(first, seed, check_render)
        _check_length(samplers[0], num_tasks)
        trajectories = []
        for number, sampler in enumerate(samplers[:2]):
            task = _seeded_task(sampler, seed)
            with preserve_rng_state():
                set_seed(number)  # a sampler that draws from the global generators gives itself away
                trajectories.append(_trajectory(task, sampler, num_tasks, seed))
        expect(
            _equal(*trajectories),
            f"{name} gives the same tasks for the same seed.",
            f"set_seed({seed}) and reset() on two samplers, then the same actions",
            "draw all randomness from a generator of the sampler's own, and seed that in set_seed().",
        )
        _check_state(samplers[0], samplers[2], num_tasks, seed)
        samplers[0].reset()
        expect(samplers[0].next_task(force_advance_scene=True) is not None, f"{name} has a task after reset().")
    finally:
        for sampler in samplers:
            sampler.close()


def check_sensor(sensor: Sensor, env: Any, task: Task) -> None:
    """Reads a sensor twice.

    Raises:
        ContractError: its observation is not in its space, or reading it again changes shape or type.
    """
    first, second = (sensor.get_observation(env=env, task=task) for _ in range(2))
    _check_observation({sensor.uuid: first}, gym.spaces.Dict({sensor.uuid: sensor.observation_space}), "the sensor")
    expect(
        layout_of({sensor.uuid: first}) == layout_of({sensor.uuid: second}),
        f'sensor "{sensor.uuid}" returns the same shape and type at every reading.',
        f"{layout_of({sensor.uuid: first})}, then {layout_of({sensor.uuid: second})}",
    )


# Tasks


class _Actions:
    """Random actions as plain Python values, the same for the same seed."""

    def __init__(self, space: gym.Space, seed: int) -> None:
        self.space = space
        space.seed(seed)

    def next(self) -> Any:
        flat = flatten(self.space, torch_point(self.space, self.space.sample()))  # [A]
        return action_list(self.space, flat.reshape(1, 1, -1))[0]


def _check_result(result: Any, task: Task, steps: int) -> None:
    name = type(task).__name__
    expect(isinstance(result, RLStepResult), f"{name}.step() returns an RLStepResult.", f"{type(result)}")
    rewards = result.reward if isinstance(result.reward, list | tuple) else [result.reward]
    expect(
        all(isinstance(r, numbers.Real | np.number) and np.isfinite(float(r)) for r in rewards),
        f"{name} gives a finite number as reward, or one for each agent.",
        f"{result.reward!r} at step {steps + 1}",
    )
    expect(
        task.num_steps_taken() == steps + 1,
        f"{name} counts its steps.",
        f"num_steps_taken() went from {steps} to {task.num_steps_taken()}",
        "override _step(), not step(), and leave the counter alone.",
    )
    expect(result.done or not task.is_done(), f"{name} returns done=True with its last step.")
    expect(
        task.is_done() or steps + 1 < task.max_steps,
        f"{name} is over after max_steps.",
        f"{steps + 1} steps taken, max_steps={task.max_steps}",
    )


def _check_observation(observation: Any, space: gym.spaces.Dict, name: str) -> None:
    expect(isinstance(observation, Mapping), f"{name} observes a dict.", f"{type(observation)}")
    expect(
        set(observation) == set(space.spaces),
        f"{name} observes what its observation space lists.",
        f"space {sorted(space.spaces)}, observation {sorted(observation)}",
    )
    layout_of(observation)  # raises for values that cannot be stacked
    for uuid, part in space.spaces.items():
        value = observation[uuid]
        if isinstance(part, gym.spaces.Dict):
            _check_observation(value, part, f'sensor "{uuid}"')
        elif isinstance(part, gym.spaces.Box):
            _check_box(np.asarray(value), part, uuid)


def _check_box(value: np.ndarray, space: gym.spaces.Box, uuid: str) -> None:
    expect(
        value.shape == space.shape,
        f'sensor "{uuid}" returns the shape of its observation space.',
        f"space {space.shape}, observation {value.shape}",
    )
    outside = np.atleast_1d(~((value >= space.low) & (value <= space.high)))  # [O...]; True for NaN too
    if outside.any():
        raise ContractError(
            f'sensor "{uuid}" stays within the bounds of its observation space.',
            f"{int(outside.sum())} of {outside.size} entries outside, such as {np.atleast_1d(value)[outside][0]}",
            "widen the bounds (they may be infinite) or look for NaN.",
        )


def _check_metrics(metrics: Any, name: str) -> None:
    expect(isinstance(metrics, dict), f"{name}.metrics() returns a dict.", f"{type(metrics)}")
    for key, value in metrics.items():
        is_number = isinstance(value, numbers.Real | np.number | np.bool_) or (
            isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0
        )
        expect(
            key == "task_info" or is_number or (key == "success" and value is None),
            f'the metric "{key}" of {name} is a number.',
            f"{value!r}",
            "put what is not to be averaged into task_info.",
        )


def _check_picture(picture: Any, name: str) -> None:
    expect(
        isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3,
        f"{name}.render() returns an RGB image [H, W, 3] of uint8.",
        f"{getattr(picture, 'dtype', type(picture))} {getattr(picture, 'shape', '')}",
    )


# Samplers


def _check_length(sampler: TaskSampler, num_tasks: int) -> None:
    """Draws tasks and watches `length`."""
    name = type(sampler).__name__
    for _ in range(num_tasks):
        before = sampler.length
        task = sampler.next_task()
        if before == 0:
            expect(task is None, f"{name}.next_task() returns None when length is 0.")
            break
        expect(task is not None, f"{name}.next_task() returns a task while length > 0.", f"length was {before}")
        expect(
            sampler.length == before - 1 or sampler.length == before == float("inf"),
            f"the length of {name} falls by one with each task.",
            f"{before}, then {sampler.length}",
        )


def _seeded_task(sampler: TaskSampler, seed: int) -> Task:
    sampler.set_seed(seed)
    sampler.reset()
    task = sampler.next_task()
    expect(task is not None, f"{type(sampler).__name__} has a task after reset().")
    assert task is not None
    return task


def _trajectory(task: Task, sampler: TaskSampler, num_tasks: int, seed: int) -> list[Any]:
    """Returns observations, rewards and ends of `task` and of those after it, played with random actions."""
    seen: list[Any] = []
    current: Task | None = task
    for number in range(num_tasks):
        if current is None:
            break
        actions = _Actions(current.action_space, seed + number)
        seen.append(current.get_observations())
        while not current.is_done():
            result = current.step(actions.next())
            seen += [result.observation, result.reward, bool(result.done)]
        current = sampler.next_task()
    return seen


def _check_state(sampler: TaskSampler, other: TaskSampler, num_tasks: int, seed: int) -> None:
    """Compares the continuation of a saved task with that of the task itself."""
    name = type(sampler).__name__
    task = _seeded_task(sampler, seed + 1)
    actions = _Actions(task.action_space, seed)
    for _ in range(2):
        if not task.is_done():
            task.step(actions.next())
    state = sampler.state_dict(task)
    if state is None or task.is_done():
        return  # restarted on resume, which is allowed
    _check_plain(state, name, "state")
    file = io.BytesIO()
    torch.save(encode_plain(state), file)
    file.seek(0)
    stored = decode_plain(torch.load(file, weights_only=True))
    restored = other.load_state_dict(stored)
    expected = _trajectory(task, sampler, num_tasks, seed)
    expect(
        _equal(expected, _trajectory(restored, other, num_tasks, seed)),
        f"{name} continues equally from a saved state.",
        "state_dict() in the middle of a task, load_state_dict() in a new sampler, then the same actions",
        "save everything that decides about the next observations and tasks: environment, counters, generators.",
    )


def _check_plain(value: Any, name: str, where: str) -> None:
    """Raises unless `value` consists of types that a checkpoint can hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, name, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, name, f"{where}[{index}]")
    else:
        plain = str | bytes | int | float | bool | None | np.ndarray | np.generic | torch.Tensor
        expect(
            isinstance(value, plain),
            f"the state of {name} consists of plain values, arrays and tensors.",
            f"{where} is a {type(value).__name__}",
            "use only dict, list, tuple, str, bytes, int, float, bool, None, NumPy arrays and torch tensors.",
        )


def _equal(a: Any, b: Any) -> bool:
    """Whether two nested structures hold the same numbers."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))
