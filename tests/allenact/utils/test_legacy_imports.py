"""Old package names, each checked in a fresh interpreter so that this one's imports stay as they are."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def run(code, *, path=(), fails=False):
    """Runs `code` after `import allenact`; returns what it printed."""
    search_path = [str(REPOSITORY), *map(str, path)]
    program = f"import sys; sys.path[:0] = {search_path!r}\nimport allenact\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_gym_holds_the_objects_of_gymnasium():
    run(
        """
        import gym, gymnasium
        import gym.spaces
        from gym.spaces import Box, Dict, Discrete
        from gym.spaces.dict import Dict as DictFromSubmodule
        from gym.utils import seeding
        from gym.envs.registration import register
        assert gym.spaces.Discrete is Discrete is gymnasium.spaces.Discrete
        assert DictFromSubmodule is Dict is gymnasium.spaces.Dict
        from gymnasium.utils.seeding import np_random
        import numpy as np
        generator, seed = seeding.np_random(3)
        assert seed == 3 and isinstance(generator, np.random.Generator)
        same, _ = np_random(3)
        assert (generator.randint(5), generator.rand()) == (same.integers(5), same.random())
        assert generator.randn(2, 3).shape == generator.random_sample((2, 3)).shape == (2, 3)
        import copy, pickle
        for copied in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
            assert copied.randint(100) == copy.deepcopy(generator).randint(100)
        assert gym.utils.seeding is seeding and type(generator.randint(2, 4)) is int
        assert gym.Env is gymnasium.Env and gym.make is gymnasium.make and register is gymnasium.register
        space = gym.spaces.Dict(higher=Discrete(2), lower=Box(0, 1, (3,), "float32"))
        assert isinstance(space, gymnasium.spaces.Dict)
        gym.logger.set_level(40)
        gymnasium.logger.warn("is an error here, unless it is passed over")
        """
    )


def test_the_alias_does_not_load_gymnasium_twice():
    run(
        """
        import gym.envs.classic_control.cartpole, gymnasium.envs.classic_control.cartpole as original
        assert gym.envs.classic_control.cartpole.CartPoleEnv is original.CartPoleEnv
        """
    )


def test_one_line_says_what_was_aliased():
    silent = run("import json")
    assert "gym" not in silent
    out = run("import gym, gym.spaces, gym; from gym import spaces; import logging")
    assert out.count('"gym" is not installed') == 1
    assert 'successor "gymnasium" answers' in out


def test_installing_twice_adds_one_finder():
    run(
        """
        from allenact.utils.legacy_imports import install_legacy_aliases
        before = len(sys.meta_path)
        install_legacy_aliases()
        assert len(sys.meta_path) == before
        assert type(sys.meta_path[-1]).__name__ == "_LegacyFinder"
        """
    )


def test_unknown_submodule_is_not_found():
    assert "No module named 'gym.no_such_thing'" in run("import gym.no_such_thing", fails=True)


def test_an_installed_original_wins(tmp_path):
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym" / "__init__.py").write_text("who = 'the original'\n")
    run("import gym; assert gym.who == 'the original'", path=[tmp_path])
    assert "No module named 'gym.spaces'" in run("import gym.spaces", path=[tmp_path], fails=True)


@pytest.mark.parametrize(("old", "extra"), [("gym_minigrid", "minigrid"), ("gym_minigrid.envs", "minigrid")])
def test_missing_successor_names_the_command(old, extra):
    out = run(
        f"""
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "minigrid" else real(name, *rest)
        try:
            import {old}
        except ImportError as error:
            print(error)
        """
    )
    assert f'pip install "allenact-gym[{extra}]"' in out


def test_minigrid_names():
    pytest.importorskip("minigrid")
    run(
        """
        import gym_minigrid
        from gym_minigrid.minigrid import (
            COLOR_TO_IDX, DIR_TO_VEC, IDX_TO_OBJECT, OBJECT_TO_IDX, STATE_TO_IDX,
            Goal, Grid, Lava, MiniGridEnv, Wall,
        )
        from gym_minigrid.register import register
        import minigrid.core.constants as constants, minigrid.core.world_object as world_object
        import minigrid.minigrid_env
        assert issubclass(MiniGridEnv, minigrid.minigrid_env.MiniGridEnv)
        assert OBJECT_TO_IDX is constants.OBJECT_TO_IDX and IDX_TO_OBJECT[8] == "goal"
        assert Lava is world_object.Lava and Wall is world_object.Wall
        assert MiniGridEnv.Actions.forward == 2
        """
    )


def test_old_environment_classes_keep_their_calls():
    pytest.importorskip("minigrid")
    run(
        """
        import pickle
        import numpy as np
        from gym_minigrid.envs import CrossingEnv, EmptyRandomEnv5x5
        from gym_minigrid.minigrid import MiniGridEnv
        from minigrid.envs import EmptyEnv

        env = EmptyRandomEnv5x5()
        assert isinstance(env, EmptyEnv) and (env.width, env.max_steps) == (5, 100)
        assert isinstance(env, MiniGridEnv) and not isinstance("env", MiniGridEnv)
        starts = set()
        for seed in range(12):
            env.seed(seed)
            observation = env.reset()
            assert set(observation) == {"image", "direction", "mission"}
            starts.add((*map(int, env.agent_pos), int(env.agent_dir)))
            again = EmptyRandomEnv5x5(seed=seed)
            assert np.array_equal(again.reset()["image"], observation["image"])
        assert len(starts) > 5
        observation, reward, done, info = env.step(env.actions.left)
        assert (reward, done, info) == (0, False, {"TimeLimit.truncated": False})
        env.step_count = 99
        assert env.step(env.actions.left)[2:] == (True, {"TimeLimit.truncated": True})

        assert CrossingEnv(size=7, num_crossings=1, seed=3).width == 7
        assert pickle.loads(pickle.dumps(EmptyRandomEnv5x5)) is EmptyRandomEnv5x5
        """
    )


def test_environments_of_ones_own_are_derived_as_they_were():
    pytest.importorskip("minigrid")
    run(
        """
        from gym_minigrid.minigrid import Goal, Grid, MiniGridEnv

        class Room(MiniGridEnv):
            def __init__(self, size=6, seed=3):
                self.resets = 0
                super().__init__(grid_size=size, max_steps=7, see_through_walls=True, agent_view_size=5, seed=seed)

            def _gen_grid(self, width, height):
                self.grid = Grid(width, height)
                self.grid.wall_rect(0, 0, width, height)
                self.put_obj(Goal(), 1 + self.np_random.randint(0, 4), 3)
                self.agent_pos, self.agent_dir = (1, 1), 0
                self.mission = "reach the goal"

            def reset(self):
                self.resets += 1
                return super().reset()

            def step(self, action):
                observation, reward, done, info = super().step(action)
                return observation, reward - 1, done, info

        env = Room()
        assert (env.resets, env.max_steps, env.mission) == (1, 7, "reach the goal")
        goals = set()
        for seed in range(8):
            env.seed(seed)
            first = env.reset()["image"].tolist()
            env.seed(seed)
            assert env.reset()["image"].tolist() == first
            goals.add(str(first))
        assert len(goals) > 1
        observation, reward, done, info = env.step(env.actions.forward)
        assert (reward, done, observation["image"].shape) == (-1, False, (5, 5, 3))
        assert env.render("rgb_array").ndim == 3

        import abc
        from gym_minigrid.envs import EmptyRandomEnv5x5
        assert isinstance(env, MiniGridEnv) and not isinstance(EmptyRandomEnv5x5(), Room)
        class Abstract(Room, abc.ABC): pass
        assert isinstance(Abstract(), Room)
        """
    )
