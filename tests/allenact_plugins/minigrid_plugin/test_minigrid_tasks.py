import re

import numpy as np
import pytest

from allenact.errors import TaskError
from allenact_plugins.minigrid_plugin.minigrid_environments import AskForHelpSimpleCrossing, FastCrossing
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor
from allenact_plugins.minigrid_plugin.minigrid_tasks import AskForHelpSimpleCrossingTask, MiniGridTask

LEFT, RIGHT, FORWARD = 0, 1, 2
SENSORS = [EgocentricMiniGridSensor(agent_view_size=5)]


def make_task(env, max_steps=100, **kwargs):
    return MiniGridTask(env=env, sensors=SENSORS, task_info={"id": "one"}, max_steps=max_steps, **kwargs)


def play(task):
    """Follows the expert to the end; returns the actions."""
    actions = []
    while not task.is_done():
        action, success = task.query_expert()
        assert success
        task.step(action)
        actions.append(action)
    return actions


def fewest_actions(env):
    """Breadth-first search that moves the real agent about: nothing in common with the expert's graph."""
    queue = [(tuple(map(int, env.agent_pos)), env.agent_dir, 0)]
    seen = set()
    while queue:
        position, direction, cost = queue.pop(0)
        for action in (LEFT, RIGHT, FORWARD):
            env.agent_pos, env.agent_dir, env.step_count = position, direction, 0
            _, reward, terminated, _, _ = env.step(action)
            if reward > 0:
                return cost + 1
            state = (tuple(map(int, env.agent_pos)), env.agent_dir)
            if not terminated and state not in seen:
                seen.add(state)
                queue.append((*state, cost + 1))
    raise AssertionError("no way to the goal")


def test_expert_walks_a_hand_made_shortest_path(draw):
    # Around the wall: down, down, right, right, up, up with a turn at each corner.
    task = make_task(draw("##### #v#G# #.#.# #...# #####"))
    assert play(task) == [FORWARD, FORWARD, LEFT, FORWARD, FORWARD, LEFT, FORWARD, FORWARD]
    assert task.reached_terminal_state()
    metrics = task.metrics()
    assert metrics["success"] == 1
    assert metrics["ep_length"] == 8
    assert metrics["reward"] == pytest.approx(1 - 0.9 * 8 / task.env.max_steps)
    assert metrics["task_info"] == {"id": "one"}


@pytest.mark.parametrize(("seed", "obstacle"), [(seed, kind) for seed in range(3) for kind in ("lava", "wall")])
def test_expert_takes_as_few_actions_as_possible(seed, obstacle):
    env = FastCrossing(size=9, num_crossings=2, obstacle_type=obstacle, seed=seed)
    best = fewest_actions(env)
    env.same_seed_reset()
    assert len(play(make_task(env))) == best


def test_expert_is_asked_from_any_state(draw):
    env = draw("##### #>..# #.L.# #..G# #####")
    task = make_task(env)
    task.step(LEFT)  # against the expert's advice
    task.step(FORWARD)
    best = fewest_actions(draw("##### #^..# #.L.# #..G# #####"))
    assert len(play(task)) == best


def test_expert_has_nothing_to_say(draw):
    unreachable = make_task(draw("##### #>#G# #####"))
    assert unreachable.query_expert() == (-1, False)
    finished = make_task(draw("##### #.>G# #####"))
    finished.step(FORWARD)
    assert finished.query_expert() == (-1, False)
    on_goal = make_task(draw("##### #>.G# #####"))
    on_goal.env.agent_pos = (3, 1)
    assert on_goal.query_expert() == (-1, False)


def test_expert_refuses_worlds_it_does_not_know(draw):
    with pytest.raises(TaskError, match=re.escape("a grid that also holds: ball")):
        make_task(draw("##### #>oG# #####")).query_expert()


