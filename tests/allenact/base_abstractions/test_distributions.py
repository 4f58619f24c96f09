"""Distributions over actions against torch.distributions and against sums over all actions."""

import itertools
from collections import OrderedDict

import pytest
import torch

from allenact.base_abstractions import distributions
from allenact.base_abstractions.distributions import CategoricalDistr, ConditionalDistr, Distr, SequentialDistr


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_categorical_equals_torch():
    logits = torch.randn(4, 3, 6)
    ours, theirs = CategoricalDistr(logits=logits), torch.distributions.Categorical(logits=logits)
    actions = torch.randint(6, (4, 3))
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions), rtol=0, atol=0)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=0, atol=0)
    torch.testing.assert_close(ours.log_probs_tensor, logits.log_softmax(-1))
    torch.testing.assert_close(ours.probs_tensor, logits.softmax(-1))
    assert torch.equal(ours.mode(), logits.argmax(-1))
    torch.manual_seed(3)
    sample = ours.sample()
    torch.manual_seed(3)
    assert torch.equal(sample, theirs.sample())
    assert ours.sample(torch.Size([5])).shape == (5, 4, 3)


def test_categorical_from_probabilities():
    probs = torch.tensor([[[0.2, 0.5, 0.3]]])
    distr = CategoricalDistr(probs=probs)
    torch.testing.assert_close(distr.probs_tensor, probs)
    torch.testing.assert_close(distr.log_prob(torch.tensor([[2]])), torch.tensor([[0.3]]).log())


def test_categorical_keeps_a_trailing_dimension_and_refuses_other_shapes():
    distr = CategoricalDistr(logits=torch.randn(4, 3, 6))
    actions = torch.randint(6, (4, 3))
    kept = distr.log_prob(actions.unsqueeze(-1))
    assert kept.shape == (4, 3, 1)
    assert torch.equal(kept.squeeze(-1), distr.log_prob(actions))
    for wrong in (actions[0], actions.unsqueeze(0), actions[:, :1]):
        with pytest.raises(NotImplementedError, match=r"do not fit logits of shape \(4, 3, 6\)"):
            distr.log_prob(wrong)


def test_mode_is_optional():
    class Bare(Distr):
        log_prob = entropy = sample = None

    with pytest.raises(NotImplementedError, match="Bare has no mode"):
        Bare().mode()


TABLE = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))  # logits of "second" given "first"
FIRST = torch.tensor([0.3, -0.4])


def second_given(first, scale):
    """Logits depend on the first group's action, [1, N]."""
    return CategoricalDistr(logits=scale * TABLE[first])


def make(num_samplers=4):
    first = CategoricalDistr(logits=FIRST.expand(1, num_samplers, 2))
    return SequentialDistr(ConditionalDistr(first, "first"), ConditionalDistr(second_given, "second", scale=2.0))


def joint_log_prob(first, second):
    return FIRST.log_softmax(-1)[first] + (2.0 * TABLE).log_softmax(-1)[first, second]


def test_sequential_log_probs_are_those_of_the_joint_distribution():
    distr = make(num_samplers=1)
    total = 0.0
    for first, second in itertools.product(range(2), range(3)):  # one object for all: nothing may be left over
        actions = OrderedDict(first=torch.tensor([[first]]), second=torch.tensor([[second]]))
        log_prob = distr.log_prob(actions)
        torch.testing.assert_close(log_prob, joint_log_prob(first, second).reshape(1, 1))
        total += log_prob.exp().item()
    assert total == pytest.approx(1.0, abs=1e-6)


def test_sequential_log_probs_by_group():
    actions = {"first": torch.tensor([[0, 1, 1, 0]]), "second": torch.tensor([[2, 1, 0, 0]])}
    by_group = make().log_prob(actions, return_dict=True)
    assert list(by_group) == ["first", "second"]
    torch.testing.assert_close(by_group["first"], FIRST.log_softmax(-1)[actions["first"]])
    torch.testing.assert_close(sum(by_group.values()), make().log_prob(actions))


def test_every_sample_of_one_object_is_conditioned_anew():
    distr = make(num_samplers=2000)
    counts = torch.zeros(2, 3)
    for _ in range(10):
        sample = distr.sample()
        assert list(sample) == ["first", "second"]
        counts.index_put_((sample["first"][0], sample["second"][0]), torch.ones(2000), accumulate=True)
    for first, second in itertools.product(range(2), range(3)):
        expected = joint_log_prob(first, second).exp().item()
        assert counts[first, second].item() / 20000 == pytest.approx(expected, abs=0.015)  # about four deviations


def test_the_mode_follows_the_mode_of_the_groups_before():
    mode = make().mode()
    assert mode["first"].tolist() == [[0] * 4]
    assert mode["second"].tolist() == [[TABLE[0].argmax().item()] * 4]


def test_conditional_entropy_is_that_of_the_groups_last_conditioned_on():
    distr = make()
    actions = {"first": torch.tensor([[0, 1, 1, 0]]), "second": torch.tensor([[2, 1, 0, 0]])}
    distr.log_prob(actions)
    expected = (
        torch.distributions.Categorical(logits=FIRST).entropy()
        + torch.distributions.Categorical(logits=2.0 * TABLE[actions["first"]]).entropy()
    )
    torch.testing.assert_close(distr.conditional_entropy(), expected)
    with pytest.raises(NotImplementedError, match="conditional_entropy"):
        distr.entropy()


def test_a_conditional_group_alone():
    group = ConditionalDistr(second_given, "second", scale=2.0)
    with pytest.raises(RuntimeError, match='group "second" depends on other groups'):
        group.sample()
    group.condition_on_input(first=torch.tensor([[0]]))
    built = group.distr
    group.condition_on_input(first=torch.tensor([[1]]))
    assert group.distr is built  # until it is reset
    group.reset()
    assert group.distr is None
    with pytest.raises(ValueError, match=r"\['scale'\]"):
        group.condition_on_input(scale=torch.tensor([[1]]))

    instance = CategoricalDistr(logits=torch.zeros(1, 1, 3))
    fixed = ConditionalDistr(instance, "third")
    fixed.reset()
    assert fixed.distr is instance
    assert torch.equal(fixed.entropy(), instance.entropy())
    assert list(fixed.mode()) == ["third"]


def test_groups_need_different_names():
    group = ConditionalDistr(CategoricalDistr(logits=torch.zeros(1, 1, 2)), "same")
    with pytest.raises(ValueError, match="different names"):
        SequentialDistr(group, group)


def test_teacher_forcing_is_importable_from_here():
    from allenact.base_abstractions import teacher_forcing

    assert distributions.TeacherForcingDistr is teacher_forcing.TeacherForcingDistr
    assert distributions.AddBias is teacher_forcing.AddBias
    with pytest.raises(AttributeError, match="no_such_distr"):
        _ = distributions.no_such_distr
