"""Each -v2 task against golden values, against Gymnasium's own environments, and against the engine itself."""

import gymnasium
import mujoco
import numpy as np
import pytest

from allenact.errors import ExperimentConfigError
from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv
from allenact_plugins.gym_plugin.mujoco_simulations import MuJoCoSimulations
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS, Fields
from allenact_plugins.gym_plugin.mujoco_tasks.arms import Pusher
from allenact_plugins.gym_plugin.mujoco_tasks.base import _model_path
from allenact_plugins.gym_plugin.mujoco_tasks.humanoids import Humanoid
from allenact_plugins.gym_plugin.mujoco_tasks.legged import Ant, Hopper, Walker2d

# Task and options -> sum of the first observation, first reward, sum of 10 rewards, sum of the last observation,
# first step (from 1) that ended the episode. MuJoCo 4.0.0, x86-64.
GOLDEN = [
    ("Ant-v2", {"contact_forces": "zero"}, 1.823528181, 0.3441753637, 10.04183173, 1.805024812, None),
    ("Ant-v2", {}, 1.823528181, 0.3441753637, 10.02855228, 1.805024812, None),
    ("HalfCheetah-v2", {}, -0.7363787798, -0.09507236302, -1.150060415, -2.001525488, None),
    ("Hopper-v2", {}, 1.251867355, 1.015613318, 9.236502994, -1.852614101, None),
    ("Walker2d-v2", {}, 1.253876766, 0.9715198621, 8.651439992, 11.97722772, None),
    ("Humanoid-v2", {"contact_forces": "zero"}, 61.85263749, 4.966214717, 49.68437421, 92.94182427, None),
    ("Humanoid-v2", {}, 61.85263749, 4.966214717, 46.92758876, 2717.747634, None),
    ("HumanoidStandup-v2", {"contact_forces": "zero"}, 56.91140502, 35.12719098, 403.4869755, 100.7212736, None),
    ("HumanoidStandup-v2", {}, 1908.742454, 34.79927817, 402.8662801, 100.7212736, None),
    ("Swimmer-v2", {}, 0.1196713456, 0.1098647196, 1.221799457, -0.443818352, None),
    ("Reacher-v2", {}, 2.195345402, -0.5134727634, -4.391235031, 0.1818436094, None),
    ("Pusher-v2", {"pushable": False}, -0.03952979738, -1.077658036, -10.43892287, 0.2532451488, None),
    ("InvertedPendulum-v2", {}, -0.02071500879, 1.0, 10.0, -1.801200748, 7),
    ("InvertedDoublePendulum-v2", {}, 1.877501213, 9.30638471, 86.93106083, -4.528593707, 6),
]


@pytest.mark.skipif(mujoco.__version__ != "4.0.0", reason="the values are those of MuJoCo 4.0.0")
@pytest.mark.parametrize(("task_id", "options", "first_obs", "reward", "total", "last_obs", "end"), GOLDEN)
def test_golden_values(task_id, options, first_obs, reward, total, last_obs, end):
    env = MuJoCoEnv(task_id, **options)
    observation, _ = env.reset(seed=0)
    high = env.task.model.actuator_ctrlrange[:, 1]
    assert observation.sum() == pytest.approx(first_obs, rel=1e-9)
    rewards, ends = [], []
    for k in range(10):
        action = 0.5 * high * np.cos(k + np.arange(len(high)))
        observation, step_reward, terminated, _, _ = env.step(action)
        rewards.append(step_reward)
        ends.append(terminated)
    assert rewards[0] == pytest.approx(reward, rel=1e-9)
    assert sum(rewards) == pytest.approx(total, rel=1e-9)
    assert observation.sum() == pytest.approx(last_obs, rel=1e-9)
    assert (ends.index(True) + 1 if True in ends else None) == end


