"""Random input: conversions lose nothing, formulas equal their definitions, and nonsense is refused in words."""

import contextlib
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st

from allenact.algorithms.onpolicy_sync.returns import gae
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.errors import ExperimentConfigError
from allenact.utils.cli import get_args, get_argument_parser
from allenact.utils.experiment_loading import parse_config_kwargs
from allenact.utils.spaces_utils import flatdim, flatten, numpy_point, torch_point, unflatten

pytestmark = pytest.mark.slow
settings.register_profile("fuzzing", deadline=None, database=None, max_examples=200)
settings.load_profile("fuzzing")

SIZES = st.integers(1, 4)
LEAVES = st.one_of(
    SIZES.map(Discrete),
    st.lists(SIZES, min_size=1, max_size=3).map(MultiDiscrete),
    SIZES.map(MultiBinary),
    st.lists(SIZES, max_size=2).map(lambda shape: Box(-3.0, 3.0, tuple(shape))),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(Tuple),
        st.dictionaries(st.text(min_size=1, max_size=3), inner, min_size=1, max_size=3).map(
            lambda parts: Dict(OrderedDict(parts))
        ),
    ),
    max_leaves=5,
)


def leaves_of(point):
    if isinstance(point, (dict, tuple)):
        parts = point.values() if isinstance(point, dict) else point
        return [leaf for part in parts for leaf in leaves_of(part)]
    return [np.asarray(point)]


@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_a_flattened_point_comes_back(space, seed):
    space.seed(seed)
    point = space.sample()
    flat = flatten(space, torch_point(space, point))
    assert flat.numel() == flatdim(space)
    back = numpy_point(space, unflatten(space, flat))
    for a, b in zip(leaves_of(point), leaves_of(back), strict=True):
        np.testing.assert_array_equal(a.ravel(), b.ravel())


@given(
    steps=st.integers(1, 8),
    samplers=st.integers(1, 3),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    ends=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_advantages_are_the_double_sum_of_their_definition(steps, samplers, gamma, gae_lambda, ends, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(steps, samplers, 1, generator=generator).double()
    values = torch.randn(steps + 1, samplers, 1, generator=generator).double()
    masks = (torch.rand(steps + 1, samplers, 1, generator=generator) >= ends).double()
    errors = rewards + gamma * masks[1:] * values[1:] - values[:-1]
    expected = torch.zeros_like(rewards)
    for t in range(steps):
        weight = torch.ones(samplers, 1).double()
        for later in range(t, steps):
            expected[t] += weight * errors[later]
            weight = weight * gamma * gae_lambda * masks[later + 1]
    torch.testing.assert_close(gae(rewards, values, masks, gamma=gamma, gae_lambda=gae_lambda), expected)


@given(steps=st.integers(1, 9), samplers=st.integers(1, 5), parts=st.integers(1, 5), over_steps=st.booleans())
def test_a_pass_over_a_rollout_shows_every_row_once(steps, samplers, parts, over_steps):
    storage = RolloutBlockStorage()
    row = torch.arange(samplers, dtype=torch.float32).unsqueeze(-1)  # [N, 1]
    storage.initialize(
        observations={"row": row}, num_samplers=samplers, recurrent_memory_specification=None, action_space=Discrete(3)
    )
    for t in range(1, steps + 1):
        storage.add(
            observations={"row": 100 * t + row},
            memory=None,
            actions=torch.zeros(samplers, 1),
            action_log_probs=torch.zeros(samplers),
            value_preds=torch.zeros(samplers, 1),
            rewards=torch.zeros(samplers, 1),
            masks=torch.ones(samplers, 1),
        )
    storage.before_updates(next_value=torch.zeros(samplers, 1), use_gae=True, gamma=0.9, tau=0.9)
    over = "steps" if over_steps else "samplers"
    expected = sorted(100.0 * t + index for t in range(steps) for index in range(samplers))
    if parts > (steps * samplers if over_steps else samplers):
        with pytest.raises(ExperimentConfigError, match="mini-batches"):
            list(storage.batched_experience_generator(parts, mini_batches_over=over))
        return
    batches = list(storage.batched_experience_generator(parts, mini_batches_over=over))
    assert len(batches) == parts
    seen = [value for batch in batches for value in batch["observations"]["row"].flatten().tolist()]
    assert sorted(seen) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON)
def test_config_kwargs_that_are_json(value):
    text = json.dumps(value)
    if isinstance(value, dict):
        assert parse_config_kwargs(text) == value
    else:
        with pytest.raises(ExperimentConfigError):
            parse_config_kwargs(text)


@pytest.mark.filterwarnings("ignore")  # what Python says of text that looks like a dict is not ours
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_config_kwargs_that_are_anything(text):
    for attempt in (text, "{" + text, '{"a": ' + text + "}"):
        with contextlib.suppress(ExperimentConfigError):
            assert isinstance(parse_config_kwargs(attempt), dict)


FLAGS = sorted(flag for action in get_argument_parser()._actions for flag in action.option_strings)
WORDS = st.one_of(st.sampled_from([*FLAGS, "toy", "1", "0", "-1", "nan", "flat", "serial", ""]), st.text(max_size=5))


@given(words=st.lists(WORDS, max_size=6))
def test_command_lines(words):
    answer = answer_to(words)
    assert answer in (0, 2, *words) or "has been removed" in answer


def answer_to(words):
    try:
        return get_args(words).experiment
    except SystemExit as error:
        return error.code
    except RuntimeError as error:
        return str(error)
