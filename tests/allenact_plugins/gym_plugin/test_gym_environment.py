"""Ids, keyword arguments, errors and the calling convention of `GymEnvironment`."""

import contextlib

import gymnasium
import numpy as np
import pytest

from allenact.errors import ExperimentConfigError, MissingExtraError, UnknownEnvironmentError, UsageError
from allenact.utils.rendering import RenderingUnavailable
from allenact_plugins.gym_plugin import gym_environment, old_style_env
from allenact_plugins.gym_plugin.gym_environment import RENAMED_IDS, GymEnvironment


class CountingEnv(gymnasium.Env):
    """Counts steps; has the extras that tasks look for."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, end=None, render_mode=None):
        self.end = end
        self.render_mode = render_mode
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.array([self.np_random.random(), 0.0]), {}

    def step(self, action):
        self.count += 1
        return np.array([0.0, self.count]), float(action[0]), self.count == self.end, False, {"count": self.count}

    def render(self):
        return np.full((4, 6, 3), self.count, dtype=np.uint8) if self.render_mode else None

    def metrics(self):
        return {"count": self.count}

    @property
    def was_successful(self):
        return self.count > 2


@pytest.fixture(autouse=True)
def counting_env():
    gymnasium.register("Counting-v0", entry_point=CountingEnv, max_episode_steps=5)
    yield
    del gymnasium.registry["Counting-v0"]


def test_calls_of_old():
    env = GymEnvironment("Counting-v0")
    first = env.reset()
    assert first is env.initial_observation
    assert env.initial_observation is first  # as often as one likes
    observation, reward, done, info = env.step(action=np.array([0.5]))
    assert (observation.tolist(), reward, done, info) == ([0.0, 1.0], 0.5, False, {"count": 1})
    assert env.initial_observation is first
    assert env.current_observation is observation
    assert env.seed(7) == [7]
    seeded = env.reset()
    assert not np.array_equal(env.reset(), seeded)
    np.testing.assert_array_equal(env.reset(seed=7), seeded)
    assert (env.count, env.spec.id, env.action_space.shape) == (0, "Counting-v0", (1,))
    with pytest.raises(AttributeError):
        _ = env.no_such_thing


def test_the_first_observation_comes_when_needed():
    env = GymEnvironment("Counting-v0")
    assert env.initial_observation[1] == 0
    env = GymEnvironment("Counting-v0")
    assert env.step(np.zeros(1))[0][1] == 1


def test_both_ends_of_an_episode():
    env = GymEnvironment("Counting-v0")
    env.reset()
    for _ in range(4):
        assert not env.step(np.zeros(1))[2]
    _, _, done, info = env.step(np.zeros(1))
    assert (done, env.terminated, env.truncated, info["TimeLimit.truncated"]) == (True, False, True, True)
    env = GymEnvironment("Counting-v0", end=5)
    for _ in range(5):
        _, _, done, info = env.step(np.zeros(1))
    assert (done, env.terminated, env.truncated, info["TimeLimit.truncated"]) == (True, True, True, False)
    env.reset()
    assert (env.terminated, env.truncated) == (False, False)


def test_pictures():
    env = GymEnvironment("Counting-v0")
    assert env.render(mode="rgb_array").shape == (4, 6, 3)
    with pytest.raises(UsageError, match="cannot be drawn"):
        GymEnvironment("Counting-v0", render_mode=None).render()


def test_gymnasium_s_own_mujoco_tasks_are_drawn_without_a_display_and_without_opengl(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)  # left alone, Gymnasium would try GLFW, which needs a display
    env = GymEnvironment("Hopper-v5", width=64, height=48)
    with contextlib.suppress(RenderingUnavailable):  # on a machine that cannot draw at all
        assert env.render().shape == (48, 64, 3)
    first = env.render(without_opengl=True)
    assert first.shape == (48, 64, 3)
    env.step(env.action_space.sample())
    assert (env.render(without_opengl=True) != first).any()
    monkeypatch.setenv("ALLENACT_GL_BACKEND", "none: switched off for a test")
    with pytest.raises(RenderingUnavailable, match="apt-get install"):
        env.render()
    env.close()


def test_keyword_arguments_reach_the_environment():
    assert GymEnvironment("Counting-v0", max_episode_steps=3).spec.max_episode_steps == 3
    with pytest.raises(ExperimentConfigError, match=r"(?s)Counting-v0 does not take.*contact_force"):
        GymEnvironment("Counting-v0", contact_force="zero")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Antv-2", '"Ant-v2"'),
        ("HalfCheeta-v2", '"HalfCheetah-v2"'),
        ("Ant-v99", '"Ant-v'),
        ("nowhere:Ant-v2", "Ant-v2"),
    ],
)
def test_unknown_ids(name, suggestion):
    with pytest.raises(UnknownEnvironmentError) as caught:
        GymEnvironment(name)
    assert name in caught.value.what
    assert suggestion in caught.value.do


def test_ids_of_mujoco_py():
    with pytest.raises(UnknownEnvironmentError, match=r'(?s)Ant-v3 needs mujoco-py.*use "Ant-v2"'):
        GymEnvironment("Ant-v3")


@pytest.mark.parametrize("name", RENAMED_IDS)
def test_box2d_under_its_old_names(name, caplog):
    pytest.importorskip("Box2D")
    gym_environment._say_renamed.cache_clear()
    for _ in range(2):
        env = GymEnvironment(name)
    assert caplog.text.count(f'"{name}" is now called "{RENAMED_IDS[name]}"') == 1
    observation = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.step(env.action_space.sample())
    assert env.state_dict() is None  # cannot be saved
    env.close()


def test_box2d_missing(monkeypatch):
    def not_installed(name):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(old_style_env, "load_env_creator", not_installed)
    with pytest.raises(MissingExtraError, match=r'(?s)BipedalWalker-v3 needs.*pip install "allenact-gym\[box2d\]"'):
        GymEnvironment("BipedalWalker-v2")


def test_a_state_needs_one_of_our_environments():
    env = GymEnvironment("Hopper-v2")
    assert env.state_dict() is None  # no episode yet
    env.reset(seed=0)
    state = env.state_dict()
    with pytest.raises(ExperimentConfigError, match="cannot be restored"):
        GymEnvironment("Counting-v0").load_state_dict(state, elapsed_steps=0)


def test_a_restored_episode_keeps_its_limit():
    env = GymEnvironment("Reacher-v2")
    env.reset(seed=0)
    for _ in range(45):
        env.step(np.zeros(2))
    restored = GymEnvironment("Reacher-v2")
    restored.load_state_dict(env.state_dict(), elapsed_steps=45)
    np.testing.assert_array_equal(restored.initial_observation, env.initial_observation)
    np.testing.assert_array_equal(restored.current_observation, env.current_observation)
    assert [restored.step(np.zeros(2))[2] for _ in range(5)] == [False] * 4 + [True]


def test_a_wrapped_environment_is_not_taken_for_ours():
    env = GymEnvironment("Hopper-v2")
    assert env.mujoco_env is not None
    env.env = gymnasium.wrappers.ClipAction(env.env)
    env.reset(seed=0)
    assert env.mujoco_env is None


class Counter(gymnasium.Env):
    """Counts its steps, by what the action says, and can be saved."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += float(action[0])
        return np.array([self.count], np.float32), 0.0, False, False, {}

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_an_environment_that_can_say_its_state_is_saved():
    stretch = gymnasium.wrappers.RescaleAction.wrapper_spec(
        min_action=np.array([-1], np.float32), max_action=np.array([1], np.float32)
    )
    gymnasium.register("Counter-v0", entry_point=Counter, max_episode_steps=5, additional_wrappers=(stretch,))
    try:
        env, restored = GymEnvironment("Counter-v0"), GymEnvironment("Counter-v0")
    finally:
        del gymnasium.registry["Counter-v0"]
    assert env.state_dict() is None, "before its first reset"
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(1, np.float32))
    restored.load_state_dict(env.state_dict(), elapsed_steps=3)
    assert restored.current_observation == 6
    assert [restored.step(np.ones(1, np.float32))[::2] for _ in range(2)] == [(8, False), (10, True)]

    env.env = gymnasium.wrappers.NormalizeReward(env.env)
    assert env.state_dict() is None, "the wrapper has a state of its own"


