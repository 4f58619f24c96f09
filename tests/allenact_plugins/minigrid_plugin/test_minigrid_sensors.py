import re

import numpy as np
import pytest

from allenact.errors import TaskError
from allenact_plugins.minigrid_plugin.minigrid_sensors import (
    ALL_VOCAB_TOKENS,
    EgocentricMiniGridSensor,
    MiniGridMissionSensor,
)
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask

EMPTY, WALL, GOAL, LAVA = 1, 2, 8, 9


def test_view_of_an_agent_that_looks_up(draw):
    env = draw("##### #.G.# #L.## #.^.# #####")
    view = EgocentricMiniGridSensor(agent_view_size=3).get_observation(env, task=None)
    assert view.dtype == np.uint8
    expected = [[EMPTY, LAVA, EMPTY], [GOAL, EMPTY, EMPTY], [EMPTY, WALL, EMPTY]]  # by column, far to near
    assert view[:, :, 0].tolist() == expected


def test_view_turns_with_the_agent(draw):
    env = draw("##### #.GL# #.>.# #.#.# #####")
    view = EgocentricMiniGridSensor(agent_view_size=3).get_observation(env, task=None)
    expected = [[WALL, LAVA, GOAL], [WALL, EMPTY, EMPTY], [WALL, EMPTY, WALL]]  # left hand first, far to near
    assert view[:, :, 0].tolist() == expected


def test_channels_are_object_colour_and_state(draw):
    env = draw("##### #.GL# #.>.# #.#.# #####")
    for channels in (1, 2, 3):
        sensor = EgocentricMiniGridSensor(agent_view_size=3, view_channels=channels)
        view = sensor.get_observation(env, task=None)
        assert sensor.observation_space.contains(view)
        assert view[0, 2].tolist() == [GOAL, 1, 0][:channels]  # green
        assert view[0, 0].tolist() == [WALL, 5, 0][:channels]  # grey


def test_classic_table_sizes():
    sensor = EgocentricMiniGridSensor(agent_view_size=5, view_channels=3)
    assert (sensor.num_objects, sensor.num_colors, sensor.num_states) == (11, 6, 3)
    assert sensor.observation_space.shape == (5, 5, 3)
    assert (sensor.observation_space.low.min(), sensor.observation_space.high.max()) == (0, 10)


def test_one_view_is_made_per_step(draw, monkeypatch):
    env = draw("####### #>....# #....G# #######", agent_view_size=7)
    calls = []
    original = env.gen_obs
    monkeypatch.setattr(env, "gen_obs", lambda: calls.append(1) or original())
    task = MiniGridTask(env, [EgocentricMiniGridSensor(agent_view_size=5, view_channels=3)], {}, 20)
    assert task.get_observations()["minigrid_ego_image"].shape == (5, 5, 3)
    calls.clear()
    observation = task.step(2).observation["minigrid_ego_image"]
    assert len(calls) == 1
    assert np.array_equal(observation, original()["image"])


def test_two_sensors_of_different_sizes_both_get_theirs(draw):
    env = draw("####### #>....# #....G# #######")
    sensors = [EgocentricMiniGridSensor(3, uuid="small"), EgocentricMiniGridSensor(7, uuid="large")]
    task = MiniGridTask(env, sensors, {}, 20)
    for _ in range(3):
        observation = task.step(2).observation
        assert observation["small"].shape == (3, 3, 1)
        assert observation["large"].shape == (7, 7, 1)
        assert np.array_equal(observation["small"], observation["large"][2:5, 4:])


def test_mission_tokens(draw):
    env = draw("### #># ###", mission="Go to the red ball, then pick up a KEY.")
    words = ["go", "to", "the", "red", "ball", "then", "pick", "up", "a", "key"]
    tokens = [ALL_VOCAB_TOKENS.index(word) + 1 for word in words]
    long = MiniGridMissionSensor(instr_len=12)
    observation = long.get_observation(env, task=None)
    assert observation.dtype == np.int64
    assert observation.tolist() == [*tokens, 0, 0]
    assert long.observation_space.contains(observation)
    given = {"mission": "open the door"}
    short = MiniGridMissionSensor(instr_len=2).get_observation(env, task=None, minigrid_output_obs=given)
    assert short.tolist() == [ALL_VOCAB_TOKENS.index("open") + 1, ALL_VOCAB_TOKENS.index("the") + 1]


def test_vocabulary_is_alphabetical():
    assert len(ALL_VOCAB_TOKENS) == 31
    assert sorted(ALL_VOCAB_TOKENS) == ALL_VOCAB_TOKENS


def test_unknown_words_are_refused(draw):
    env = draw("### #># ###", mission="get to the green goal square")
    with pytest.raises(TaskError, match=re.escape("words that BabyAI does not use: get, goal, square.")):
        MiniGridMissionSensor(instr_len=5).get_observation(env, task=None)


def test_a_subclass_may_declare_another_space():
    class Floats(EgocentricMiniGridSensor):
        def _get_observation_space(self):
            space = super()._get_observation_space()
            return type(space)(0.0, 10.0, space.shape, np.float32)

    assert Floats(agent_view_size=3).observation_space.dtype == np.float32
