import gymnasium
import numpy as np
import pytest

from allenact_plugins.minigrid_plugin.minigrid_environments import AskForHelpSimpleCrossing, FastCrossing

LEFT, RIGHT, FORWARD, TOGGLE = 0, 1, 2, 5


def test_fast_crossing_is_seeded_by_its_constructor():
    grids = [FastCrossing(size=9, num_crossings=2, seed=seed).grid for seed in (3, 3, 4, 5)]
    assert grids[0] == grids[1]
    assert grids[0] != grids[2] or grids[0] != grids[3]


def test_fast_crossing_starts_over_in_the_same_grid():
    env = FastCrossing(size=7, seed=1)
    first, _ = env.reset(seed=2)
    grid = env.grid
    for action in (RIGHT, LEFT, RIGHT, FORWARD):
        env.step(action)
    assert env.step_count == 4
    again = env.same_seed_reset()
    assert env.grid is grid
    assert env.step_count == 0
    assert again["direction"] == first["direction"]
    assert np.array_equal(again["image"], first["image"])
    env.step(RIGHT)
    partial, info = env.reset(partial_reset=True)
    assert env.grid is grid
    assert info == {}
    assert np.array_equal(partial["image"], first["image"])


def test_the_view_is_blank_until_help_is_asked_for():
    env = AskForHelpSimpleCrossing(seed=0)
    blank, _ = env.reset(seed=0)
    assert blank["image"].sum() == 0
    assert env.step(TOGGLE)[0]["image"].sum() > 0
    assert env.step(LEFT)[0]["image"].sum() == 0


def test_permanent_help_lasts_for_one_episode():
    env = AskForHelpSimpleCrossing(seed=0, toggle_is_permenant=True)
    assert env.step(LEFT)[0]["image"].sum() == 0
    env.step(TOGGLE)
    assert env.step(LEFT)[0]["image"].sum() > 0
    assert env.same_seed_reset()["image"].sum() == 0


def test_new_cells_are_counted_and_paid_for():
    env = AskForHelpSimpleCrossing(size=9, exploration_reward=0.25, seed=0)
    env.reset(seed=0)
    assert env.metrics() == {"explored_count": 1, "final_distance": 12}
    # Forward, twice around, back onto the first cell, and forward once more: one new cell only.
    actions = [FORWARD, LEFT, LEFT, FORWARD, LEFT, LEFT, FORWARD]
    rewards = [env.step(action)[1] for action in actions]
    assert rewards == [0.25, 0, 0, 0, 0, 0, 0]
    assert env.metrics() == {"explored_count": 2, "final_distance": 11}


@pytest.mark.parametrize("penalty", [-1.5, None])
def test_death_is_punished_but_running_out_of_time_is_not(penalty):
    env = AskForHelpSimpleCrossing(size=7, obstacle_type="lava", death_penalty=penalty, seed=0)
    env.grid.set(2, 1, env.obstacle_type())
    _, reward, terminated, truncated, _ = env.step(FORWARD)
    assert (reward, terminated, truncated) == (penalty or 0.0, True, False)
    assert not env.was_successful

    env.reset(seed=0)
    env.step_count = env.max_steps - 1
    _, reward, terminated, truncated, _ = env.step(LEFT)
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_success_is_noticed():
    env = AskForHelpSimpleCrossing(size=7, death_penalty=-1.0, seed=0)
    env.agent_pos, env.agent_dir = (4, 5), 0
    env.grid.set(4, 5, None)
    _, reward, terminated, _, _ = env.step(FORWARD)
    assert terminated
    assert reward == pytest.approx(1 - 0.9 / env.max_steps)
    assert env.was_successful
    env.reset(seed=1)
    assert not env.was_successful


@pytest.mark.parametrize(
    ("name", "size", "crossings"),
    [("LavaCrossingS25N10", 25, 10), ("LavaCrossingS15N7", 15, 7), ("LavaCrossingS11N7", 9, 4)],
)
def test_large_crossings_are_registered(name, size, crossings):
    env = gymnasium.make(f"MiniGrid-{name}-v0").unwrapped
    assert type(env).__name__ == name
    assert (env.width, env.num_crossings) == (size, crossings)
