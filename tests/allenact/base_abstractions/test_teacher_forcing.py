"""How often the expert acts, where it may, and what is reported."""

from collections import OrderedDict

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from allenact.algorithms.onpolicy_sync.misc import TrackingInfoType
from allenact.base_abstractions.distributions import CategoricalDistr, ConditionalDistr, Distr, SequentialDistr
from allenact.base_abstractions.teacher_forcing import AddBias, TeacherForcingDistr
from allenact.errors import ExperimentConfigError

N = 4000


class Tracker:
    def __init__(self):
        self.calls = []

    def __call__(self, *, type, info, n):
        self.calls.append((type, info, n))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def never_three():
    """The agent never takes action 3, which is the expert's."""
    return CategoricalDistr(logits=torch.tensor([0.0, 0.0, 0.0, -torch.inf]).expand(1, N, 4))


def force(distr, expert_action, action_space, probability, tracker, **kwargs):
    return TeacherForcingDistr(
        distr=distr,
        obs={"expert_action": expert_action},
        action_space=action_space,
        num_active_samplers=N,
        approx_steps=100,
        teacher_forcing=lambda steps: probability if steps == 100 else 0.0,
        tracking_callback=tracker,
        **kwargs,
    )


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_expert_acts_with_the_scheduled_probability(probability):
    tracker = Tracker()
    expert = torch.tensor([3, 1]).expand(1, N, 2)
    actions = force(never_three(), expert, Discrete(4), probability, tracker).sample()
    assert actions.shape == (1, N)
    fraction = (actions == 3).float().mean().item()
    assert fraction == pytest.approx(probability, abs=0.03)  # four standard deviations of 4000 draws
    ((kind, info, n),) = tracker.calls
    assert (kind, n) == (TrackingInfoType.TEACHER_FORCING, N)
    assert info == {"teacher_ratio/enforced": probability, "teacher_ratio/sampled": pytest.approx(fraction)}


def test_the_same_seed_forces_the_same_samplers():
    expert = torch.tensor([3, 1]).expand(1, N, 2)
    torch.manual_seed(5)
    first = force(never_three(), expert, Discrete(4), 0.5, Tracker()).sample()
    torch.manual_seed(5)
    assert torch.equal(first, force(never_three(), expert, Discrete(4), 0.5, Tracker()).sample())


@pytest.mark.parametrize("always", [False, True])
def test_an_expert_that_does_not_know_never_acts(always):
    success = torch.arange(N) % 2
    expert = torch.stack([torch.full((N,), 3), success], dim=-1).unsqueeze(0).float()  # [1, N, 2]
    tracker = Tracker()
    actions = force(never_three(), expert, Discrete(4), 1.0, tracker, always_enforce=always).sample()
    assert torch.equal(actions[0] == 3, success.bool())
    assert actions.dtype == torch.int64
    assert tracker.calls[0][1]["teacher_ratio/sampled"] == pytest.approx(0.5)


def test_always_enforce_needs_no_schedule():
    expert = torch.tensor([3, 1]).expand(1, N, 2)
    arguments = ({"expert_action": expert}, Discrete(4), N, None, None, Tracker())
    forced = TeacherForcingDistr(never_three(), *arguments, always_enforce=True)
    assert (forced.sample() == 3).all()
    with pytest.raises(ValueError, match="teacher_forcing and approx_steps"):
        TeacherForcingDistr(never_three(), *arguments).sample()


def test_probabilities_stay_those_of_the_agent():
    own = CategoricalDistr(logits=torch.randn(1, N, 4))
    forced = force(own, torch.tensor([3, 1]).expand(1, N, 2), Discrete(4), 1.0, Tracker())
    actions = forced.sample()
    assert torch.equal(forced.log_prob(actions), own.log_prob(torch.full((1, N), 3)))
    assert torch.equal(forced.entropy(), own.entropy())
    with pytest.raises(NotImplementedError, match="no conditional entropy"):
        forced.conditional_entropy()
    with pytest.raises(NotImplementedError, match="no mode"):
        forced.mode()


SPACE = Dict(OrderedDict([("higher", Discrete(2)), ("lower", Discrete(6))]))


def lower_given(higher):
    """Takes action 0 below 0, and action 1 below 1."""
    return CategoricalDistr(logits=torch.log(torch.nn.functional.one_hot(higher, 6).float()))


