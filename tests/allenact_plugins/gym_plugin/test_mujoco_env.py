"""The -v2 tasks as Gymnasium environments, and the simulations behind them."""

import copy
import pickle
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from allenact.errors import CheckpointError
from allenact.utils.rendering import RenderingUnavailable
from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv, register_environments
from allenact_plugins.gym_plugin.mujoco_simulations import MuJoCoSimulations
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS

LIMITS_AND_THRESHOLDS = {
    "Ant-v2": (1000, 6000),
    "HalfCheetah-v2": (1000, 4800),
    "Hopper-v2": (1000, 3800),
    "Walker2d-v2": (1000, None),
    "Humanoid-v2": (1000, None),
    "HumanoidStandup-v2": (1000, None),
    "Swimmer-v2": (1000, 360),
    "Reacher-v2": (50, -3.75),
    "Pusher-v2": (100, 0),
    "InvertedPendulum-v2": (1000, 950),
    "InvertedDoublePendulum-v2": (1000, 9100),
}


@pytest.mark.parametrize("task_id", MUJOCO_TASKS)
def test_registered_with_gymnasium(task_id):
    env = gymnasium.make(gymnasium.spec(task_id))
    assert isinstance(env.unwrapped, MuJoCoEnv)
    assert (env.spec.max_episode_steps, env.spec.reward_threshold) == LIMITS_AND_THRESHOLDS[task_id]
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation.dtype == np.float64
    assert info == {}
    assert env.action_space.dtype == np.float32
    env.close()


def test_registering_again_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_environments()


def test_gymnasium_s_own_checks():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(For Box action spaces|spec is None|infinity).*")
        check_env(MuJoCoEnv("Hopper-v2"), skip_render_check=True)


def test_importing_loads_neither_mujoco_nor_torch():
    code = (
        "import sys, allenact_plugins.gym_plugin.mujoco_env; "
        "bad = {'mujoco', 'torch', 'gymnasium.envs.mujoco', 'glfw', 'OpenGL'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stepping_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv\n"
        "env = MuJoCoEnv('Hopper-v2'); env.reset(seed=0); env.step([0.0, 0.0, 0.0])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def random_actions(env, count, seed=0):
    high = env.task.model.actuator_ctrlrange[:, 1]
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(high))) * high


def play(env, actions):
    """Returns everything the environment answered; resets it where an episode ends."""
    record = []
    for action in actions:
        observation, reward, terminated, _, info = env.step(action)
        record.append((observation, reward, terminated, info))
        if terminated:
            record.append(env.reset()[0])
    return record


def assert_equal_records(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_equal(one, other)  # exact, nested


@pytest.mark.parametrize("task_id", MUJOCO_TASKS)
def test_a_restored_episode_goes_on_with_the_same_bits(task_id):
    env = MuJoCoEnv(task_id)
    env.reset(seed=3)
    actions = random_actions(env, 120)
    play(env, actions[:33])
    state = pickle.loads(pickle.dumps(env.state_dict()))
    expected = play(env, actions[33:])

    restored = MuJoCoEnv(task_id)
    restored.load_state_dict(state)
    assert_equal_records(play(restored, actions[33:]), expected)

    env.load_state_dict(state)  # and in the environment that has gone on
    assert_equal_records(play(env, actions[33:]), expected)


def test_the_state_is_a_copy():
    env = MuJoCoEnv("Hopper-v2")
    env.reset(seed=0)
    state = env.state_dict()
    kept = copy.deepcopy(state)
    play(env, random_actions(env, 5))
    np.testing.assert_equal(state, kept)


def test_a_state_of_another_model_is_refused():
    hopper, walker = MuJoCoEnv("Hopper-v2"), MuJoCoEnv("Walker2d-v2")
    hopper.reset(seed=0)
    with pytest.raises(CheckpointError, match="not one of Walker2d"):
        walker.load_state_dict(hopper.state_dict())


@pytest.mark.parametrize("task_id", MUJOCO_TASKS)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_together_equals_alone(task_id, num_threads):
    """Five simulations on a batch, some pausing at times, against five environments."""
    envs = [MuJoCoEnv(task_id) for _ in range(5)]
    together = MuJoCoSimulations(envs[0].task, 5, num_threads)
    rngs = [np.random.default_rng(seed) for seed in range(5)]
    for seed, env in enumerate(envs):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], together.reset(seed, rngs[seed]))
    choice = np.random.default_rng(9)
    actions = [random_actions(envs[0], 60, seed) for seed in range(5)]
    for k in range(60):
        ids = np.flatnonzero(choice.random(5) < 0.8) if k % 3 else np.arange(5)
        if not len(ids):
            continue
        step = together.step([actions[index][k] for index in ids], ids)
        for position, index in enumerate(ids):
            observation, reward, terminated, _, info = envs[index].step(actions[index][k])
            np.testing.assert_array_equal(step.observations[position], observation)
            assert step.rewards[position] == reward
            assert step.terminated[position] == terminated
            assert step.reward_terms.keys() == info.keys() - {"unstable"}
            if terminated:
                np.testing.assert_array_equal(envs[index].reset()[0], together.reset(index, rngs[index]))


