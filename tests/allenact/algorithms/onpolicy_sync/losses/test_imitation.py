"""Imitation by hand: plain actions, groups of actions, policies; and imitation of a group."""

from collections import OrderedDict

import gymnasium as gym
import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses.grouped_action_imitation import GroupedActionImitation
from allenact.algorithms.onpolicy_sync.losses.imitation import Imitation
from allenact.base_abstractions.distributions import CategoricalDistr, ConditionalDistr, SequentialDistr
from allenact.base_abstractions.expert_sensors import ExpertActionSensor
from allenact.base_abstractions.misc import ActorCriticOutput
from allenact.errors import ExperimentConfigError

PROBS = torch.tensor([[[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]], dtype=torch.float64)  # [1, 3, K]


def run(loss, distribution, **observations):
    batch = {"observations": observations}
    return loss.loss(0, batch, ActorCriticOutput(distribution, torch.zeros(1, 3, 1), {}))


def log(x):
    return torch.tensor(x, dtype=torch.float64).log().item()


def test_actions_count_where_the_expert_succeeded():
    expert = torch.tensor([[[2, 1], [0, 1], [-1, 0]]])  # [1, 3, 2]; the third has no answer
    loss, info = run(Imitation(), CategoricalDistr(probs=PROBS), expert_action=expert)
    assert loss.item() == pytest.approx(-(log(0.7) + log(0.5)) / 2)
    assert info["expert_cross_entropy"].item() == loss.item()


def test_an_expert_that_knows_nothing_gives_no_gradient_and_no_number():
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    expert = torch.tensor([[[-1, 0], [-1, 0], [-1, 0]]])
    loss, info = run(Imitation(), CategoricalDistr(logits=logits), expert_action=expert)
    assert info == {}
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros(1, 3, 4))


def test_the_distribution_may_be_a_single_group():
    group = ConditionalDistr(CategoricalDistr(probs=PROBS), "move")
    expert = torch.tensor([[[2, 1], [0, 0], [0, 0]]])
    loss, _ = run(Imitation(), group, expert_action=expert)
    assert loss.item() == pytest.approx(-log(0.7))


def test_policies_count_where_the_expert_succeeded():
    expert = torch.tensor([[[0.0, 0.5, 0.5, 1], [1.0, 0.0, 0.0, 1], [0.2, 0.3, 0.5, 0]]]).double()  # [1, 3, K + 1]
    loss, info = run(Imitation(), CategoricalDistr(probs=PROBS), expert_policy=expert)
    assert loss.item() == pytest.approx(-(0.5 * log(0.2) + 0.5 * log(0.7) + log(0.5)) / 2)
    assert info["expert_cross_entropy"].item() == loss.item()


def test_only_categorical_policies():
    with pytest.raises(NotImplementedError, match="categorical policies, not for object"):
        run(Imitation(), object(), expert_action=torch.zeros(1, 3, 2))


def test_an_expert_observation_is_needed():
    with pytest.raises(NotImplementedError, match=r"only \['rgb'\]"):
        run(Imitation(), CategoricalDistr(probs=PROBS), rgb=torch.zeros(1, 3))


SPACE = gym.spaces.Dict(OrderedDict([("first", gym.spaces.Discrete(2)), ("second", gym.spaces.Discrete(3))]))
FIRST = torch.tensor([0.25, 0.75], dtype=torch.float64)
SECOND_GIVEN_FIRST = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)


def sequential(second="second"):
    return SequentialDistr(
        ConditionalDistr(CategoricalDistr(probs=FIRST.expand(1, 3, 2)), "first"),
        ConditionalDistr(lambda first: CategoricalDistr(probs=SECOND_GIVEN_FIRST[first]), second),
    )


def test_groups_are_conditioned_on_the_expert():
    # Each row: first action, success, second action, success.
    expert = torch.tensor([[[1, 1, 0, 1], [0, 1, 2, 0], [0, 0, 1, 1]]])  # [1, 3, 4]
    distribution = sequential()
    distribution.sample()  # conditions the second group on something else
    loss, info = run(Imitation(ExpertActionSensor(SPACE)), distribution, expert_action=expert)
    first = -(log(0.75) + log(0.25)) / 2
    second = -(log(0.6) + log(0.3)) / 2
    assert info["first_cross_entropy"].item() == pytest.approx(first)
    assert info["second_cross_entropy"].item() == pytest.approx(second)
    assert info["expert_cross_entropy"].item() == loss.item() == pytest.approx(first + second)


def test_a_group_without_success_is_left_out():
    expert = torch.tensor([[[1, 1, 0, 0], [0, 1, 2, 0], [0, 0, 1, 0]]])
    loss, info = run(Imitation(ExpertActionSensor(SPACE)), sequential(), expert_action=expert)
    assert set(info) == {"first_cross_entropy", "expert_cross_entropy"}
    assert loss.item() == info["first_cross_entropy"].item()


def test_groups_must_have_the_names_of_the_experts():
    with pytest.raises(ExperimentConfigError, match="not those of the expert sensor"):
        run(Imitation(ExpertActionSensor(SPACE)), sequential("third"), expert_action=torch.zeros(1, 3, 4).long())


def test_groups_need_a_sequential_distribution():
    with pytest.raises(NotImplementedError, match="need a SequentialDistr"):
        run(Imitation(ExpertActionSensor(SPACE)), CategoricalDistr(probs=PROBS), expert_action=torch.zeros(1, 3, 4))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
def test_grouped_actions(shape):
    loss = GroupedActionImitation(nactions=3, action_groups=[{0, 2}, {1}])
    groups = torch.tensor([0, 1, 2]).reshape(shape)  # the last one contains all actions
    value, info = run(loss, CategoricalDistr(probs=PROBS), expert_group_action=groups)
    assert value.item() == pytest.approx(-(log(0.8) + log(0.25) + 0.0) / 3)
    assert info["grouped_action_cross_entropy"].item() == value.item()


@pytest.mark.parametrize("groups", [[{0, 1}], [{0, 1}, {1, 2}], [{0, 1, 2, 3}]])
def test_groups_that_are_no_partition_are_refused(groups):
    with pytest.raises(ExperimentConfigError, match="each action once"):
        GroupedActionImitation(nactions=3, action_groups=groups)