def play_both(ours, theirs, num_steps=500, scale=1.3):
    """Yields action, our step and theirs; resets both (and compares the start) when ours ends, or after 100 steps."""
    high = ours.task.model.actuator_ctrlrange[:, 1]
    rng = np.random.default_rng(1)
    age = None
    for k in range(num_steps):
        if age is None or age == 100:
            seed = k if age is None else None  # without a seed both go on with the generators they have
            yield None, ours.reset(seed=seed), theirs.reset(seed=seed)
            age = 0
        action = scale * high * rng.uniform(-1, 1, len(high))
        our_step, their_step = ours.step(action), theirs.step(action)
        yield action, our_step, their_step
        age = 100 if our_step[2] else age + 1


def assert_same_state(ours, theirs):
    row = ours.state_dict()["simulation"]["physics"]
    size = 1 + ours.task.model.nq + ours.task.model.nv  # time, qpos, qvel
    expected = np.concatenate([[theirs.data.time], theirs.data.qpos, theirs.data.qvel])
    np.testing.assert_array_equal(row[:size], expected)


# Our options, Gymnasium's equivalent, how many entries of the observation are comparable, and the terms of the reward
# that are not (they depend on contact forces, which v4 reads from another Runge-Kutta stage, or does not have).
EQUIVALENTS = [
    ("Ant-v2", {"contact_forces": "zero"}, "Ant-v4", {"use_contact_forces": True, "contact_force_range": (0, 0)}, 111),
    ("Ant-v2", {}, "Ant-v4", {"use_contact_forces": True}, 27),
    ("HalfCheetah-v2", {}, "HalfCheetah-v4", {}, 17),
    ("Hopper-v2", {}, "Hopper-v4", {}, 11),
    ("Walker2d-v2", {}, "Walker2d-v4", {}, 17),
    ("Swimmer-v2", {}, "Swimmer-v4", {}, 8),
    ("Reacher-v2", {}, "Reacher-v4", {}, 11),
    ("InvertedPendulum-v2", {}, "InvertedPendulum-v4", {}, 4),
    ("InvertedDoublePendulum-v2", {}, "InvertedDoublePendulum-v4", {}, 11),
    ("Humanoid-v2", {"contact_forces": "zero"}, "Humanoid-v4", {}, 292),
    ("Humanoid-v2", {}, "Humanoid-v4", {}, 292),
    ("HumanoidStandup-v2", {}, "HumanoidStandup-v4", {}, 292),
    ("Pusher-v2", {"pushable": False}, "Pusher-v5", {"xml_file": "pusher.xml"}, 23),
]


@pytest.mark.parametrize(("task_id", "options", "equivalent", "their_options", "entries"), EQUIVALENTS)
def test_equals_gymnasium(task_id, options, equivalent, their_options, entries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # loading half_cheetah.xml the usual way writes MUJOCO_LOG.TXT
    ours = MuJoCoEnv(task_id, **options)
    theirs = gymnasium.make(gymnasium.spec(equivalent), disable_env_checker=True, **their_options).unwrapped
    uncomparable = {
        "Ant-v2": [] if options else ["reward_contact"],
        "Humanoid-v2": ["reward_impact"],
        "HumanoidStandup-v2": ["reward_impact"],
    }.get(task_id, [])
    num_ends = 0
    for action, our_step, their_step in play_both(ours, theirs):
        np.testing.assert_array_equal(our_step[0][:entries], their_step[0][:entries])
        assert_same_state(ours, theirs)
        if action is None:
            continue
        if task_id != "Pusher-v2":  # v5 pays for the distances after the step
            info = their_step[4]
            ours_known = our_step[1] - sum(our_step[4][name] for name in uncomparable)
            their_known = their_step[1]
            if "reward_contact" in uncomparable:
                their_known -= info["reward_ctrl"]  # v4 stores the contact term under this name
            if task_id == "HumanoidStandup-v2":
                their_known -= info["reward_impact"]
            assert ours_known == pytest.approx(their_known, abs=1e-14, rel=1e-14)
        assert our_step[2] == their_step[2]
        num_ends += our_step[2]
    if task_id not in ("HalfCheetah-v2", "Swimmer-v2", "Reacher-v2", "HumanoidStandup-v2", "Pusher-v2"):
        assert num_ends > 0


def test_pusher_pays_for_distances_before_the_step():
    env = MuJoCoEnv("Pusher-v2")
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=3)
    for _ in range(50):
        tip, thing, goal = observation[14:17], observation[17:20], observation[20:23]
        action = rng.uniform(-2, 2, 7)
        observation, reward, *_ = env.step(action)
        expected = -np.linalg.norm(thing - goal) - 0.1 * np.square(action).sum() - 0.5 * np.linalg.norm(thing - tip)
        assert reward == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("pushable", [True, False])