def sequential():
    always_zero = CategoricalDistr(logits=torch.tensor([0.0, -torch.inf]).expand(1, N, 2))
    return SequentialDistr(ConditionalDistr(always_zero, "higher"), ConditionalDistr(lower_given, "lower"))


def test_groups_are_forced_one_by_one_and_later_groups_know():
    tracker = Tracker()
    expert = torch.tensor([1, 1, 5, 1]).expand(1, N, 4)  # higher 1, lower 5, both known
    forced = force(sequential(), expert, SPACE, 0.4, tracker)
    actions = forced.sample()
    higher, lower = actions["higher"], actions["lower"]
    by_expert_higher, by_expert_lower = higher == 1, lower == 5
    assert torch.equal(lower[~by_expert_lower], higher[~by_expert_lower])  # conditioned on the enforced group
    both = (by_expert_higher & by_expert_lower).float().mean().item()
    assert both == pytest.approx(0.4 * 0.4, abs=0.03)  # independent draws
    ((_, info, _),) = tracker.calls
    assert info == {
        "teacher_ratio/enforced": 0.4,
        "teacher_ratio/sampled_higher": pytest.approx(by_expert_higher.float().mean().item()),
        "teacher_ratio/sampled_lower": pytest.approx(by_expert_lower.float().mean().item()),
    }
    forced.log_prob(actions)
    torch.testing.assert_close(forced.conditional_entropy(), torch.zeros(1, N))


def test_a_group_is_forced_only_where_its_own_expert_knows():
    expert = torch.tensor([1, 0, 5, 1]).expand(1, N, 4)
    actions = force(sequential(), expert, SPACE, 1.0, Tracker()).sample()
    assert (actions["higher"] == 0).all()
    assert (actions["lower"] == 5).all()


def test_a_single_conditional_group_is_forced():
    distr = ConditionalDistr(CategoricalDistr(logits=torch.zeros(1, N, 2)), "higher")
    actions = force(distr, torch.tensor([1, 1, 0, 0]).expand(1, N, 4), SPACE, 1.0, Tracker()).sample()
    assert list(actions) == ["higher"]
    assert (actions["higher"] == 1).all()


class Zeros(Distr):
    """Always samples the value it is given."""

    def __init__(self, value):
        self.value = value

    def sample(self, sample_shape=()):
        return self.value

    log_prob = entropy = None


def test_whole_vectors_are_replaced():
    expert = torch.tensor([0.5, -0.5, 1.0]).expand(1, N, 3)
    actions = force(Zeros(torch.zeros(1, N, 2)), expert, Box(-1.0, 1.0, (2,)), 0.5, Tracker()).sample()
    replaced = actions[..., 0] == 0.5
    assert torch.equal(actions[..., 1] == -0.5, replaced)
    assert replaced.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_dict_actions_of_an_ungrouped_distribution_are_replaced_together():
    value = OrderedDict(higher=torch.zeros(1, N, dtype=torch.int64), lower=torch.zeros(1, N, dtype=torch.int64))
    actions = force(Zeros(value), torch.tensor([1, 5, 1]).expand(1, N, 3), SPACE, 0.5, Tracker()).sample()
    assert torch.equal(actions["higher"] == 1, actions["lower"] == 5)
    assert 0.4 < (actions["higher"] == 1).float().mean() < 0.6


def test_without_an_expert_there_is_no_teacher():
    with pytest.raises(ExperimentConfigError, match=r"(?s)no sensor.*\['rgb'\].*ExpertActionSensor"):
        TeacherForcingDistr(never_three(), {"rgb": None}, Discrete(4), N, 0, None, Tracker())


def test_one_sample_at_a_time():
    forced = force(never_three(), torch.zeros(1, N, 2), Discrete(4), 1.0, Tracker())
    with pytest.raises(NotImplementedError, match="one sample only"):
        forced.sample(torch.Size([2]))


def test_add_bias():
    module = AddBias(torch.tensor([1.0, -2.0]))
    assert {name: p.shape for name, p in module.named_parameters()} == {"_bias": (2, 1)}
    assert module(torch.zeros(3, 2)).tolist() == [[1.0, -2.0]] * 3
    image = module(torch.zeros(1, 2, 2, 2))
    assert image[0, 0].unique().tolist() == [1.0]
    assert image[0, 1].unique().tolist() == [-2.0]
    with pytest.raises(ValueError, match="two or four dimensions"):
        module(torch.zeros(2))
