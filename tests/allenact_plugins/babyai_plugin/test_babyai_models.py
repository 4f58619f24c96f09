import gymnasium as gym
import pytest
import torch

from allenact.base_abstractions.misc import Memory
from allenact.errors import ExperimentConfigError, SpaceMismatchError
from allenact_plugins.babyai_plugin.babyai_models import BabyAIRecurrentACModel

T, N, L = 5, 3, 4
OBSERVATION_SPACE = gym.spaces.Dict(
    {
        "minigrid_ego_image": gym.spaces.Box(0, 10, (7, 7, 3), int),
        "minigrid_mission": gym.spaces.Box(0, 31, (L,), int),
    }
)


def make_model(**kwargs):
    torch.manual_seed(0)
    options = {"image_dim": 16, "memory_dim": 16, "instr_dim": 8, **kwargs}
    return BabyAIRecurrentACModel(gym.spaces.Discrete(7), OBSERVATION_SPACE, **options)


def make_observations():
    generator = torch.Generator().manual_seed(1)
    missions = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [1, 2, 3, 4]])  # [N, L]
    return {
        "minigrid_ego_image": torch.randint(0, 8, (T, N, 7, 7, 3), dtype=torch.uint8, generator=generator),
        "minigrid_mission": missions.expand(T, N, L),
    }


def zero_memory(model):
    return Memory(rnn=(torch.zeros(1, N, 2 * model.memory_dim), 1))


def run(model, observations, memory, masks):
    return model(observations=observations, memory=memory, prev_actions=None, masks=masks)


@pytest.mark.parametrize("lang_model", ["gru", "bigru"])
@pytest.mark.parametrize("use_memory", [False, True])
@pytest.mark.parametrize("use_instr", [False, True])
def test_shapes(use_memory, use_instr, lang_model):
    model = make_model(use_memory=use_memory, use_instr=use_instr, lang_model=lang_model, include_auxiliary_head=True)
    memory = zero_memory(model) if use_memory else None
    output, new_memory = run(model, make_observations(), memory, torch.ones(T, N, 1))
    assert output.distributions.logits.shape == (T, N, 7)
    assert output.values.shape == (T, N, 1)
    assert output.extras["auxiliary_distributions"].logits.shape == (T, N, 7)
    if use_memory:
        assert new_memory.tensor("rnn").shape == (1, N, 32)
        assert memory.tensor("rnn").abs().sum() == 0  # what was handed in is unchanged


def test_memory_specification():
    assert make_model().recurrent_memory_specification is None
    specification = make_model(use_memory=True).recurrent_memory_specification
    assert specification == {"rnn": ((("layer", 1), ("sampler", None), ("hidden", 32)), torch.float32)}


def test_one_pass_equals_single_steps_and_masks_forget():
    model = make_model(use_memory=True, use_instr=True)
    observations = make_observations()
    masks = torch.ones(T, N, 1)
    masks[0] = 0
    masks[2, 1] = 0
    whole, whole_memory = run(model, observations, zero_memory(model), masks)
    memory = zero_memory(model)
    for t in range(T):
        one = {name: tensor[t : t + 1] for name, tensor in observations.items()}
        step, memory = run(model, one, memory, masks[t : t + 1])
        torch.testing.assert_close(step.values[0], whole.values[t])
    torch.testing.assert_close(memory.tensor("rnn"), whole_memory.tensor("rnn"))

    later = {name: tensor[2:] for name, tensor in observations.items()}
    fresh, _ = run(model, later, zero_memory(model), masks[2:])
    torch.testing.assert_close(fresh.values[:, 1], whole.values[2:, 1])
    assert not torch.allclose(fresh.values[:, 0], whole.values[2:, 0])


def test_instructions_matter_and_padding_does_not():
    model = make_model(use_instr=True)
    observations = make_observations()
    values = run(model, observations, None, torch.ones(T, N, 1))[0].values
    image = observations["minigrid_ego_image"]
    same = {**observations, "minigrid_mission": observations["minigrid_mission"][:, :1].expand(T, N, L)}
    assert not torch.allclose(run(model, same, None, torch.ones(T, N, 1))[0].values[:, 1], values[:, 1])
    shorter = {"minigrid_ego_image": image, "minigrid_mission": observations["minigrid_mission"][..., :3]}
    cut = run(model, shorter, None, torch.ones(T, N, 1))[0].values
    torch.testing.assert_close(cut[:, :2], values[:, :2])  # the third mission has a fourth word


def test_parameters_have_the_names_of_babyai():
    names = set(make_model(use_memory=True, use_instr=True).state_dict())
    convolutions = {f"image_conv.{i}.{kind}" for i in (0, 3, 5) for kind in ("weight", "bias")}
    heads = {f"{head}.{i}.{kind}" for head in ("actor", "critic") for i in (0, 2) for kind in ("weight", "bias")}
    memory = {f"memory_rnn.{kind}_{way}h" for kind in ("weight", "bias") for way in "ih"}
    language = {"word_embedding.weight"} | {f"instr_rnn.{k}_{w}h_l0" for k in ("weight", "bias") for w in "ih"}
    assert names == convolutions | heads | memory | language


def test_an_untrained_policy_tries_everything():
    model = make_model()
    probabilities = run(model, make_observations(), None, torch.ones(T, N, 1))[0].distributions.probs_tensor
    assert probabilities.mean(dim=(0, 1)).min() > 0.02


@pytest.mark.parametrize("option", [{"arch": "expert_filmcnn"}, {"lang_model": "attgru"}, {"aux_info": ["seen"]}])
def test_other_variants_are_refused(option):
    with pytest.raises(ExperimentConfigError, match="does not have this variant"):
        make_model(**option)


def test_other_views_are_refused():
    space = gym.spaces.Dict({"minigrid_ego_image": gym.spaces.Box(0, 10, (5, 5, 3), int)})
    with pytest.raises(SpaceMismatchError, match=r"\(5, 5, 3\)"):
        BabyAIRecurrentACModel(gym.spaces.Discrete(7), space)
