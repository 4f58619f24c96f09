"""Points of spaces keep their values through every conversion, for any nesting and any batch shape."""

from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from allenact.errors import SpaceMismatchError
from allenact.utils.spaces_utils import (
    action_list,
    action_rows,
    as_gymnasium_space,
    flatdim,
    flatten,
    flatten_space,
    numpy_point,
    policy_space,
    space_kind,
    torch_point,
    unflatten,
)

NESTED = Dict(
    OrderedDict(
        [
            ("z_first", Tuple([MultiDiscrete([3, 5]), Box(-10.0, 7.0, (2, 3)), Discrete(11)])),
            ("a_second", Dict({"flag": MultiBinary(4), "height": Box(-1.0, 1.0, ())})),
        ]
    )
)
SPACES = [
    Box(-1.0, 1.0, (2, 3)),
    Discrete(5),
    MultiDiscrete([3, 4]),
    MultiDiscrete([[2, 3], [4, 5]]),
    MultiBinary(3),
    MultiBinary([2, 2]),
    Tuple([Discrete(2), Box(0.0, 1.0, (1,))]),
    NESTED,
]


def assert_equal_points(a, b):
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal_points(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_points(x, y)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def torch_batch(space, points):
    """The points stacked leaf by leaf."""
    if isinstance(space, Dict):
        return OrderedDict((k, torch_batch(s, [p[k] for p in points])) for k, s in space.spaces.items())
    if isinstance(space, Tuple):
        return tuple(torch_batch(s, [p[i] for p in points]) for i, s in enumerate(space.spaces))
    return torch.stack([torch.as_tensor(np.asarray(p)) for p in points])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_numpy_to_torch_and_back_keeps_a_point(space):
    space.seed(0)
    for _ in range(5):
        point = space.sample()
        assert_equal_points(numpy_point(space, torch_point(space, point)), point)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_flatten_and_unflatten_are_inverse_for_one_point(space):
    space.seed(1)
    for _ in range(5):
        point = space.sample()
        flat = flatten(space, torch_point(space, point))
        assert flat.shape == (flatdim(space),)
        assert flatten_space(space).contains(flat.to(torch.float32).numpy())
        restored = unflatten(space, flat)
        assert_equal_points(numpy_point(space, restored), point)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_batch_equals_its_points_one_by_one(space):
    space.seed(2)
    points = [space.sample() for _ in range(6)]
    flat = flatten(space, torch_batch(space, points))  # [6, A]
    assert flat.shape == (6, flatdim(space))
    for row, point in zip(flat, points, strict=True):
        assert_equal_points(numpy_point(space, unflatten(space, row)), point)
    assert_equal_points(numpy_point(space, unflatten(space, flat)), torch_batch(space, points))

    two_batch_dims = flat.reshape(2, 3, -1)  # [2, 3, A]
    assert torch.equal(flatten(space, unflatten(space, two_batch_dims)).double(), two_batch_dims.double())


def test_sizes_and_bounds_written_out_by_hand():
    assert flatdim(NESTED) == 2 + 6 + 1 + 4 + 1
    box = flatten_space(NESTED)
    assert box.low.tolist() == [0, 0] + [-10] * 6 + [0] + [0] * 4 + [-1]
    assert box.high.tolist() == [3, 5] + [7] * 6 + [11] + [1] * 4 + [1]
    # One-hot flattening would need 3 + 5 + 6 + 11 + 4 + 1 entries.
    assert gym.spaces.flatdim(NESTED) == 30


def test_parts_follow_the_order_of_the_space_not_of_the_point():
    space = Dict(OrderedDict([("b", Discrete(9)), ("a", Discrete(9))]))
    assert flatten(space, {"a": 1, "b": 2}).tolist() == [2, 1]
    assert list(unflatten(space, torch.tensor([2, 1])).items()) == [("b", 2), ("a", 1)]


def test_unflattened_types():
    one = unflatten(Discrete(4), torch.tensor([3.0]))
    assert one == 3
    assert isinstance(one, int)
    assert unflatten(Discrete(4), torch.tensor([[3.0]])).dtype == torch.int64
    assert unflatten(MultiDiscrete([4, 4]), torch.zeros(2)).dtype == torch.int64
    assert unflatten(MultiBinary(2), torch.zeros(2)).dtype == torch.uint8
    assert unflatten(Box(0, 9, (2,), dtype=np.int32), torch.zeros(2, dtype=torch.int32)).dtype == torch.float32
    assert unflatten(Box(0.0, 9.0, (2,)), torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_large_integers_survive_in_an_integer_tensor():
    big = 2**24 + 1  # not a float32
    assert unflatten(Discrete(2**30), flatten(Discrete(2**30), torch.tensor([[big]]))).tolist() == [[big]]


def test_a_tensor_of_another_size_is_refused_in_words():
    with pytest.raises(SpaceMismatchError, match=r"(?s)have 2 entries.*\(7, 3\).*same action space"):
        unflatten(MultiDiscrete([2, 2]), torch.zeros(7, 3))


def test_action_list_gives_plain_python_values():
    assert action_list(Discrete(9), torch.tensor([[[3.0], [8.0]]])) == [3, 8]
    assert all(type(a) is int for a in action_list(Discrete(9), torch.tensor([[[3], [8]]])))
    assert action_list(Box(-1.0, 1.0, (2,)), torch.tensor([[[0.5, -0.5]]])) == [[0.5, -0.5]]
    assert action_list(Box(-1.0, 1.0, (2, 1)), torch.tensor([[[0.5, -0.5]]])) == [[[0.5], [-0.5]]]
    assert action_list(MultiDiscrete([4, 4]), torch.tensor([[[1, 2], [3, 0]]])) == [[1, 2], [3, 0]]
    assert action_list(MultiBinary(3), torch.tensor([[[1.0, 0.0, 1.0]]])) == [[1, 0, 1]]


def test_action_list_of_composites():
    space = Dict(OrderedDict([("higher", Discrete(2)), ("lower", Tuple([Box(-1.0, 1.0, (2,)), Discrete(5)]))]))
    flat = torch.tensor([[[1.0, 0.25, 0.5, 4.0], [0.0, -0.25, -0.5, 3.0]]])  # [1, 2, 4]
    actions = action_list(space, flat)
    assert actions == [
        OrderedDict(higher=1, lower=([0.25, 0.5], 4)),
        OrderedDict(higher=0, lower=([-0.25, -0.5], 3)),
    ]
    assert type(actions[0]) is OrderedDict
    assert type(actions[0]["lower"][1]) is int


def test_action_list_wants_one_step():
    with pytest.raises(SpaceMismatchError, match="one step"):
        action_list(Discrete(3), torch.zeros(2, 4, 1))


def test_action_list_takes_samples_with_gradients():
    assert action_list(Box(-1.0, 1.0, (1,)), torch.zeros(1, 2, 1, requires_grad=True)) == [[0.0], [0.0]]


def test_policy_spaces():
    assert policy_space(Discrete(3)) == Box(0.0, 1.0, (3,))
    assert policy_space(Box(-2.0, 2.0, (2,))) == Box(-2.0, 2.0, (2,))
    assert policy_space(Box(-2.0, 2.0, (2,)), lambda box: Box(-1.0, 1.0, (2, *box.shape))).shape == (2, 2)
    assert policy_space(MultiBinary(4)) == Box(0.0, 1.0, (4, 2))
    assert policy_space(MultiDiscrete([2, 3])) == Tuple([Box(0.0, 1.0, (2,)), Box(0.0, 1.0, (3,))])
    nested = policy_space(Dict(OrderedDict([("b", Discrete(2)), ("a", Tuple([Discrete(3)]))])))
    assert list(nested.spaces) == ["b", "a"]
    assert nested["a"] == Tuple([Box(0.0, 1.0, (3,))])


def test_subclasses_count_as_their_base():
    class Torque(Box):
        pass

    assert space_kind(Torque(-1.0, 1.0, (1,))) == "Box"


@pytest.mark.parametrize("function", [flatdim, flatten_space, policy_space, space_kind])
def test_other_spaces_are_not_implemented(function):
    with pytest.raises(NotImplementedError, match="Text"):
        function(gym.spaces.Text(3))


def old_gym_space(name, **attributes):
    """An object like those of the old gym package: same class name and attributes, another hierarchy."""
    space = type(name, (), {"__module__": "gym.spaces"})()
    space.__dict__.update(attributes)
    return space


def test_spaces_of_the_old_package_are_understood_and_converted():
    box = old_gym_space("Box", low=np.zeros(2, "f4"), high=np.ones(2, "f4"), shape=(2,), dtype=np.dtype("float32"))
    space = old_gym_space(
        "Dict", spaces=OrderedDict(turn=old_gym_space("Discrete", n=3), drive=old_gym_space("Tuple", spaces=(box,)))
    )
    flat = flatten(space, {"turn": 2, "drive": (torch.tensor([0.25, 0.5]),)})
    assert flat.tolist() == [2, 0.25, 0.5]
    converted = as_gymnasium_space(space)
    assert converted == Dict(OrderedDict(turn=Discrete(3), drive=Tuple([Box(0.0, 1.0, (2,))])))
    assert as_gymnasium_space(converted) is converted


def test_action_rows_refuses_actions_of_another_size():
    with pytest.raises(SpaceMismatchError, match=r"(?s)have 1 entries.*\(3, 2\)"):
        action_rows(Discrete(4), np.zeros((3, 2)))
