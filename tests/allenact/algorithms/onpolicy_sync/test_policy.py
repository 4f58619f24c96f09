"""The actor-critic interface and the linear heads."""

import gymnasium as gym
import pytest
import torch

from allenact.algorithms.onpolicy_sync.policy import (
    ActorCriticModel,
    LinearActorCriticHead,
    LinearActorHead,
    LinearCriticHead,
)
from allenact.errors import ExperimentConfigError


class Model(ActorCriticModel):
    def __init__(self, specification):
        super().__init__(gym.spaces.Discrete(2), gym.spaces.Dict({}))
        self.specification = specification
        self.asked = 0

    def _recurrent_memory_specification(self):
        self.asked += 1
        return self.specification

    def forward(self, observations, memory, prev_actions, masks):
        raise NotImplementedError


@pytest.mark.parametrize(
    "specification", [None, {"rnn": ((("layer", 1), ("sampler", None), ("hidden", 3)), torch.float32)}]
)
def test_the_memory_specification_is_asked_for_once(specification):
    model = Model(specification)
    assert model.recurrent_memory_specification == specification
    assert model.recurrent_memory_specification == specification
    assert model.asked == 1


@pytest.mark.parametrize(
    "dims", [(("layer", 1),), (("step", 1), ("sampler", None)), (("sampler", None), ("sampler", None))]
)
def test_impossible_memory_is_refused(dims):
    with pytest.raises(ExperimentConfigError, match='name one dimension "sampler" and none "step"'):
        _ = Model({"rnn": (dims, torch.float32)}).recurrent_memory_specification


def test_heads():
    torch.manual_seed(0)
    features = torch.randn(4, 3, 8)  # [T, N, D]
    head = LinearActorCriticHead(8, 5)
    policy, values = head(features)
    assert policy.logits.shape == (4, 3, 5)
    torch.testing.assert_close(values, head.actor_and_critic(features)[..., -1:])
    assert LinearCriticHead(8)(features).shape == (4, 3, 1)
    probabilities = LinearActorHead(8, 5)(features).probs_tensor
    torch.testing.assert_close(probabilities, torch.full((4, 3, 5), 0.2), atol=0.02, rtol=0)
    assert set(LinearActorHead(8, 5).state_dict()) == {"linear.weight", "linear.bias"}
    assert set(LinearCriticHead(8).state_dict()) == {"fc.weight", "fc.bias"}