def test_lunar_lander_makes_no_sparks_before_it_is_drawn():
    """They take most of a step, and change nothing else."""
    pytest.importorskip("Box2D")
    plain, drawn = GymEnvironment("LunarLanderContinuous-v2"), GymEnvironment("LunarLanderContinuous-v2")
    plain.reset(seed=0)
    drawn.reset(seed=0)
    assert drawn.render().shape == (400, 600, 3)
    for _ in range(60):
        expected, got = plain.step(np.ones(2, np.float32)), drawn.step(np.ones(2, np.float32))
        np.testing.assert_array_equal(got[0], expected[0])
        assert got[1:] == expected[1:]
    assert drawn.particles
    assert not plain.particles


class OldEnv(gymnasium.Env):
    """As environments were written for gym."""

    metadata = {"render.modes": ["human", "rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def seed(self, seed=None):
        self.generator = np.random.default_rng(seed)
        return [seed]

    def reset(self):
        self.value = self.generator.random()
        return np.array([self.value], dtype=np.float32)

    def step(self, action):
        return np.array([self.value], dtype=np.float32), 0.5, action == 1, {"action": action}

    def render(self, mode="human"):
        assert mode == "rgb_array"
        return np.zeros((2, 3, 3), dtype=np.uint8)


class OldEnvOfAnyKeywords(OldEnv):
    """`reset` seems to take a seed, but `seed` is what takes it."""

    def reset(self, **kwargs):
        assert not kwargs
        return super().reset()


@pytest.mark.parametrize("env_class", [OldEnv, OldEnvOfAnyKeywords])
def test_environments_written_for_gym(env_class):
    gymnasium.register("Old-v0", entry_point=env_class, max_episode_steps=3)
    try:
        env = GymEnvironment("Old-v0")
        assert env.reset(seed=4) == env.reset(seed=4) != env.reset()
        observation, reward, done, info = env.step(0)
        assert (observation, reward, done, info) == (env.initial_observation, 0.5, False, {"action": 0})
        assert env.step(1)[2]
        assert (env.terminated, env.truncated) == (True, False)
        env.reset()
        assert [env.step(0)[2] for _ in range(3)] == [False, False, True]
        assert (env.terminated, env.truncated) == (False, True)
        assert env.render().shape == (2, 3, 3)
        assert (env.spec.id, env.spec.max_episode_steps, env.value) == ("Old-v0", 3, env.unwrapped.value)
        assert env.state_dict() is None
    finally:
        del gymnasium.registry["Old-v0"]


@pytest.mark.parametrize("entry_point", [OldEnv, lambda **kwargs: OldEnv(**kwargs)])
def test_environments_written_for_gym_in_wrappers_or_made_by_a_function(entry_point):
    stretch = gymnasium.wrappers.RescaleObservation.wrapper_spec(
        min_obs=np.full(1, 3, np.float32), max_obs=np.full(1, 4, np.float32)
    )
    gymnasium.register("Old-v1", entry_point=entry_point, additional_wrappers=(stretch,))
    try:
        env = GymEnvironment("Old-v1")
        assert 3 <= env.reset(seed=4)[0] <= 4
    finally:
        del gymnasium.registry["Old-v1"]


class NewEnvWithSeed(gymnasium.Env):
    """Has today's calls, through any keywords, and a method `seed` besides."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def seed(self, seed=None):
        super().reset(seed=seed)

    def reset(self, **kwargs):
        return np.array([self.np_random.random()], dtype=np.float32), {}

    def step(self, action):
        return np.zeros(1, dtype=np.float32), 0.5, False, action == 1, {}


def test_an_environment_that_only_looks_like_one_written_for_gym():
    gymnasium.register("New-v0", entry_point=NewEnvWithSeed)
    try:
        env = GymEnvironment("New-v0")
        assert env.reset(seed=4) == env.reset(seed=4)
        assert env.reset(seed=4).shape == (1,)
        assert env.step(1)[2]
        assert (env.terminated, env.truncated) == (False, True)
    finally:
        del gymnasium.registry["New-v0"]
