"""What experts say, as flat vectors that unflatten to the sensor's space."""

from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from allenact.base_abstractions.expert_sensors import (
    AbstractExpertActionSensor,
    AbstractExpertSensor,
    ExpertActionSensor,
    ExpertPolicySensor,
)
from allenact.errors import ExperimentConfigError
from allenact.utils.spaces_utils import flatdim, unflatten

ACTION, SUCCESS = AbstractExpertSensor.ACTION_POLICY_LABEL, AbstractExpertSensor.EXPERT_SUCCESS_LABEL
GROUPS = Dict(OrderedDict([("higher", Discrete(2)), ("lower", Discrete(5))]))


class ToyTask:
    """Answers from a table, and remembers what it was asked."""

    def __init__(self, answers, done=False):
        self.answers, self.done, self.asked = answers, done, []

    def is_done(self):
        return self.done

    def query_expert(self, **kwargs):
        self.asked.append(kwargs)
        return self.answers[kwargs["expert_sensor_group_name"]]


NO_GROUP = AbstractExpertSensor._NO_GROUPS_LABEL


def read(sensor, task):
    flat = sensor.get_observation(env=None, task=task)
    assert flat.shape == (flatdim(sensor.observation_space),)
    return flat, unflatten(sensor.observation_space, torch.from_numpy(flat))


def test_labels():
    assert (ACTION, SUCCESS, NO_GROUP) == ("action_or_policy", "expert_success", "__dummy_expert_group__")


@pytest.mark.parametrize("action_space", [7, Discrete(7)])
def test_a_discrete_action_is_a_pair_of_integers(action_space):
    sensor = ExpertActionSensor(action_space, expert_args={"horizon": 3})
    assert sensor.uuid == "expert_action"
    assert sensor.observation_space == Dict({ACTION: Discrete(7), SUCCESS: Discrete(2)})
    task = ToyTask({NO_GROUP: (4, True)})
    flat, point = read(sensor, task)
    assert flat.dtype == np.int64
    assert flat.tolist() == [4, 1]
    assert point == {ACTION: 4, SUCCESS: 1}
    assert task.asked == [{"horizon": 3, "expert_sensor_group_name": NO_GROUP}]


@pytest.mark.parametrize(
    ("sensor", "dtype"),
    [
        (ExpertActionSensor(Discrete(3)), np.int64),
        (ExpertActionSensor(GROUPS), np.int64),
        (ExpertActionSensor(MultiDiscrete([2, 3])), np.int64),
        (ExpertActionSensor(Box(-1.0, 1.0, (2,))), np.float32),
        (ExpertPolicySensor(Discrete(3)), np.float32),
        (ExpertPolicySensor(GROUPS), np.float32),
        (ExpertPolicySensor(MultiDiscrete([2, 3])), np.float32),
    ],
)
def test_zeros_of_the_usual_type_when_the_task_is_over_or_the_expert_does_not_know(sensor, dtype):
    unknowing, _ = read(sensor, ToyTask(dict.fromkeys(sensor.group_spaces, (None, False))))
    over, _ = read(sensor, ToyTask({}, done=True))
    assert not unknowing.any()
    assert not over.any()
    assert unknowing.dtype == over.dtype == dtype


def test_groups_are_asked_one_by_one_in_order():
    sensor = ExpertActionSensor(action_space=GROUPS)
    assert sensor.use_groups
    assert list(sensor.group_spaces) == ["higher", "lower"]
    task = ToyTask({"higher": (1, True), "lower": (4, False)})
    flat, point = read(sensor, task)
    assert flat.tolist() == [1, 1, 4, 0]
    assert flat.dtype == np.int64
    assert point == {"higher": {ACTION: 1, SUCCESS: 1}, "lower": {ACTION: 4, SUCCESS: 0}}
    assert [asked["expert_sensor_group_name"] for asked in task.asked] == ["higher", "lower"]


def test_a_dict_action_without_groups_is_asked_for_at_once():
    sensor = ExpertActionSensor(GROUPS, use_dict_as_groups=False)
    assert not sensor.use_groups
    flat, point = read(sensor, ToyTask({NO_GROUP: ({"lower": 3, "higher": 1}, True)}))
    assert flat.tolist() == [1, 3, 1]
    assert point == {ACTION: {"higher": 1, "lower": 3}, SUCCESS: 1}


def test_continuous_actions():
    flat, point = read(ExpertActionSensor(Box(-1.0, 1.0, (2,))), ToyTask({NO_GROUP: (np.array([0.25, -0.5]), True)}))
    assert flat.dtype == np.float32
    assert flat.tolist() == [0.25, -0.5, 1.0]
    assert point[ACTION].tolist() == [0.25, -0.5]


def test_policies():
    sensor = ExpertPolicySensor(GROUPS)
    assert sensor.uuid == "expert_policy"
    task = ToyTask({"higher": ([0.25, 0.75], True), "lower": (np.eye(5)[2], True)})
    flat, point = read(sensor, task)
    assert flat.dtype == np.float32
    assert point["higher"][ACTION].tolist() == [0.25, 0.75]
    assert point["lower"][ACTION].tolist() == [0, 0, 1, 0, 0]
    assert point["lower"][SUCCESS] == 1


def test_the_deprecated_number_of_actions_warns(capsys):
    sensor = ExpertActionSensor(nactions=4, uuid="mine")
    assert (sensor.action_space, sensor.uuid) == (Discrete(4), "mine")
    assert "nactions of expert sensors is deprecated" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{}, {"action_space": 3, "nactions": 3}])
def test_the_action_space_is_given_once(arguments):
    with pytest.raises(ExperimentConfigError, match="needs the agent's action space, once"):
        ExpertActionSensor(**arguments)


def test_the_group_name_is_reserved():
    with pytest.raises(ExperimentConfigError, match="expert_sensor_group_name"):
        ExpertActionSensor(3, expert_args={"expert_sensor_group_name": "x"})


def test_own_experts_implement_query_expert():
    class Left(AbstractExpertActionSensor):
        def query_expert(self, task, expert_sensor_group_name):
            return 2, expert_sensor_group_name == NO_GROUP

    assert Left(3).get_observation(None, ToyTask({})).tolist() == [2, 1]
    with pytest.raises(TypeError, match="query_expert"):
        AbstractExpertActionSensor(3)


def test_flagged_spaces_are_available_without_a_sensor():
    flagged = ExpertActionSensor.flagged_space(GROUPS)
    assert flagged == ExpertActionSensor(GROUPS).observation_space
    assert isinstance(ExpertPolicySensor.flagged_space(Discrete(3)), gym.spaces.Dict)
    assert ExpertPolicySensor.flagged_space(Discrete(3))[ACTION] == Box(0.0, 1.0, (3,))