def test_corrupt_expert_answers_at_random_once_it_was_near(draw):
    picture = "######## #>....G# ########"
    env = draw(picture)
    env.reset(seed=5)
    task = make_task(env, corrupt_expert_within_actions_of_goal=3)
    answers = [task.query_expert()]
    task.step(FORWARD)
    answers.append(task.query_expert())
    assert answers == [(FORWARD, True)] * 2  # 5 and 4 actions away
    task.step(FORWARD)
    advice = [task.query_expert() for _ in range(300)]
    assert all(success for _, success in advice)
    counts = np.bincount([action for action, _ in advice], minlength=3)
    assert counts.min() > 60
    env.agent_pos = (1, 1)  # far away again
    assert {task.query_expert()[0] for _ in range(50)} == {LEFT, RIGHT, FORWARD}


def test_graph_is_shared_under_a_name(draw):
    picture = "##### #>.G# #####"
    first = make_task(draw(picture), task_cache_uid="test_graph_is_shared_under_a_name")
    assert not first.graph_created
    graph = first.graph
    assert first.graph_created
    assert make_task(draw(picture), task_cache_uid="test_graph_is_shared_under_a_name").graph is graph
    assert make_task(draw(picture)).graph is not graph
    assert graph.number_of_nodes() == 3 * 4 + 1
    assert graph.has_edge((3, 1, 2), "unified_goal")
    assert graph.has_edge((1, 1, 0), (2, 1, 0))
    assert not graph.has_edge((1, 1, 1), (1, 2, 1))


def test_truncation_is_told_from_termination(draw):
    env = draw("##### #>.G# #####", max_steps=3)
    task = make_task(env, max_steps=3)
    results = [task.step(LEFT) for _ in range(3)]
    assert [result.done for result in results] == [False, False, True]
    assert task.was_truncated()
    assert task.metrics()["success"] == 0

    env.reset()
    task = make_task(env, max_steps=3)
    assert task.step(FORWARD).done is False
    assert task.step(FORWARD).done is True
    assert not task.was_truncated()


def test_a_shorter_limit_of_the_task_truncates_too(draw):
    task = make_task(draw("##### #>.G# #####", max_steps=50), max_steps=2)
    task.step(LEFT)
    assert task.step(LEFT).done is True
    assert task.was_truncated()


def test_actions_are_python_ints(draw):
    task = make_task(draw("##### #>.G# #####"))
    with pytest.raises(TaskError, match="takes a Python int"):
        task.step(np.int64(1))


def test_render_needs_no_render_mode(draw):
    image = make_task(draw("##### #>.G# #####")).render("rgb")
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.shape[1] * 3 == image.shape[0] * 5  # [H, W, 3], three rows of five cells


def test_actions_may_be_renamed_by_subclasses(draw):
    class Backwards(MiniGridTask):
        _ACTION_NAMES = ("forward", "right", "left")
        _ACTION_IND_TO_MINIGRID_IND = (2, 1, 0)

    task = Backwards(env=draw("##### #v.G# #####"), sensors=SENSORS, task_info={}, max_steps=9)
    assert play(task) == [2, 0, 0]
    assert Backwards.class_action_names() == task.action_names() == ("forward", "right", "left")


def test_environments_of_old_are_stepped_too(draw):
    class FourValues(type(draw("### #># ###"))):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, reward, terminated or truncated, info | {"TimeLimit.truncated": truncated}

    task = make_task(FourValues("##### #>.G# #####", max_steps=3), max_steps=9)
    assert play(task) == [FORWARD, FORWARD]
    assert not task.was_truncated()
    task = make_task(FourValues("##### #>.G# #####", max_steps=1), max_steps=9)
    assert task.step(LEFT).done
    assert task.was_truncated()


def test_share_of_questions():
    env = AskForHelpSimpleCrossing(size=7, seed=0)
    task = AskForHelpSimpleCrossingTask(env, SENSORS, {}, 4)
    assert task.action_space.n == 4
    seen = [task.step(action).observation["minigrid_ego_image"].any() for action in (3, 0, 3, 0)]
    assert seen == [True, False, True, False]
    metrics = task.metrics()
    assert metrics["toggle_percent"] == 0.5
    assert metrics["explored_count"] == 1.0
    assert metrics["success"] == 0
