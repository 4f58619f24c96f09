import itertools
import pickle
import random
import sys
import types
import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, Memory
from allenact.errors import ExperimentConfigError, MissingExtraError
from allenact_plugins.minigrid_plugin.minigrid_offpolicy import (
    MiniGridExpertTrajectoryStorage,
    MiniGridOffPolicyExpertCELoss,
    transform_demos,
)

LENGTHS = [3, 5, 2, 4]
MISSIONS = ["go to the red ball", "open a door", "go to a key", "pick up the box"]


def make_demo(number):
    """Every view of demonstration n at step t is full of 10 n + t, and so is the action."""
    length = LENGTHS[number]
    marks = np.arange(length) + 10 * number
    images = np.broadcast_to(marks[:, None, None, None], (length, 7, 7, 3)).astype(np.uint8)
    return MISSIONS[number], images, [0] * length, marks.tolist()


@pytest.fixture
def data_path(tmp_path):
    path = tmp_path / "demos.pkl"
    path.write_bytes(pickle.dumps([make_demo(number) for number in range(4)]))
    return str(path)


def make_storage(data_path, **kwargs):
    options = {"num_samplers": 2, "rollout_len": 4, "instr_len": 5, **kwargs}
    storage = MiniGridExpertTrajectoryStorage(data_path, **options)
    storage.initialize(observations={}, num_samplers=0)
    return storage


def test_batches_have_the_promised_shapes(data_path):
    storage = make_storage(data_path)
    batch = storage.next_batch()
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "masks": ((4, 2, 1), torch.float32),
        "minigrid_ego_image": ((4, 2, 7, 7, 3), torch.uint8),
        "expert_action": ((4, 2), torch.int64),
        "minigrid_mission": ((4, 2, 5), torch.int64),
    }
    assert storage.total_experiences == 8
    storage.next_batch()
    assert storage.total_experiences == 16
    assert not storage.empty()
    assert "minigrid_mission" not in make_storage(data_path, instr_len=None).next_batch()


def test_streams_play_whole_demonstrations_one_after_the_other(data_path):
    storage = make_storage(data_path, num_samplers=3)
    batches = [storage.next_batch() for _ in range(20)]
    actions = torch.cat([batch["expert_action"] for batch in batches])  # [80, 3]
    masks = torch.cat([batch["masks"] for batch in batches])[..., 0]
    views = torch.cat([batch["minigrid_ego_image"] for batch in batches])
    assert torch.equal(views[:, :, 0, 0, 0].long(), actions)
    for n in range(3):
        starts = (masks[:, n] == 0).nonzero()[:, 0].tolist()
        assert starts[0] == 0
        for start, end in itertools.pairwise(starts):
            demo = int(actions[start, n]) // 10
            assert actions[start:end, n].tolist() == make_demo(demo)[3]


