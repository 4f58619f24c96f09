import signal
import time

import numpy as np
import pytest

pytest.importorskip("minigrid")

from minigrid.envs.babyai import GoToObj

from allenact.testing.contracts import check_task_sampler
from allenact_plugins.babyai_plugin import babyai_tasks
from allenact_plugins.babyai_plugin.babyai_constants import BABYAI_EXPERT_TRAJECTORIES_DIR
from allenact_plugins.babyai_plugin.babyai_tasks import BabyAITask, BabyAITaskSampler
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor, MiniGridMissionSensor

SENSORS = [EgocentricMiniGridSensor(agent_view_size=7, view_channels=3), MiniGridMissionSensor(instr_len=5)]
LEFT, DONE = 0, 6


def make_sampler(env_builder="BabyAI-GoToObj-v0", **kwargs):
    return BabyAITaskSampler(env_builder=env_builder, sensors=SENSORS, **kwargs)


def test_the_bot_solves_a_level():
    sampler = make_sampler("BabyAI-GoToLocal-v0", num_unique_seeds=4, deterministic_sampling=True, max_tasks=4)
    while (task := sampler.next_task()) is not None:
        steps = 0
        while not task.is_done():
            action, success = task.query_expert()
            assert success
            assert task.query_expert() == (action, True)  # asking twice changes nothing
            result = task.step(action)
            steps += 1
        assert result.reward > 0
        metrics = task.metrics()
        assert metrics["success"] == 1
        assert metrics["ep_length"] == steps <= task.max_steps
        assert task.query_expert() == (-1, False)


def test_the_bot_copes_with_an_agent_that_does_not_listen():
    task = make_sampler(seed=1).next_task()
    task.query_expert()
    for action in (LEFT, LEFT, LEFT, 2, LEFT):
        task.step(action)
    while not task.is_done():
        action, success = task.query_expert()
        assert success
        task.step(action)
    assert task.metrics()["success"] == 1


def test_our_step_limit_acts_first():
    task = make_sampler(seed=0).next_task()
    assert task.max_steps == 64
    assert task.env.max_steps == 65
    result = None
    for _ in range(64):
        result = task.step(LEFT)
    assert result.done
    assert not task.reached_terminal_state()
    assert task.was_truncated()
    assert task.metrics()["success"] == 0


def test_a_fixed_step_limit_does_not_grow():
    sampler = make_sampler(lambda: GoToObj(max_steps=10), seed=0)
    assert [(sampler.next_task().max_steps, sampler.env.max_steps) for _ in range(3)] == [(10, 11)] * 3


def test_actions_and_observations():
    task = make_sampler(seed=0).next_task()
    assert task.action_space.n == 7
    assert task.class_action_names() == ("left", "right", "forward", "pickup", "drop", "toggle", "done")
    observation = task.get_observations()
    assert observation["minigrid_ego_image"].shape == (7, 7, 3)
    assert observation["minigrid_mission"].shape == (5,)
    assert observation["minigrid_mission"][0] == 10  # go
    assert task.render("rgb").ndim == 3


def test_seeds_decide_about_missions(capsys):
    def missions(seed):
        sampler = make_sampler("BabyAI-GoToLocal-v0", seed=seed)
        return [sampler.next_task().env.mission for _ in range(6)]

    assert missions(1) == missions(1)
    assert missions(1) != missions(2)
    assert capsys.readouterr().out == ""


def test_a_bot_that_hangs_is_given_up(monkeypatch):
    class Hanging:
        def __init__(self, env):
            pass

        def replan(self, action_taken):
            while True:
                time.sleep(0.01)

    monkeypatch.setattr(babyai_tasks, "BabyAIBot", Hanging)
    monkeypatch.setattr(babyai_tasks, "_FIRST_ADVICE_TIMEOUT_S", 0.1)
    task = make_sampler(seed=0).next_task()
    handler = signal.getsignal(signal.SIGALRM)
    start = time.perf_counter()
    assert task.query_expert() == (-1, False)
    assert time.perf_counter() - start < 2
    assert signal.getsignal(signal.SIGALRM) is handler
    assert task.query_expert() == (-1, False)
    task.step(LEFT)  # the episode goes on without it


def test_a_bot_that_fails_is_given_up(monkeypatch):
    class Failing:
        def __init__(self, env):
            raise AssertionError("no plan")

    monkeypatch.setattr(babyai_tasks, "BabyAIBot", Failing)
    task = make_sampler(seed=0).next_task()
    assert task.query_expert() == (-1, False)


def test_where_demonstrations_are_kept():
    assert BABYAI_EXPERT_TRAJECTORIES_DIR.endswith("allenact_plugins/babyai_plugin/data/demos")
    assert isinstance(BABYAI_EXPERT_TRAJECTORIES_DIR, str)


def test_the_level_keeps_its_reward():
    task = make_sampler(seed=3).next_task()
    while not task.is_done():
        result = task.step(task.query_expert()[0])
    assert result.reward == pytest.approx(1 - 0.9 * task.num_steps_taken() / 65)
    assert np.isscalar(result.reward)


@pytest.mark.parametrize("level", ["BabyAI-GoToObj-v0", "BabyAI-PickupLoc-v0"])
def test_a_saved_mission_goes_on(level):
    check_task_sampler(lambda: make_sampler(level, seed=3))
    sampler = make_sampler(level, seed=3)
    task = sampler.next_task()
    task.step(LEFT)
    assert sampler.state_dict(task)["actions"] == [LEFT]


def test_a_task_without_a_limit_of_its_own_has_the_levels():
    env = make_sampler(seed=0).next_task().env
    assert BabyAITask(env, [EgocentricMiniGridSensor(7, 3)], {}).max_steps == env.max_steps
