"""Batched samplers against the same samplers one by one: every number, every episode, every state."""

import multiprocessing
import re
import sys
from functools import partial
from pathlib import Path

import gymnasium.envs.mujoco
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.factory import make_vector_tasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import SingleProcessVectorSampledTasks
from allenact.base_abstractions.sensor import Sensor, SensorSuite
from allenact.errors import TaskError
from allenact_plugins.gym_plugin.gym_environment import GymEnvironment
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
from allenact_plugins.gym_plugin.gym_tasks import GymContinuousTask, GymTaskSampler
from allenact_plugins.gym_plugin.mujoco_batch import MuJoCoTaskBatch, batch_obstacle
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS, MuJoCoTask
from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic


def samplers(env_id, count=4, first_seed=0, **kwargs):
    sensors = [GymMuJoCoSensor(env_id, uuid="state")]
    return [GymTaskSampler(env_id, sensors=sensors, seed=first_seed + i, **kwargs) for i in range(count)]


def serial_tasks(env_id, **kwargs):
    return SingleProcessVectorSampledTasks.from_samplers(samplers(env_id, **kwargs))


def batched_tasks(env_id, num_threads=2, **kwargs):
    batch = GymTaskSampler.make_batch(samplers(env_id, **kwargs), num_threads)
    assert isinstance(batch, MuJoCoTaskBatch)
    return BatchedVectorTasks(batch)


def process_tasks(env_id, **kwargs):
    sensors = [GymMuJoCoSensor(env_id, uuid="state")]
    return make_vector_tasks(
        partial(GymTaskSampler, env_id, sensors=sensors, **kwargs),
        [{"seed": seed} for seed in range(4)],
        action_space=None,
        backend="process",
        max_processes=2,
        mp_ctx=multiprocessing.get_context("fork"),  # quick, because the engine has been imported
    )


def actions_for(tasks, seed=0):
    """Yields [N, A] float32 actions for the samplers that are active at that time."""
    rng = np.random.default_rng(seed)
    size = tasks.action_space.shape[0]
    while True:
        yield torch.from_numpy(rng.normal(scale=0.8, size=(tasks.num_unpaused_tasks, size)).astype(np.float32))


def assert_same_step(one, other):
    for field in ("observations", "rewards", "dones", "truncated", "final_observations", "episodes", "exhausted"):
        first, second = getattr(one, field), getattr(other, field)
        np.testing.assert_equal(first, second, err_msg=field)
    assert one.observations["state"].dtype == other.observations["state"].dtype == np.float32
    assert one.rewards.dtype == other.rewards.dtype == np.float32


NEVER_OVER = [env_id for env_id, task in MUJOCO_TASKS.items() if task.terminated is MuJoCoTask.terminated]
WITH_CONTACT_FORCES = [env_id for env_id, task in MUJOCO_TASKS.items() if task.observes_contact_forces]


@pytest.mark.parametrize(
    ("env_id", "contact_forces"),
    [*((env_id, "live") for env_id in MUJOCO_TASKS), *((env_id, "zero") for env_id in WITH_CONTACT_FORCES)],
)
def test_every_task_equals_its_serial_samplers(env_id, contact_forces):
    kwargs = {"gym_env_kwargs": {"max_episode_steps": 17, "contact_forces": contact_forces}}
    with process_tasks(env_id, **kwargs) as processes:
        serial, batched = serial_tasks(env_id, **kwargs), batched_tasks(env_id, **kwargs)
        np.testing.assert_equal(serial.observe(), batched.observe())
        np.testing.assert_equal(serial.observe(), processes.observe())
        falls = limits = 0
        for _, actions in zip(range(40), actions_for(serial), strict=False):
            step = serial.step_batch(actions)
            assert_same_step(step, batched.step_batch(actions))
            assert_same_step(step, processes.step_batch(actions))
            falls += int((step.dones & ~step.truncated).sum())
            limits += int(step.truncated.sum())
    assert (falls > 0) == (env_id not in NEVER_OVER)
    assert limits > 0 or env_id == "InvertedDoublePendulum-v2", "which falls before"