@pytest.mark.parametrize(("where", "bad"), [("ctrl", np.nan), ("ctrl", np.inf), ("ctrl", 1e300), ("qvel", 1e20)])
def test_absurd_numbers_end_one_episode_only(where, bad, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = MuJoCoEnv("Ant-v2")
    reference = MuJoCoSimulations(env.task, 3)
    simulations = MuJoCoSimulations(env.task, 3)
    for index in range(3):
        simulations.reset(index, np.random.default_rng(index))
        reference.reset(index, np.random.default_rng(index))
    actions = np.full((3, 8), 0.1)
    expected = reference.step(actions, range(3))
    if where == "ctrl":
        actions[1, 2] = bad
    else:
        simulations._fields.qvel[1, 0] = bad
    step = simulations.step(actions, range(3))
    np.testing.assert_array_equal(step.unstable, [False, True, False])
    np.testing.assert_array_equal(step.terminated, [False, True, False])
    assert step.rewards[1] == 0
    assert np.isfinite(step.observations).all()
    np.testing.assert_array_equal(step.observations[[0, 2]], expected.observations[[0, 2]])
    np.testing.assert_array_equal(step.rewards[[0, 2]], expected.rewards[[0, 2]])
    assert simulations.num_unstable == 1
    assert "Ant: a simulation met numbers" in caplog.text
    assert not list(tmp_path.iterdir())  # the engine writes no log file

    simulations.reset(1, np.random.default_rng(1))
    step = simulations.step(np.full((3, 8), 0.1), range(3))
    assert not step.unstable.any()


def test_unstable_simulations_are_counted_aloud(caplog):
    simulations = MuJoCoSimulations(MuJoCoEnv("Hopper-v2").task, 4)
    for _ in range(3):
        for index in range(4):
            simulations.reset(index, np.random.default_rng(index))
        simulations.step(np.full((4, 3), np.nan), range(4))
    assert simulations.num_unstable == 12
    assert [record.getMessage().rpartition("So far: ")[2] for record in caplog.records] == [
        "4 in 4 simulations.",
        "12 in 4 simulations.",
    ]


def test_an_engine_error_ends_one_episode_only(monkeypatch):
    from mujoco.batch import SimulationError

    simulations = MuJoCoSimulations(MuJoCoEnv("Hopper-v2").task, 3)
    for index in range(3):
        simulations.reset(index, np.random.default_rng(index))
    engine_step = simulations._batch.step

    def failing_step(ids=None, nstep=1):
        engine_step([0, 2], nstep=nstep)
        raise SimulationError(np.array([1]), "out of stack", 3)

    monkeypatch.setattr(simulations._batch, "step", failing_step)
    step = simulations.step(np.zeros((3, 3)), range(3))
    np.testing.assert_array_equal(step.terminated, [False, True, False])
    assert step.rewards[1] == 0
    assert (step.rewards[[0, 2]] != 0).all()


def test_the_task_limit_is_gymnasium_s():
    env = gymnasium.make(gymnasium.spec("Reacher-v2"))
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(50)]
    assert ends[:-1] == [(False, False)] * 49
    assert ends[-1] == (False, True)


@pytest.mark.parametrize("task_id", ["Ant-v2", "Pusher-v2"])
def test_pictures(task_id):
    env = MuJoCoEnv(task_id, render_mode="rgb_array", width=64, height=48)
    env.reset(seed=0)
    try:
        picture = env.render()
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.min() < picture.max()
    for _ in range(30):
        env.step(random_actions(env, 1)[0])
    assert (env.render() != picture).any()
    before = env.state_dict()
    env.render()
    np.testing.assert_equal(env.state_dict(), before)  # drawing changes nothing
    env.close()


def test_larger_pictures_than_the_model_allows():
    env = MuJoCoEnv("Hopper-v2", render_mode="rgb_array", width=800, height=600)
    env.reset(seed=0)
    try:
        assert env.render().shape == (600, 800, 3)
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    finally:
        env.close()


@pytest.mark.parametrize(("task_id", "tile"), [("Ant-v2", 4 / 3), ("Hopper-v2", 2 / 3), ("Swimmer-v2", 8 / 3)])
def test_the_camera_follows_the_robot_and_the_floor_has_no_end(task_id, tile):
    env = MuJoCoEnv(task_id, render_mode="rgb_array", width=64, height=48)
    env.reset(seed=0)
    try:
        here = env.render().astype(int)
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    difference = np.abs(here - here[::-1, ::-1]).mean()
    for far in (12 * tile, 120 * tile):  # the second is beyond the end of the floor in the model
        env.simulations._fields.qpos[0, 0] = far
        assert np.abs(here - env.render()).mean() < 0.05 * difference
    env.simulations._fields.qpos[0, 0] += 0.4 * tile
    assert np.abs(here - env.render()).mean() > 0.05 * difference, "one sees it move"
    env.close()


def test_shadows_are_drawn_on_request():
    pictures = []
    for shadows in (False, True):
        env = MuJoCoEnv("Ant-v2", render_mode="rgb_array", width=64, height=48, shadows=shadows)
        env.reset(seed=0)
        try:
            pictures.append(env.render())
        except RenderingUnavailable as error:
            pytest.skip(str(error))
        finally:
            env.close()
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("task_id", ["Ant-v2", "Hopper-v2", "Reacher-v2"])
def test_drawing_without_opengl(task_id, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.rendering", None)  # importing it would fail
    env = MuJoCoEnv(task_id, render_mode="rgb_array", width=101, height=80)
    env.reset(seed=0)
    first = env.render_without_opengl()
    assert first.shape == (80, 101, 3)
    before = env.state_dict()
    for action in random_actions(env, 5):
        env.step(action)
    later = env.render_without_opengl()
    assert (later != first).any()
    env.load_state_dict(before)
    np.testing.assert_array_equal(env.render_without_opengl(), first)  # earlier than before: a new episode
    np.testing.assert_equal(env.state_dict(), before)
    env.close()


def test_no_render_mode_no_picture():
    env = MuJoCoEnv("Hopper-v2")
    env.reset(seed=0)
    assert env.render() is None
