"""Named tensors with a sampler dimension."""

import pickle

import pytest
import torch

from allenact.base_abstractions.memory import Memory


def marked(steps=4, layers=2, samplers=3, hidden=2):
    """Entries say where they are: 1000 * step + 100 * layer + sampler."""
    step, layer, sampler, _ = torch.meshgrid(
        *(torch.arange(n) for n in (steps, layers, samplers, hidden)), indexing="ij"
    )
    return 1000 * step + 100 * layer + sampler  # [T, L, N, H]


def make():
    return Memory(rnn=(marked(), 2), goal=(marked()[:, 0], 1))


def test_constructors_agree():
    tensor = torch.zeros(2, 3)
    for memory in (
        Memory([("a", (tensor, 1))]),
        Memory({"a": (tensor, 1)}),
        Memory(a=(tensor, 1)),
        Memory().check_append("a", tensor, 1),
    ):
        assert list(memory) == ["a"]
        assert memory.tensor("a") is tensor
        assert memory.sampler_dim("a") == 1
    assert Memory() == {}


def test_appending_checks_name_dimension_and_type():
    memory = Memory(a=(torch.zeros(2, 3), 1))
    with pytest.raises(ValueError, match='already has an entry called "a"'):
        memory.check_append("a", torch.zeros(1), 0)
    with pytest.raises(ValueError, match=r"sampler dimension 2 .* \(2, 3\)"):
        memory.check_append("b", torch.zeros(2, 3), 2)
    with pytest.raises(TypeError, match="a name and a tensor"):
        memory.check_append("c", [1.0], 0)


def test_set_tensor_keeps_the_shape():
    memory = Memory(a=(torch.zeros(2, 3), 1))
    assert memory.set_tensor("a", torch.ones(2, 3)) is memory
    assert memory.tensor("a").sum() == 6
    with pytest.raises(ValueError, match=r"\(2, 3\), the new tensor \(3, 2\)"):
        memory.set_tensor("a", torch.ones(3, 2))
    with pytest.raises(KeyError, match='no entry called "b"'):
        memory.set_tensor("b", torch.ones(1))


@pytest.mark.parametrize("keep", [[0, 2], [1], [2, 0, 1], [0, 1, 2], []])
def test_sampler_select_picks_and_permutes(keep):
    selected = make().sampler_select(keep)
    assert selected.tensor("rnn").shape == (4, 2, len(keep), 2)
    assert (selected.tensor("rnn")[0, 0, :, 0]).tolist() == keep
    assert (selected.tensor("goal")[0, :, 0]).tolist() == keep
    assert selected.sampler_dim("rnn") == 2


def test_one_step_with_and_without_its_dimension():
    memory = make()
    for step, value in ((0, 0), (2, 2000), (-1, 3000)):
        kept = memory.step_select(step)
        assert kept.tensor("rnn").shape == (1, 2, 3, 2)
        assert kept.tensor("rnn")[0, 0, 0, 0] == value
        assert kept.sampler_dim("rnn") == 2
        squeezed = memory.step_squeeze(step)
        assert squeezed.tensor("goal").shape == (3, 2)
        assert squeezed.sampler_dim("goal") == 0
        assert torch.equal(squeezed.tensor("rnn"), kept.tensor("rnn")[0])


def test_a_step_needs_a_dimension():
    with pytest.raises(ValueError, match='"a" has no step dimension'):
        Memory(a=(torch.zeros(3, 2), 0)).step_squeeze(0)


def test_slices_along_a_common_dimension():
    memory = make()
    sliced = memory.slice(0, start=1, stop=4, step=2)
    assert sliced.tensor("rnn")[:, 0, 0, 0].tolist() == [1000, 3000]
    assert sliced.tensor("goal")[:, 0, 0].tolist() == [1000, 3000]
    assert sliced.sampler_dim("rnn") == 2
    assert memory.slice(0, stop=-1).tensor("rnn").shape[0] == 3


def test_slices_need_equal_lengths():
    with pytest.raises(ValueError, match="differ in length along dimension 1"):
        make().slice(1, stop=1)
    with pytest.raises(ValueError, match='"goal" has no dimension 3'):
        make().slice(3)


def test_moving_is_in_place():
    memory = make()
    assert memory.to("meta") is memory
    assert memory.tensor("rnn").device.type == "meta"
    assert memory.sampler_dim("rnn") == 2


def test_memories_can_be_sent_to_another_process():
    copy = pickle.loads(pickle.dumps(make()))
    assert isinstance(copy, Memory)
    assert torch.equal(copy.tensor("rnn"), marked())
