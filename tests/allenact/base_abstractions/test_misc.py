"""Results of steps, outputs of models and of losses."""

import pytest
import torch

from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.memory import Memory
from allenact.base_abstractions.misc import ActorCriticOutput, LossOutput, RLStepResult


def test_clone_replaces_the_named_fields_only():
    result = RLStepResult(observation={"x": 1}, reward=2.0, done=False, info={"a": 1})
    clone = result.clone({"done": True, "reward": 3.0})
    assert clone == ({"x": 1}, 3.0, True, {"a": 1})
    assert result.done is False


def test_merge_prefers_the_other_and_unites_the_infos():
    first = RLStepResult({"x": 1}, 2.0, None, {"a": 1, "b": 1})
    second = RLStepResult(None, 5.0, True, {"b": 2})
    assert first.merge(second) == ({"x": 1}, 5.0, True, {"a": 1, "b": 2})
    assert second.merge(first) == ({"x": 1}, 2.0, True, {"a": 1, "b": 1})
    assert first.merge(RLStepResult(None, None, None, None)) == first
    assert first.info == {"a": 1, "b": 1}


def test_actor_critic_output_is_a_triple_with_names():
    distr, values = CategoricalDistr(logits=torch.zeros(1, 2, 3)), torch.zeros(1, 2, 1)
    output = ActorCriticOutput(distributions=distr, values=values, extras={"aux": 1})
    unpacked_distr, unpacked_values, extras = output
    assert unpacked_distr is distr
    assert unpacked_values is values
    assert extras == {"aux": 1}
    assert isinstance(output, tuple)


def test_loss_outputs_take_keywords_only():
    fields = {
        "value": torch.tensor(1.0),
        "info": {"x": 1.0},
        "per_epoch_info": {},
        "batch_memory": Memory(),
        "stream_memory": Memory(),
        "bsize": 8,
    }
    assert LossOutput(**fields).bsize == 8
    with pytest.raises(TypeError):
        LossOutput(*fields.values())