def test_every_demonstration_is_played_before_any_is_played_again(data_path):
    storage = make_storage(data_path, num_samplers=1, rollout_len=1)
    random.seed(0)
    orders = []
    for _ in range(12):
        played = []
        while len(played) < 4:
            batch = storage.next_batch()
            if batch["masks"].item() == 0:
                played.append(batch["expert_action"].item() // 10)
            last = played[-1]
        for _ in range(LENGTHS[last] - 1):  # to the end of the fourth
            storage.next_batch()
        assert sorted(played) == [0, 1, 2, 3]
        orders.append(tuple(played))
    assert len(set(orders)) > 3


def test_workers_share_the_data(data_path):
    seen = []
    for index in range(2):
        storage = make_storage(data_path, num_samplers=3)
        storage.set_partition(index, 2)
        assert storage.num_streams == 2
        actions = torch.cat([storage.next_batch()["expert_action"] for _ in range(10)])
        assert actions.shape == (40, 2)
        seen.append(set((actions // 10).flatten().tolist()))
    assert seen == [{0, 1}, {2, 3}]


def test_too_many_workers_are_refused(data_path):
    storage = make_storage(data_path, restrict_max_steps_in_dataset=8)
    storage.set_partition(0, 5)
    with pytest.raises(ExperimentConfigError, match="not enough demonstrations"):
        storage.next_batch()


@pytest.mark.parametrize(("limit", "expected"), [(8, {0, 1}), (9, {0, 1}), (10, {0, 1, 2}), (100, {0, 1, 2, 3})])
def test_the_amount_of_data_can_be_limited(data_path, limit, expected):
    storage = make_storage(data_path, restrict_max_steps_in_dataset=limit)
    actions = torch.cat([storage.next_batch()["expert_action"] for _ in range(10)])
    assert set((actions // 10).flatten().tolist()) == expected


def test_a_saved_stream_continues(data_path):
    random.seed(3)
    storage = make_storage(data_path)
    for _ in range(3):
        storage.next_batch()
    state, random_state = storage.state_dict(), random.getstate()
    expected = [storage.next_batch() for _ in range(5)]

    other = make_storage(data_path)
    other.load_state_dict(state)
    random.setstate(random_state)
    for batch in expected:
        for name, tensor in other.next_batch().items():
            assert torch.equal(tensor, batch[name])
    assert other.total_experiences == storage.total_experiences


def test_missing_file(tmp_path):
    with pytest.raises(ExperimentConfigError, match=r"nothing\.pkl"):
        make_storage(str(tmp_path / "nothing.pkl")).next_batch()


def test_demonstrations_as_steps():
    (episode,) = transform_demos([make_demo(2)])
    assert [action for _, action, _ in episode] == [20, 21]
    assert [done for _, _, done in episode] == [False, True]
    observation = episode[1][0]
    assert observation["mission"] == "go to a key"
    assert observation["direction"] == 0
    assert observation["image"].shape == (7, 7, 3)
    assert (observation["image"] == 21).all()


def test_compressed_images(monkeypatch):
    mission, images, directions, actions = make_demo(1)
    packed = zlib.compress(pickle.dumps(images))
    monkeypatch.setitem(sys.modules, "blosc", None)
    with pytest.raises(MissingExtraError, match="pip install blosc"):
        transform_demos([(mission, packed, directions, actions)])
    monkeypatch.setitem(sys.modules, "blosc", types.SimpleNamespace(decompress=zlib.decompress))
    (episode,) = transform_demos([(mission, packed, directions, actions)])
    assert np.array_equal(np.stack([observation["image"] for observation, _, _ in episode]), images)


class CountingModel(ActorCriticModel[CategoricalDistr]):
    """Always the same logits; its memory counts the steps since the last episode began."""

    def __init__(self, logits, has_memory):
        space = gym.spaces.Dict({"minigrid_ego_image": gym.spaces.Box(0, 10, (7, 7, 3))})
        super().__init__(gym.spaces.Discrete(len(logits)), space)
        self.logits = torch.nn.Parameter(torch.tensor(logits))
        self.has_memory = has_memory

    def _recurrent_memory_specification(self):
        if not self.has_memory:
            return None
        return {"count": ((("layer", 1), ("sampler", None), ("hidden", 1)), torch.float32)}

    def forward(self, observations, memory, prev_actions, masks):
        assert prev_actions is None
        if self.has_memory:
            count = memory.tensor("count")
            for mask in masks:
                count = count * mask + 1
            memory = Memory(count=(count, 1))
        logits = self.logits.expand(*masks.shape[:2], -1)
        return ActorCriticOutput(CategoricalDistr(logits=logits), torch.zeros_like(masks), {}), memory


def make_batch(actions, masks):
    return {"expert_action": torch.tensor(actions), "masks": torch.tensor(masks)[..., None]}


def test_loss_is_the_cross_entropy():
    model = CountingModel([0.0, 1.0, 3.0], has_memory=False)
    log_probs = torch.log_softmax(torch.tensor([0.0, 1.0, 3.0]), dim=0)
    stream_memory, batch_memory = Memory(), Memory()
    output = MiniGridOffPolicyExpertCELoss().loss(
        model=model,
        batch=make_batch([[0, 2], [1, 2]], [[1.0, 1.0], [1.0, 1.0]]),
        batch_memory=batch_memory,
        stream_memory=stream_memory,
    )
    expected = -(log_probs[0] + log_probs[1] + 2 * log_probs[2]) / 4
    assert output.value.item() == pytest.approx(expected.item())
    assert output.info == {"expert_ce": pytest.approx(expected.item())}
    assert output.bsize == 4
    assert output.batch_memory is batch_memory
    assert len(stream_memory) == 0
    output.value.backward()
    assert model.logits.grad is not None


def test_recurrent_state_flows_from_batch_to_batch():
    model = CountingModel([0.0, 0.0], has_memory=True)
    loss = MiniGridOffPolicyExpertCELoss(total_episodes_in_epoch=3)
    stream_memory = Memory()
    for masks in ([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]):
        batch = make_batch([[0, 1]] * 3, masks)
        output = loss.loss(model=model, batch=batch, batch_memory=Memory(), stream_memory=stream_memory)
        assert output.stream_memory is stream_memory
    assert stream_memory.tensor("count").tolist() == [[[6.0], [2.0]]]
    assert stream_memory.sampler_dim("count") == 1