def test_pusher_can_push_only_with_the_remedy(pushable):
    """The fork of the arm is swept through the object, whatever force that takes."""
    model = Pusher(pushable=pushable).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    start = data.xpos[11].copy()
    for pan in np.linspace(1.5, -2.0, 400):
        data.qpos[:7] = [pan, 0.6, 0.0, -0.4, 0.0, 0.0, 0.0]
        data.qvel[:7] = 0
        mujoco.mj_step(model, data)
    moved = np.linalg.norm(data.xpos[11] - start)
    assert moved > 0.05 if pushable else moved < 1e-3


@pytest.mark.parametrize("task_id", ["Ant-v2", "Humanoid-v2", "HumanoidStandup-v2"])
def test_live_contact_forces_are_the_engine_s(task_id):
    """Equal to plain `mj_step` on the same model, in the first observation too; and they change nothing else."""
    env, without = MuJoCoEnv(task_id), MuJoCoEnv(task_id, contact_forces="zero")
    model, data = env.task.model, mujoco.MjData(env.task.model)
    env.reset(seed=5)
    without.reset(seed=5)
    nq, nv = model.nq, model.nv
    row = env.state_dict()["simulation"]["physics"]
    data.qpos[:], data.qvel[:] = row[1 : 1 + nq], row[1 + nq : 1 + nq + nv]
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    seen = 0.0
    for _ in range(60):
        action = rng.uniform(-1, 1, model.nu)
        observation = env.step(action)[0]
        bare = without.step(action)[0]
        data.ctrl[:] = action
        mujoco.mj_step(model, data, env.task.frame_skip)
        expected = data.cfrc_ext.ravel()
        expected = np.clip(expected, -1, 1) if task_id == "Ant-v2" else expected
        np.testing.assert_array_equal(observation[-84:], expected)
        np.testing.assert_array_equal(observation[:-84], bare[:-84])
        assert not bare[-84:].any()
        seen += np.abs(expected).sum()
    assert seen > 1


def test_ant_counts_the_contact_cost():
    env = MuJoCoEnv("Ant-v2")
    env.reset(seed=0)
    for _ in range(100):
        observation, reward, _, _, info = env.step(np.zeros(8))
        assert info["reward_contact"] == pytest.approx(-0.0005 * np.square(observation[27:]).sum(), rel=1e-12)
        terms = [info[name] for name in ("reward_forward", "reward_ctrl", "reward_contact", "reward_survive")]
        assert reward == pytest.approx(sum(terms), rel=1e-12)


