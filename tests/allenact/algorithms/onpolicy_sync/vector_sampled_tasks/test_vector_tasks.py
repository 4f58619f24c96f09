"""One behaviour, however the samplers are stepped: serial against processes, arrays against lists."""

import copy
import dataclasses
import errno
import gc
import os
import random

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import (
    COMPLETE_TASK_CALLBACK_KEY,
    COMPLETE_TASK_METRICS_KEY,
    SingleProcessVectorSampledTasks,
    VectorSampledTasks,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import layout_of
from allenact.base_abstractions.sensor import Sensor
from allenact.errors import ExperimentConfigError, TaskError
from allenact.testing.tasks import (
    CopyTask,
    EndlessRewardTask,
    PushRightTask,
    RememberTask,
    ToySensor,
    ToyTaskSampler,
)
from allenact.utils.rendering import BACKEND_VARIABLE, RenderingUnavailable
from allenact.utils.seeding import set_seed
from allenact.utils.system import get_logger


class ManyTypesSensor(Sensor):
    """Nested observations of all allowed kinds, which change with every step."""

    def __init__(self):
        super().__init__("many", gym.spaces.Dict())

    def get_observation(self, env, task, *args, **kwargs):
        t, noise = task.num_steps_taken(), float(env.observation.sum())
        return {
            "image": np.full((2, 3), t, np.uint8),
            "wide": np.array([noise, t], np.float64),
            "flag": t % 2 == 0,
            "count": t,
            "number": noise,
            "inner": {"tensor": torch.full((2,), float(t), dtype=torch.float16), "bits": np.array([t > 1, True])},
        }


def samplers_args(n=5, task_class=CopyTask, **kwargs):
    return [{"task_class": task_class, "seed": 10 + i, "max_steps": 3 + i, **kwargs} for i in range(n)]


def in_processes(args, processes=2, **kwargs):
    kwargs = {"multiprocessing_start_method": "fork", "should_log": False, **kwargs}
    return VectorSampledTasks(ToyTaskSampler, args, max_processes=processes, **kwargs)


def serial(args, **kwargs):
    return SingleProcessVectorSampledTasks(ToyTaskSampler, args, **kwargs)


def actions_for(tasks, rng):
    """Random actions [N, A], right about half of the time where the task is to copy."""
    n = tasks.num_unpaused_tasks
    if isinstance(tasks.action_space, gym.spaces.Box):
        return torch.from_numpy(rng.uniform(-1, 1, (n, 1)).astype(np.float32))
    if isinstance(tasks.action_space, gym.spaces.Dict):
        return torch.from_numpy(np.stack([rng.integers(0, 2, n), rng.integers(0, 3, n)], axis=1))
    return torch.from_numpy(rng.integers(0, 2, (n, 1)))


def frozen(batch):
    """Copies what the next step would overwrite."""
    return copy.deepcopy([getattr(batch, field.name) for field in dataclasses.fields(batch)])


def play(tasks, steps, seed=0):
    """Returns copies of everything that the array interface says."""
    rng = np.random.default_rng(seed)
    seen = [copy.deepcopy(tasks.observe())]
    seen += [frozen(tasks.step_batch(actions_for(tasks, rng))) for _ in range(steps)]
    return seen


@pytest.mark.parametrize(
    ("task_class", "processes"),
    [(CopyTask, 1), (PushRightTask, 2), (RememberTask, 3), (CopyTask, 5), (PushRightTask, 9)],
)
def test_processes_equal_serial(task_class, processes):
    args = samplers_args(5, task_class, sensors=[ToySensor(task_class.observation_size), ManyTypesSensor()])
    with serial(args) as expected, in_processes(args, processes) as tasks:
        assert tasks.observation_space == expected.observation_space
        assert tasks.action_spaces == expected.action_spaces
        a, b = play(expected, 30), play(tasks, 30)
        np.testing.assert_equal(b, a)
        assert layout_of(b[-1][0]) == layout_of(a[-1][0])
        episodes = [episode for step in a[1:] for episode in step[5]]
        assert len(episodes) > 10
        assert any(step[4] for step in a[1:]) == (task_class is PushRightTask)  # only that one is truncated


def test_samplers_may_list_their_sensors_in_any_order():
    sensors = [ToySensor(1), ToySensor(1, "same_shape")]
    sensors[1].get_observation = lambda env, task, **kwargs: np.float32([7.0])
    args = samplers_args(2, PushRightTask, sensors=sensors)
    args[1]["sensors"] = sensors[::-1]
    with serial(args) as expected, in_processes(args, 2) as tasks:
        np.testing.assert_equal(play(tasks, 5), play(expected, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_processes_get_actions_as_precise_as_the_model_gives_them(dtype):
    class Precise(PushRightTask):
        def metrics(self):
            return {"reward": self.cumulative_reward}

    args = samplers_args(2, Precise)
    with serial(args) as expected, in_processes(args, 2) as tasks:
        actions = np.full((2, 1), 0.1, dtype)
        ends = [[b.step_batch(actions).episodes for _ in range(4)] for b in (expected, tasks)]
        assert ends[0] == ends[1]
        assert any(ends[0])


@pytest.mark.parametrize(("start_method", "processes"), [("forkserver", 2), ("spawn", 1)])
def test_other_start_methods_equal_serial(start_method, processes, running_forkserver):
    args = samplers_args(3, PushRightTask)
    with serial(args) as expected, in_processes(args, processes, multiprocessing_start_method=start_method) as tasks:
        assert start_method in tasks.description
        np.testing.assert_equal(play(tasks, 12), play(expected, 12))


@pytest.mark.faults("no shared memory to be had", "a warning; observations go through pipes", "speed")
@pytest.mark.parametrize("function", ["memfd_create", "ftruncate"])
def test_without_shared_memory_the_values_are_the_same(function, monkeypatch):
    def none_left(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, none_left)
    args = samplers_args(5, PushRightTask, sensors=[ToySensor(1), ManyTypesSensor()])
    with serial(args) as expected, in_processes(args, 2) as tasks:
        for both in (expected, tasks):
            both.pause_at(1)
        np.testing.assert_equal(play(tasks, 12), play(expected, 12))


def test_types_of_arrays():
    with serial(samplers_args(2, sensors=[ManyTypesSensor()])) as tasks:
        batch = tasks.step_batch(torch.zeros(2, 1))
        observed = {leaf.name: (leaf.shape, leaf.dtype) for leaf in layout_of(batch.observations["many"])}
    assert observed == {
        "image": ((2, 2, 3), "|u1"),
        "wide": ((2, 2), "<f8"),
        "flag": ((2,), "<i8"),
        "count": ((2,), "<i8"),
        "number": ((2,), "<f4"),
        "inner/tensor": ((2, 2), "<f2"),
        "inner/bits": ((2, 2), "|b1"),
    }
    assert (batch.rewards.dtype, batch.dones.dtype, batch.truncated.dtype) == (np.float32, bool, bool)


def test_dict_actions():
    args = samplers_args(4, RememberTask, dict_actions=True)
    with serial(args) as expected, in_processes(args, 2) as tasks:
        np.testing.assert_equal(play(tasks, 20), play(expected, 20))


def test_only_truncated_episodes_give_their_last_observation():
    """In one batch: a task that ends by itself, and one that a limit ends."""
    args = [{"task_class": CopyTask, "max_steps": 3}, {"task_class": PushRightTask, "max_steps": 2, "seed": 5}]
    for args_list, limit in ((args[:1], False), (args[1:], True)):
        with serial(args_list) as tasks:
            start = tasks.observe()["toy"].copy()
            for _ in range(2):
                batch = tasks.step_batch(torch.full((1, 1), 0.5))
            assert batch.dones.tolist() == [True]
            assert batch.truncated.tolist() == [limit]
            assert list(batch.final_observations) == ([0] if limit else [])
            if limit:  # two pushes of 0.05 from the start, not the first observation of the next task
                np.testing.assert_allclose(batch.final_observations[0]["toy"], start[0] + 0.1, rtol=1e-6)
                assert batch.final_observations[0]["toy"].dtype == np.float32
                assert abs(batch.observations["toy"][0, 0] - start[0, 0] - 0.1) > 1e-3


@pytest.mark.parametrize("make", [serial, in_processes])
def test_list_interface_equals_array_interface(make):
    args = samplers_args(5, PushRightTask)
    rng = np.random.default_rng(3)
    with make(args) as lists, make(args) as arrays:
        first = arrays.observe()
        for index, observation in enumerate(lists.get_observations()):
            assert np.array_equal(observation["toy"], first["toy"][index])
        for _ in range(15):
            actions = actions_for(arrays, rng)
            batch = arrays.step_batch(actions)
            results = lists.step(actions.tolist())
            assert [np.float32(result.reward) for result in results] == batch.rewards.tolist()
            assert [result.done for result in results] == batch.dones.tolist()
            np.testing.assert_equal(np.stack([r.observation["toy"] for r in results]), batch.observations["toy"])
            metrics = {i: r.info[COMPLETE_TASK_METRICS_KEY] for i, r in enumerate(results) if r.done}
            assert metrics == {episode.sampler: episode.metrics for episode in batch.episodes}
            assert all(COMPLETE_TASK_METRICS_KEY not in r.info for r in results if not r.done)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_single_sampler_calls(make):
    with make(samplers_args(3, EndlessRewardTask)) as tasks:
        assert [result.reward for result in tasks.step_at(1, 0)] == [1.0]
        assert tasks.call("num_steps_taken") == [0, 1, 0]
        assert tasks.call_at(1, "num_steps_taken") == 1
        assert tasks.attr("max_steps") == [3, 4, 5]
        assert tasks.attr_at(2, "max_steps") == 5
        assert tasks.next_task_at(1)[0]["toy"].tolist() == [1.0]
        assert tasks.call("num_steps_taken") == [0, 0, 0]
        assert len(tasks.next_task(force_advance_scene=True)) == 3
        assert [info["id"] for info in tasks.attr("task_info")] == ["1", "2", "1"]
        assert tasks.command("sampler_attr", ["max_steps"] * 3) == [3, 4, 5]
        assert tasks.command_at(0, "call_sampler", ("set_seed", [3])) is None
        assert tasks.call("get_observations", [[], [], []])[0].keys() == {"toy"}
        assert tasks.command("action_space") == tasks.action_spaces


@pytest.mark.parametrize("make", [serial, in_processes])
def test_async_step(make):
    with make(samplers_args(3)) as tasks:
        with pytest.raises(RuntimeError, match="async_step"):
            tasks.wait_step()
        tasks.async_step([0, 0, 0])
        with pytest.raises(RuntimeError, match="wait_step"):
            tasks.async_step([0, 0, 0])
        assert len(tasks.wait_step()) == 3
        assert tasks.call("num_steps_taken") == [1, 1, 1]


@pytest.mark.parametrize("processes", [2, 3])
def test_pausing_and_resuming(processes):
    args = samplers_args(5)
    with serial(args) as expected, in_processes(args, processes) as tasks:
        for both in (expected, tasks):
            both.observe()
        for position in (1, 3, 0, 0):  # samplers 1, 4, 0, 2
            for both in (expected, tasks):
                both.pause_at(position)
            assert tasks.num_unpaused_tasks == expected.num_unpaused_tasks
            np.testing.assert_equal(play(tasks, 6, seed=position), play(expected, 6, seed=position))
        assert tasks.attr("max_steps") == expected.attr("max_steps") == [6]
        for both in (expected, tasks):
            both.resume_all()
        assert tasks.num_unpaused_tasks == 5
        assert tasks.attr("max_steps") == [3, 4, 5, 6, 7]
        np.testing.assert_equal(play(tasks, 6), play(expected, 6))


@pytest.mark.parametrize("make", [serial, in_processes])
def test_pausing_before_the_first_observation(make):
    with make(samplers_args(4)) as tasks:
        tasks.pause_at(0)
        tasks.pause_at(0)
        assert tasks.observe()["toy"].shape == (2, 4)
        tasks.resume_all()
        assert tasks.observe()["toy"].shape == (4, 4)
        assert tasks.observe()["toy"].sum() == 4


@pytest.mark.parametrize("make", [serial, in_processes])
def test_finite_samplers_are_played_to_the_end(make):
    """As an evaluation does it: pause whom there is nothing left for."""
    args = [{"task_class": CopyTask, "max_steps": 3 + i, "max_tasks": 1 + i} for i in range(4)]
    with make(args) as tasks:
        assert tasks.lengths() == [0, 1, 2, 3]
        tasks.observe()
        ids, alive = [], [0, 1, 2, 3]
        while tasks.num_unpaused_tasks:
            batch = tasks.step_batch(torch.zeros(tasks.num_unpaused_tasks, 1))
            ids += [(alive[episode.sampler], episode.metrics["task_info"]["id"]) for episode in batch.episodes]
            for position in reversed(batch.exhausted):
                tasks.pause_at(position)
                del alive[position]
        assert sorted(ids) == [(sampler, str(task)) for sampler in range(4) for task in range(1 + sampler)]
        tasks.resume_all()
        with pytest.raises(TaskError, match=r"sampler \d has no task left"):
            tasks.step_batch(torch.zeros(4, 1))


def test_list_interface_gives_none_when_exhausted():
    with serial([{"task_class": CopyTask, "max_steps": 2, "max_tasks": 1}]) as tasks:
        assert tasks.step([0])[0].observation is None
        tasks.reset_all()
        assert tasks.get_observations()[0]["toy"].sum() == 1


def test_without_resampling_the_task_stays_finished():
    with serial(samplers_args(1), auto_resample_when_done=False) as tasks:
        for _ in range(2):
            result = tasks.step([0])[0]
        assert result.done
        assert result.observation is not None
        with pytest.raises(TaskError, match="after its episode had ended"):
            tasks.step([0])


@pytest.mark.parametrize("make", [serial, in_processes])
def test_seeds_and_reset_give_the_same_tasks_again(make):
    with make(samplers_args(4, PushRightTask)) as tasks:
        runs = []
        for seeds in ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 5]):
            tasks.set_seeds(seeds)
            tasks.reset_all()
            runs.append(play(tasks, 10))
        np.testing.assert_equal(runs[0], runs[1])
        assert np.array_equal(runs[0][0]["toy"][:3], runs[2][0]["toy"][:3])
        assert not np.array_equal(runs[0][0]["toy"][3], runs[2][0]["toy"][3])


@pytest.mark.parametrize("make", [serial, in_processes])
@pytest.mark.parametrize("task_class", [CopyTask, PushRightTask, RememberTask])
def test_restored_state_continues_equally(make, task_class):
    """Saved by one back end, restored by both."""
    args = samplers_args(5, task_class)
    with make(args) as tasks:
        play(tasks, 4, seed=1)
        states = copy.deepcopy(tasks.state_dict())
        expected = play(tasks, 20, seed=2)
    for restore in (serial, in_processes):
        with restore(samplers_args(5, task_class, seed=None)) as tasks:
            play(tasks, 2, seed=3)
            assert tasks.load_state_dict(states) == []
            np.testing.assert_equal(play(tasks, 20, seed=2), expected)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_samplers_without_state_restart(make):
    with make(samplers_args(4)) as tasks:
        tasks.observe()
        tasks.step_batch(torch.zeros(4, 1))
        states = tasks.state_dict()
        assert tasks.load_state_dict([states[0], None, states[2], None]) == [1, 3]
        assert tasks.call("num_steps_taken") == [1, 0, 1, 0]


def test_callback_sensors_may_return_what_is_written_to_later():
    class LiveSensor(Sensor):
        def __init__(self):
            super().__init__("live", gym.spaces.Box(0, 100, (1,)))
            self.array = np.zeros(1)

        def get_observation(self, env, task, *args, **kwargs):
            self.array += 1
            return self.array

    with serial(samplers_args(1), callback_sensor_suite=[LiveSensor()]) as tasks:  # episodes of 2 steps
        episodes = [episode for _ in range(6) for episode in tasks.step_batch(torch.zeros(1, 1)).episodes]
    assert [episode.callback_data["live"].item() for episode in episodes] == [1, 2, 3]


def test_callback_sensors_see_the_finished_task():
    class StepsSensor(Sensor):
        def __init__(self):
            super().__init__("steps", gym.spaces.Discrete(100))

        def get_observation(self, env, task, *args, **kwargs):
            return task.num_steps_taken()

    args = samplers_args(2)  # episodes of 2 and 3 steps
    with (
        serial(args, callback_sensor_suite=[StepsSensor()]) as one,
        in_processes(args, callback_sensors=[StepsSensor()]) as two,
    ):
        for tasks in (one, two):
            tasks.observe()
            batches = [frozen(tasks.step_batch(torch.zeros(2, 1))) for _ in range(3)]
            assert [episode.callback_data for batch in batches for episode in batch[5]] == [{"steps": 2}, {"steps": 3}]
            assert tasks.step_at(0, 0)[0].info[COMPLETE_TASK_CALLBACK_KEY] == {"steps": 2}


@pytest.mark.parametrize("make", [serial, in_processes])
def test_render(make):
    with make(samplers_args(3)) as tasks:
        images = tasks.render("raw_rgb_list")
        assert [image.shape for image in images] == [(8, 4, 3)] * 3
        tasks.pause_at(0)
        assert len(tasks.render("raw_rgb_list")) == 2
        tile = tasks.render(mode="rgb_array")
        assert tile.dtype == np.uint8
        assert tile.size >= 2 * images[0].size
        with pytest.raises(NotImplementedError, match="ascii"):
            tasks.render("ascii")


class UndrawableTask(CopyTask):
    """Cannot be drawn after its first step."""

    def render(self, mode="rgb", *args, **kwargs):
        if self.num_steps_taken():
            raise RenderingUnavailable("no OpenGL") if kwargs else ZeroDivisionError("the pencil broke")
        return super().render(mode)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_tasks_that_cannot_be_drawn_can_be_played(make):
    with make(samplers_args(3, UndrawableTask)) as tasks:
        tasks.observe()
        tasks.step_batch(torch.zeros(3, 1))
        with pytest.raises(TaskError, match="ZeroDivisionError: the pencil broke"):
            tasks.render("raw_rgb_list")
        with pytest.raises(RenderingUnavailable, match="no OpenGL"):  # what is one of our errors stays itself
            tasks.render("raw_rgb_list", size=3)
        assert not tasks.is_closed
        assert len(tasks.step_batch(torch.zeros(3, 1)).rewards) == 3


class Complaining(ToyTaskSampler):
    """Warns of its arguments, and when it is reset."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        get_logger().warning("an argument is not known")

    def reset(self):
        get_logger().warning("there was a reset")
        super().reset()


def test_all_processes_warn_but_of_arguments_only_the_first(capfd):
    args = [{"task_class": CopyTask, "seed": seed} for seed in range(3)]
    kwargs = {"multiprocessing_start_method": "fork", "should_log": False}
    with VectorSampledTasks(Complaining, args, max_processes=3, **kwargs) as tasks:
        tasks.reset_all()
    said = capfd.readouterr().err
    assert (said.count("an argument is not known"), said.count("there was a reset")) == (1, 3)


def test_sampler_processes_are_told_how_to_draw(monkeypatch, running_forkserver):
    monkeypatch.setenv(BACKEND_VARIABLE, "osmesa")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with in_processes(samplers_args(2, SaysHowToDraw), multiprocessing_start_method="forkserver") as tasks:
        assert tasks.attr("how") == [("osmesa", "osmesa")] * 2


class SaysHowToDraw(CopyTask):
    """Shows what its process knows of OpenGL."""

    @property
    def how(self):
        return os.environ.get(BACKEND_VARIABLE), os.environ.get("MUJOCO_GL")


@pytest.mark.parametrize("told", [None, "3"])
def test_sampler_processes_multiply_matrices_on_one_thread(told, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", told)
    with in_processes(samplers_args(2, SaysThreads)) as tasks:
        assert tasks.call("threads") == [told or "1"] * 2
    assert os.environ.get("OPENBLAS_NUM_THREADS") == told


class SaysThreads(CopyTask):
    def threads(self):
        return os.environ["OPENBLAS_NUM_THREADS"]


@pytest.mark.parametrize("make", [serial, in_processes])
def test_commands_that_are_refused(make):
    with make(samplers_args(2)) as tasks:
        with pytest.raises(NotImplementedError, match="one at a time"):
            tasks.command("pause")
        for command in ("resume", "close"):
            with pytest.raises(NotImplementedError, match="all samplers"):
                tasks.command_at(0, command)
        with pytest.raises(ValueError, match="2 active samplers"):
            tasks.command("attr", ["max_steps"])
        tasks.command_at(1, "pause")
        assert tasks.num_unpaused_tasks == 1
        tasks.command("resume")
        assert tasks.num_unpaused_tasks == 2
        tasks.command("close")
        assert tasks.is_closed


@pytest.mark.parametrize("make", [serial, in_processes])
def test_a_sampler_without_any_task(make):
    args = [{"task_class": CopyTask, "max_tasks": n} for n in (1, 1, 0)]
    with pytest.raises(RuntimeError, match="task sampler 2 has no task to begin with"):
        make(args)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_different_observation_spaces(make):
    for sizes in ((4, 4, 3), (4, 4, 4, 3)):  # in two processes: between the two, within the second
        args = [{"task_class": CopyTask, "sensors": [ToySensor(size)]} for size in sizes]
        with pytest.raises(NotImplementedError, match=f"same observation space(.|\n)*; sampler {len(sizes) - 1}: "):
            make(args)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_no_samplers(make):
    with pytest.raises(ExperimentConfigError, match="no task sampler"):
        make([])


def test_start_method_and_context_exclude_each_other():
    with pytest.raises(ExperimentConfigError, match="exactly one"):
        in_processes(samplers_args(1), multiprocessing_start_method=None)
    with pytest.raises(ExperimentConfigError, match="cannot start processes by 'teleport'"):
        in_processes(samplers_args(1), multiprocessing_start_method="teleport")


@pytest.mark.parametrize("make", [serial, in_processes])
def test_mp_ctx_reaches_the_samplers(make):
    class Curious(ToyTaskSampler):
        def __init__(self, mp_ctx, **kwargs):
            super().__init__(CopyTask)
            self.start_method = None if mp_ctx is None else mp_ctx.get_start_method()

    owner = SingleProcessVectorSampledTasks if make is serial else VectorSampledTasks
    kwargs = {} if make is serial else {"multiprocessing_start_method": "fork"}
    with owner(lambda **args: Curious(**args), [{}], **kwargs) as tasks:
        method = None if tasks.mp_ctx is None else tasks.mp_ctx.get_start_method()
        assert tasks.command("sampler_attr", ["start_method"]) == [method]


class ChangingSensor(Sensor):
    """Returns another shape or type in the third step."""

    def __init__(self, later):
        super().__init__("changing", gym.spaces.Box(-1, 1, (2,)))
        self.later = later

    def get_observation(self, env, task, *args, **kwargs):
        return np.zeros(2, np.float32) if task.num_steps_taken() < 2 else self.later


@pytest.mark.parametrize("make", [serial, in_processes])
@pytest.mark.parametrize(
    ("later", "got"),
    [
        (np.zeros(3, np.float32), r"shape \[3\] of float32"),
        (np.zeros(2), r"shape \[2\] of float64"),
        ({"part": 1.0}, "nothing of that name"),
    ],
)
def test_observations_that_change_their_kind(make, later, got):
    args = [{"task_class": EndlessRewardTask, "max_steps": 9, "sensors": [ChangingSensor(np.zeros(2, np.float32))]}] * 2
    args += [{"task_class": EndlessRewardTask, "max_steps": 9, "sensors": [ChangingSensor(later)]}]
    message = f'"changing.*" of sampler 2.*\n.*expected shape \\[2\\] of float32, got {got}'
    with make(args) as tasks:
        tasks.observe()
        for _ in range(2):
            tasks.step_batch(torch.zeros(3, 1))
        with pytest.raises(TaskError, match=message):
            tasks.step_batch(torch.zeros(3, 1))


@pytest.mark.parametrize("make", [serial, in_processes])
def test_first_observations_of_different_kinds(make):
    class Typed(Sensor):
        def __init__(self, dtype):
            super().__init__("typed", gym.spaces.Box(-1, 1, (2,)))
            self.dtype = dtype

        def get_observation(self, env, task, *args, **kwargs):
            return np.zeros(2, self.dtype)

    args = [{"task_class": CopyTask, "sensors": [Typed(dtype)]} for dtype in ("float32", "float32", "float64")]
    with make(args) as tasks, pytest.raises(TaskError, match='"typed" of sampler 2'):
        tasks.observe()


def test_text_is_no_observation():
    class Words(Sensor):
        def __init__(self):
            super().__init__("words", gym.spaces.Box(-1, 1, (2,)))

        def get_observation(self, env, task, *args, **kwargs):
            return "red ball"

    with (
        serial([{"task_class": CopyTask, "sensors": [Words()]}]) as tasks,
        pytest.raises(TaskError, match='"words" returned a str'),
    ):
        tasks.observe()


def test_rewards_of_several_agents_cannot_be_arrays():
    class TwoAgents(EndlessRewardTask):
        def play(self, action):
            return [1.0, 2.0]

    with serial([{"task_class": TwoAgents}]) as tasks:
        assert tasks.step([0])[0].reward == [1.0, 2.0]
        with pytest.raises(NotImplementedError, match="several agents"):
            tasks.step_batch(torch.zeros(1, 1))


class Careless(ToyTaskSampler):
    """Seeds and uses the global generators, as many old samplers do."""

    def __init__(self, **kwargs):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        super().__init__(task_class=CopyTask, **kwargs)

    def set_seed(self, seed):
        random.seed(seed)
        super().set_seed(seed)

    def reset(self):
        np.random.rand()
        super().reset()


@pytest.mark.parametrize("owner", [SingleProcessVectorSampledTasks, VectorSampledTasks])
def test_the_trainers_generators_are_left_alone(owner):
    kwargs = {} if owner is SingleProcessVectorSampledTasks else {"multiprocessing_start_method": "fork"}
    set_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    set_seed(5)
    with owner(Careless, [{}, {}], **kwargs) as tasks:
        tasks.set_seeds([3, 4])
        tasks.reset_all()
        tasks.load_state_dict(tasks.state_dict())
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_global_generators_of_workers_follow_from_the_runs_seed():
    class GlobalDice(CopyTask):
        def begin(self):
            self.env.values["shown"] = random.randrange(4)
            self.env.show(self.env.values["shown"])

    def first_numbers(seed):
        set_seed(seed)
        with in_processes(samplers_args(6, GlobalDice), 3) as tasks:
            return [tasks.next_task()[i]["toy"].argmax() for _ in range(4) for i in range(6)]

    assert first_numbers(1) == first_numbers(1) != first_numbers(2)


@pytest.mark.parametrize("make", [serial, in_processes])
def test_close_twice_and_forget(make):
    tasks = make(samplers_args(2))
    tasks.observe()
    tasks.close()
    tasks.close()
    assert tasks.is_closed
    forgotten = make(samplers_args(2))
    del forgotten
    gc.collect()  # the fixture looks for what is left


@pytest.mark.parametrize("make", [serial, in_processes])
def test_samplers_are_closed_even_if_one_raises(make, tmp_path):
    class Closing(ToyTaskSampler):
        def __init__(self, path, **kwargs):
            super().__init__(CopyTask)
            self.path = path

        def close(self):
            self.path.write_text("closed")
            raise ValueError("close() failed")

    paths = [tmp_path / f"{i}" for i in range(3)]
    owner = SingleProcessVectorSampledTasks if make is serial else VectorSampledTasks
    kwargs = {} if make is serial else {"multiprocessing_start_method": "fork", "max_processes": 2}
    owner(Closing, [{"path": path} for path in paths], **kwargs).close()
    assert [path.read_text() for path in paths] == ["closed"] * 3


def test_copied_observations_survive_sensors_that_reuse_their_array():
    class Reusing(Sensor):
        def __init__(self):
            super().__init__("reused", gym.spaces.Box(0, 9, (1,)))
            self.array = np.zeros(1, np.float32)

        def get_observation(self, env, task, *args, **kwargs):
            self.array[0] = task.num_steps_taken()
            return self.array

    with serial([{"task_class": EndlessRewardTask, "max_steps": 2, "sensors": [Reusing()]}]) as tasks:
        tasks.step_batch(torch.zeros(1, 1))
        batch = tasks.step_batch(torch.zeros(1, 1))
        assert batch.final_observations[0]["reused"].tolist() == [1.0]  # steps before the last one
        assert batch.observations["reused"].tolist() == [[0.0]]