def collected(tasks, make_model):
    """Returns all that comes of three rollouts, as tensors and plain values."""
    torch.manual_seed(3)
    model = make_model(action_space=tasks.action_space, observation_space=tasks.observation_space)
    collector, storage = RolloutCollector(model, tasks, torch.device("cpu")), RolloutBlockStorage()
    collector.initialize([storage])
    seen = []
    for _ in range(3):
        collector.collect(storage, [storage], 30, bootstrap_truncated=True)
        storage.before_updates(next_value=collector.next_value(storage), use_gae=True, gamma=0.9, tau=0.95)
        seen += [getattr(storage, name).clone() for name in ("rewards", "masks", "actions", "value_preds", "returns")]
        seen += [storage.action_log_probs.clone(), storage.observations.tensor("state").clone()]
        seen += [(episode.sampler, episode.metrics) for episode in collector.pop_episodes()]
        storage.after_updates()
    return [*seen, torch.get_rng_state()]


@pytest.mark.parametrize("env_id", ["Ant-v2", "Hopper-v2", "Humanoid-v2"])
@pytest.mark.parametrize("model_class", [MemorylessActorCritic, NormalizedActorCritic])
def test_workers_collect_what_one_batch_collects(env_id, model_class, monkeypatch):
    make_model = partial(model_class, input_uuid="state")
    kwargs = {"gym_env_kwargs": {"max_episode_steps": 13}}
    lockstep = collected(batched_tasks(env_id, **kwargs), make_model)
    with process_tasks(env_id, **kwargs) as processes:
        monkeypatch.setattr(processes, "step_batch", None)
        collected_apart = collected(processes, make_model)
    for one, other in zip(lockstep, collected_apart, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert any(isinstance(value, tuple) for value in collected_apart), "no episode has ended"


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(
    ("env_id", "limit"),
    [("Ant-v2", 40), ("Hopper-v2", 1000), ("Reacher-v2", 23), ("InvertedDoublePendulum-v2", 7), ("Humanoid-v2", 30)],
)
def test_equals_the_serial_samplers(env_id, limit, num_threads):
    kwargs = {"gym_env_kwargs": {"max_episode_steps": limit}}
    serial, batched = serial_tasks(env_id, **kwargs), batched_tasks(env_id, num_threads, **kwargs)
    np.testing.assert_equal(serial.observe(), batched.observe())
    ends = truncations = 0
    for _, actions in zip(range(110), actions_for(serial), strict=False):
        step = batched.step_batch(actions)
        assert_same_step(serial.step_batch(actions), step)
        ends += len(step.episodes)
        truncations += int(step.truncated.sum())
        assert len(step.final_observations) == step.truncated.sum()
    assert ends > 4
    assert env_id == "Hopper-v2" or truncations > 0
    assert serial.attr("task_info") == batched.attr("task_info")
    assert serial.call("num_steps_taken") == batched.call("num_steps_taken")
    assert serial.attr("cumulative_reward") == batched.attr("cumulative_reward")
    np.testing.assert_equal(serial.call("get_observations"), batched.call("get_observations"))


@pytest.mark.parametrize("env_id", ["Ant-v2", "Humanoid-v2", "InvertedPendulum-v2"])
def test_unit_actions(env_id):
    """Serial, batched, and clipped and stretched beforehand: the same."""
    kwargs = {"gym_env_kwargs": {"unit_actions": True}}
    serial, batched, plain = serial_tasks(env_id, **kwargs), batched_tasks(env_id, **kwargs), serial_tasks(env_id)
    high = float(plain.action_space.high[0])
    assert serial.action_space.high.max() == batched.action_space.high.max() == 1
    for _, actions in zip(range(20), actions_for(serial), strict=False):
        actions *= 2
        given = actions.clone()
        step = batched.step_batch(actions)
        assert torch.equal(actions, given)
        assert_same_step(serial.step_batch(actions), step)
        stretched = plain.step_batch(actions.clamp(-1, 1) * high)
        np.testing.assert_allclose(stretched.rewards, step.rewards, rtol=1e-4, atol=1e-5)


def test_samplers_with_and_without_unit_actions_are_no_batch():
    both = [*samplers("Ant-v2", 1), *samplers("Ant-v2", 1, gym_env_kwargs={"unit_actions": True})]
    assert batch_obstacle(both) == "the samplers have different environments"


def test_an_end_that_is_also_a_limit_is_not_truncated():
    """The double pendulum falls in step 6 or so; with the limit there too, falling counts."""
    free = batched_tasks("InvertedDoublePendulum-v2", count=1)
    push = torch.ones(1, 1)
    lengths = []
    while not lengths:
        lengths = [episode.metrics["ep_length"] for episode in free.step_batch(push).episodes]
    kwargs = {"count": 1, "gym_env_kwargs": {"max_episode_steps": lengths[0]}}
    for tasks in (
        serial_tasks("InvertedDoublePendulum-v2", **kwargs),
        batched_tasks("InvertedDoublePendulum-v2", **kwargs),
    ):
        for _ in range(lengths[0]):
            step = tasks.step_batch(push)
        assert step.dones.tolist() == [True]
        assert step.truncated.tolist() == [False]


def test_paused_and_exhausted_samplers():
    kwargs = {"max_tasks": 2, "task_seeds_list": [3, 4], "deterministic_sampling": True}
    serial, batched = serial_tasks("Hopper-v2", **kwargs), batched_tasks("Hopper-v2", **kwargs)
    num_steps = 0
    for action in actions_for(serial):
        step, other = serial.step_batch(action), batched.step_batch(action)
        for position in step.exhausted:  # their rows are undefined
            step.observations["state"][position] = other.observations["state"][position] = 0
        assert_same_step(step, other)
        for position in reversed(step.exhausted):
            serial.pause_at(position)
            batched.pause_at(position)
        num_steps += 1
        if serial.num_unpaused_tasks == 0:
            break
        assert serial.lengths() == batched.lengths()
    assert num_steps > 10
    assert batched.num_unpaused_tasks == 0
    batched.resume_all()
    assert batched.state_dict() == [None] * 4  # nothing is being played
    with pytest.raises(TaskError, match="no task left"):
        batched.call("metrics")
    serial.resume_all()
    for tasks in (serial, batched):
        tasks.set_seeds(range(4))
        tasks.reset_all()
    np.testing.assert_equal(serial.observe(), batched.observe())


def test_next_task_abandons_the_current_ones():
    serial, batched = serial_tasks("Walker2d-v2"), batched_tasks("Walker2d-v2")
    for action, _ in zip(actions_for(serial), range(5), strict=False):
        serial.step_batch(action)
        batched.step_batch(action)
    np.testing.assert_equal(serial.next_task(force_advance_scene=True), batched.next_task(force_advance_scene=True))
    assert batched.call("num_steps_taken") == [0] * 4


def assert_plain(state):
    """States may consist of these types only."""
    if isinstance(state, dict | list | tuple):
        for child in state.values() if isinstance(state, dict) else state:
            assert_plain(child)
    else:
        assert type(state) in (str, bytes, int, float, bool, type(None), np.ndarray), type(state)


def converted(state, kind, function):
    """Returns a copy of a nested state in which `function` has been applied to all values of type `kind`."""
    if isinstance(state, dict):
        return {name: converted(child, kind, function) for name, child in state.items()}
    if isinstance(state, list):
        return [converted(child, kind, function) for child in state]
    return function(state) if isinstance(state, kind) else state


def as_tensors(state):
    return converted(state, np.ndarray, torch.from_numpy)


def as_arrays(state):
    return converted(state, torch.Tensor, torch.Tensor.numpy)


@pytest.mark.parametrize("saver", [serial_tasks, batched_tasks])
@pytest.mark.parametrize("restorer", [serial_tasks, batched_tasks])
@pytest.mark.parametrize("env_id", ["Ant-v2", "Hopper-v2", "Humanoid-v2", "Reacher-v2"])
def test_a_restored_run_equals_the_uninterrupted_one(env_id, saver, restorer, tmp_path):
    kwargs = {"gym_env_kwargs": {"max_episode_steps": 25}}
    whole = saver(env_id, **kwargs)
    actions = actions_for(whole)
    for _ in range(40):
        whole.step_batch(next(actions))
    states = whole.state_dict()
    assert_plain(states)
    torch.save(as_tensors(states), tmp_path / "states.pt")  # they end up in a checkpoint

    restored = restorer(env_id, first_seed=77, **kwargs)
    for _ in range(3):
        restored.step_batch(next(actions_for(restored)))
    loaded = as_arrays(torch.load(tmp_path / "states.pt", weights_only=True))
    assert restored.load_state_dict(loaded) == []
    np.testing.assert_equal(restored.observe(), whole.observe())
    np.testing.assert_equal(restored.state_dict(), states)
    for _ in range(30):
        action = next(actions)
        assert_same_step(whole.step_batch(action), restored.step_batch(action))


def test_samplers_without_a_state_restart():
    tasks = batched_tasks("Hopper-v2")
    states = tasks.state_dict()
    for action, _ in zip(actions_for(tasks), range(3), strict=False):
        tasks.step_batch(action)
    assert tasks.load_state_dict([states[0], None, states[2], None]) == [1, 3]
    assert tasks.call("num_steps_taken") == [0] * 4


class FinalHeightSensor(Sensor):
    """What a callback might want to know of a finished task."""

    def __init__(self):
        super().__init__("final", None)

    def get_observation(self, env, task, *args, **kwargs):
        return [task.num_steps_taken(), task.is_done(), float(env.current_observation[0])]


def test_callback_sensors_see_the_finished_task():
    suite = SensorSuite.__new__(SensorSuite)  # the sensor has no space, and needs none here
    suite.sensors = {"final": FinalHeightSensor()}
    serial = SingleProcessVectorSampledTasks.from_samplers(samplers("Hopper-v2"), callback_sensor_suite=suite)
    batched = batched_tasks("Hopper-v2")
    batched.batch.callback_suite = suite
    num_ends = 0
    for action, _ in zip(actions_for(serial), range(80), strict=False):
        expected, step = serial.step_batch(action), batched.step_batch(action)
        assert_same_step(expected, step)
        for episode in step.episodes:
            assert episode.callback_data["final"][:2] == [episode.metrics["ep_length"], True]
            num_ends += 1
    assert num_ends > 2


@pytest.mark.faults(
    "MuJoCo simulation becomes unstable", "its episode ends, with a warning", "the rest of that episode"
)
@pytest.mark.parametrize("where", ["action", "velocity"])
def test_an_unstable_simulation_ends_its_episode_only(where):
    alone = samplers("Ant-v2")
    serial, batched = SingleProcessVectorSampledTasks.from_samplers(alone), batched_tasks("Ant-v2")
    actions = torch.zeros(4, 8)
    if where == "action":
        actions[2] = float("nan")
    else:
        alone[2].env.mujoco_env.simulations._fields.qvel[0, 3] = 1e20
        batched.batch.simulations._fields.qvel[2, 3] = 1e20
    step = batched.step_batch(actions)
    assert_same_step(serial.step_batch(actions), step)
    assert step.dones.tolist() == [False, False, True, False]
    assert step.truncated.tolist() == [False] * 4
    assert step.rewards[2] == 0
    assert np.isfinite(step.observations["state"]).all()
    for _, actions in zip(range(20), actions_for(serial), strict=False):
        assert_same_step(serial.step_batch(actions), batched.step_batch(actions))
    assert batched.batch.simulations.num_unstable == 1


def test_an_engine_that_runs_out_of_memory_ends_one_episode_only(tmp_path, monkeypatch):
    """The error is MuJoCo's own: an ant that touches the floor with many parts needs more than 16 KB."""
    assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
    small = re.sub("(<mujoco.*?>)", r'\1<size memory="16K"/>', (assets / "ant.xml").read_text(), count=1)
    (tmp_path / "small.xml").write_text(small)
    kwargs = {"gym_env_kwargs": {"xml_file": str(tmp_path / "small.xml"), "max_episode_steps": 25}}
    serial, batched = serial_tasks("Ant-v2", **kwargs), batched_tasks("Ant-v2", **kwargs)
    errors, find = [], batched.batch.simulations._find_unstable
    monkeypatch.setattr(
        batched.batch.simulations, "_find_unstable", lambda raised, *rest: errors.extend(raised) or find(raised, *rest)
    )
    for _, actions in zip(range(60), actions_for(serial), strict=False):
        assert_same_step(serial.step_batch(actions), batched.step_batch(actions))
    assert 0 < len(errors) == batched.batch.simulations.num_unstable < 10


def calls_in_a_step(tasks, steps):
    """Returns how many functions, Python's and C's, each of some steps calls."""
    counts = []
    for _, actions in zip(range(steps), actions_for(tasks), strict=False):
        events = []
        sys.setprofile(lambda frame, event, argument, events=events: events.append(event))
        try:
            tasks.step_batch(actions)
        finally:
            sys.setprofile(None)
        counts.append(sum(event in ("call", "c_call") for event in events))
    return counts


def test_no_sampler_is_asked_for_anything_between_ends(monkeypatch):
    kwargs = {"gym_env_kwargs": {"max_episode_steps": 12}}
    few, many = (batched_tasks("HalfCheetah-v2", count=count, **kwargs) for count in (2, 32))
    asked = []
    for owner, names in (
        (GymContinuousTask, ("step", "synchronise", "get_observations", "metrics", "is_done")),
        (GymEnvironment, ("step", "synchronise", "reset")),
        (GymTaskSampler, ("next_task",)),
        (SensorSuite, ("get_observations",)),
    ):
        for name in names:
            method = getattr(owner, name)
            monkeypatch.setattr(
                owner, name, lambda *args, name=name, method=method, **kw: asked.append(name) or method(*args, **kw)
            )
    assert calls_in_a_step(few, 11) == calls_in_a_step(many, 11), "as much Python for 2 samplers as for 32"
    assert asked == []
    assert calls_in_a_step(few, 1) < calls_in_a_step(many, 1)
    assert asked.count("next_task") == 2 + 32


def test_rendering_one_of_many():
    from allenact.utils.rendering import RenderingUnavailable

    tasks = batched_tasks("Hopper-v2", count=2, gym_env_kwargs={"width": 32, "height": 32})
    try:
        pictures = tasks.render("raw_rgb_list")
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 2
    tasks.close()


class OtherTask(GymContinuousTask):
    """A user's own class."""


class OtherSensor(GymMuJoCoSensor):
    """A user's own class."""


class OtherSampler(GymTaskSampler):
    """A user's own class."""


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (lambda: samplers("Pendulum-v1", 1), "Pendulum-v1 is not one of the MuJoCo -v2 tasks"),
        (lambda: samplers("Ant-v2", 1) + samplers("Hopper-v2", 1), "different environments"),
        (
            lambda: samplers("Ant-v2", 1) + samplers("Ant-v2", 1, gym_env_kwargs={"contact_forces": "zero"}),
            "different environments",
        ),
        (lambda: samplers("Ant-v2", 1, task_selector=lambda env_id: OtherTask), "OtherTask may do more"),
        (lambda: [GymTaskSampler("Ant-v2", sensors=[OtherSensor("Ant-v2", "x")])], "not OtherSensor"),
        (
            lambda: [GymTaskSampler("Ant-v2", sensors=[GymMuJoCoSensor("Ant-v2", uuid) for uuid in "ab"])],
            "not GymMuJoCoSensor, GymMuJoCoSensor",
        ),
        (
            lambda: [GymTaskSampler("Ant-v2", sensors=[GymMuJoCoSensor("Ant-v2", uuid)]) for uuid in "ab"],
            "different uuids",
        ),
        (lambda: [OtherSampler("Ant-v2")], "OtherSampler may do more"),
    ],
)
def test_what_cannot_be_batched(others, reason):
    refused = others()
    assert reason in batch_obstacle(refused)
    assert GymTaskSampler.make_batch(refused, 1) is None
    assert reason in GymTaskSampler.batch_obstacle(refused)


def test_description():
    assert batched_tasks("Ant-v2", 2).description == "stepped as one MuJoCo batch of Ant-v2 on 2 threads"