@pytest.mark.parametrize("task_id", MUJOCO_TASKS)
def test_rows_do_not_depend_on_the_number_of_rows(task_id):
    """Observation, reward and end of one simulation have the same bits alone and among seven."""
    task = MUJOCO_TASKS[task_id]()
    simulations = MuJoCoSimulations(task, 7)
    for index in range(7):
        simulations.reset(index, np.random.default_rng(index))
    actions = np.random.default_rng(0).uniform(-1, 1, (7, task.model.nu))
    for _ in range(20):
        simulations.step(actions, range(7))
    fields = simulations._fields
    before, after = task.measure(fields) * 0.9, task.measure(fields)
    observation = task.observation(fields)
    terms = task.reward_terms(fields, observation, actions, before, after)
    for row in range(7):
        alone = fields.rows([row])
        part = slice(row, row + 1)
        np.testing.assert_array_equal(observation[part], task.observation(alone))
        np.testing.assert_array_equal(task.terminated(fields)[part], task.terminated(alone))
        one = task.reward_terms(alone, observation[part], actions[part], before[part], after[part])
        for name, term in terms.items():
            np.testing.assert_array_equal(term[part], one[name])


def fields_with(task, **qpos):
    """Fields of four resting simulations, some entries of qpos [4] replaced."""
    arrays = {"qpos": np.tile(task.model.qpos0, (4, 1)), "qvel": np.zeros((4, task.model.nv))}
    for name, values in qpos.items():
        arrays["qpos"][:, int(name[1:])] = values
    return Fields(**arrays)


@pytest.mark.parametrize(
    ("task_class", "entry", "values", "expected"),
    [
        (Ant, "q2", [0.2, 1.0, 0.1999, 1.0001], [False, False, True, True]),  # both limits are alive
        (Ant, "q2", [0.5, np.nan, np.inf, -np.inf], [False, True, True, True]),
        (Hopper, "q1", [0.71, 0.7, 0.69, 99.0], [False, True, True, False]),
        (Hopper, "q2", [0.19, 0.2, -0.2, -0.19], [False, True, True, False]),
        (Hopper, "q3", [99.0, 100.0, -100.0, -99.0], [False, True, True, False]),
        (Walker2d, "q1", [0.8, 0.81, 1.99, 2.0], [True, False, False, True]),
        (Walker2d, "q2", [-1.0, -0.99, 0.99, 1.0], [True, False, False, True]),
        (Humanoid, "q2", [1.0, 2.0, 0.999, 2.001], [False, False, True, True]),  # both limits are alive
    ],
)
def test_ends_of_episodes(task_class, entry, values, expected):
    task = task_class()
    np.testing.assert_array_equal(task.terminated(fields_with(task, **{entry: values})), expected)


def test_control_costs_see_the_action_as_given():
    """MuJoCo clamps what reaches the motors; the cost of a Humanoid with all actions 1 is 1.7, not 0.272."""
    humanoid, clamped = MuJoCoEnv("Humanoid-v2"), MuJoCoEnv("Humanoid-v2")
    humanoid.reset(seed=0)
    clamped.reset(seed=0)
    first, second = humanoid.step(np.ones(17)), clamped.step(np.full(17, 0.4))
    assert first[4]["reward_quadctrl"] == pytest.approx(-1.7)
    assert second[4]["reward_quadctrl"] == pytest.approx(-0.272)
    np.testing.assert_array_equal(first[0], second[0])


def test_options_are_checked():
    with pytest.raises(ExperimentConfigError, match=r'(?s)contact_forces cannot be "alive".*did you mean "live"'):
        Ant(contact_forces="alive")
    with pytest.raises(ExperimentConfigError, match=r'no MuJoCo model "antt.xml"'):
        Ant(xml_file="antt.xml")


def test_another_model(tmp_path):
    """The tasks work on other files; the size of the observation follows."""
    spec = mujoco.MjSpec.from_file(str(_model_path("ant.xml")))
    spec.worldbody.add_body(name="rock", pos=[5, 0, 0.1]).add_geom(size=[0.1, 0, 0])
    spec.compile()
    (tmp_path / "rock.xml").write_text(spec.to_xml())
    env = MuJoCoEnv("Ant-v2", xml_file=str(tmp_path / "rock.xml"))
    assert env.observation_space.shape == (111 + 6,)
    assert env.reset(seed=0)[0].shape == env.step(np.zeros(8))[0].shape == (111 + 6,)
