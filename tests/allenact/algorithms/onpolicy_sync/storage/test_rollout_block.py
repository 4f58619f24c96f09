"""RolloutBlockStorage: rows marked with numbers that say where they belong."""

import copy
import pickle
import random
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.returns import discounted_returns, gae, normalize_advantages
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage, rollout_batches
from allenact.base_abstractions.misc import Memory
from allenact.errors import CheckpointError, ExperimentConfigError, TaskError

MEMORY_SPEC = {"rnn": ((("layer", 2), ("sampler", None), ("hidden", 3)), torch.float32)}
BOX = gym.spaces.Box(-1, 1, (2,))


def marks(t, num_samplers, *shape):
    """A row of values 1000 * t + sampler."""
    row = 1000.0 * t + torch.arange(num_samplers, dtype=torch.float32)  # [N]
    return row.reshape(num_samplers, *(1 for _ in shape)).expand(num_samplers, *shape)


def observations_at(t, num_samplers):
    image = marks(t, num_samplers, 2, 2).to(torch.int16)
    return {"image": image, "body": {"position": marks(t, num_samplers, 3), "joint": {"angle": marks(t, num_samplers)}}}


def new_storage(num_samplers=4, action_space=BOX, memory_spec=MEMORY_SPEC, reserve=None, init_size=50):
    storage = RolloutBlockStorage(init_size=init_size)
    if reserve is not None:
        storage.reserve(reserve)
    storage.initialize(
        observations=observations_at(0, num_samplers),
        num_samplers=num_samplers,
        recurrent_memory_specification=memory_spec,
        action_space=action_space,
    )
    return storage


def add_marked_step(storage, t, mask=None, **kwargs):
    """Takes step t: what belongs to the action is marked t, what comes after it t + 1."""
    n = storage.num_samplers
    memory = Memory(rnn=((marks(t + 1, n, 3) + torch.zeros(2, 1, 1)).contiguous(), 1))
    storage.add(
        observations=observations_at(t + 1, n),
        memory=memory,
        actions=marks(t, n, 2),
        action_log_probs=-marks(t, n),
        value_preds=marks(t, n, 1) / 10,
        rewards=marks(t, n, 1) / 100,
        masks=torch.ones(n, 1) if mask is None else mask,
        **kwargs,
    )


def fill(storage, steps, **kwargs):
    for t in range(steps):
        add_marked_step(storage, t, **kwargs)
    storage.before_updates(next_value=torch.zeros(1, storage.num_samplers, 1), use_gae=True, gamma=0.9, tau=0.8)


def test_fresh_storage_offers_zeros_and_the_first_observation():
    storage = new_storage()
    agent_input = storage.agent_input_for_next_step()
    assert agent_input["observations"]["image"].dtype == torch.int16
    assert torch.equal(agent_input["observations"]["image"][0], observations_at(0, 4)["image"])
    assert agent_input["observations"]["body"]["joint"]["angle"].shape == (1, 4)
    assert torch.equal(agent_input["masks"], torch.zeros(1, 4, 1))
    assert torch.equal(agent_input["prev_actions"], torch.zeros(1, 4, 2))
    assert torch.equal(agent_input["memory"].tensor("rnn"), torch.zeros(2, 4, 3))
    assert agent_input["memory"].sampler_dim("rnn") == 1


@pytest.mark.parametrize(("reserve", "init_size"), [(7, 50), (None, 7), (None, 1), (None, 3), (2, 50)])
def test_rows_are_where_they_belong(reserve, init_size):
    """Also when the room has to grow, because reserve was not called or announced too little."""
    storage = new_storage(reserve=reserve, init_size=init_size)
    fill(storage, steps=7)
    t = 1000.0 * torch.arange(8).reshape(8, 1, 1) + torch.arange(4.0).reshape(1, 4, 1)  # [T+1, N, 1]
    assert torch.equal(storage.rewards, t[:7] / 100)
    assert torch.equal(storage.value_preds[:7], t[:7] / 10)
    assert torch.equal(storage.actions, t[:7].expand(7, 4, 2))
    assert torch.equal(storage.prev_actions[1:], storage.actions)
    assert torch.equal(storage.prev_actions[0], torch.zeros(4, 2))
    assert torch.equal(storage.action_log_probs, -t[:7, :, 0])
    assert torch.equal(storage.masks[:, 0, 0], torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1]))
    observed = storage.observations
    assert torch.equal(observed.tensor(storage.unflattened_to_flattened[("body", "position")]), t.expand(8, 4, 3))
    assert all(observed.sampler_dim(name) == 1 for name in observed)
    assert torch.equal(storage.memory_first_last.tensor("rnn")[0], torch.zeros(2, 4, 3))
    assert torch.equal(storage.memory_first_last.tensor("rnn")[1, 0], t[7].expand(4, 3))
    assert storage.memory_first_last.sampler_dim("rnn") == 2
    assert storage.step == 7
    assert storage.full_size >= 7
    assert storage.total_experiences == 28


def test_reserved_rows_are_never_reallocated():
    storage = new_storage(reserve=6)
    before = storage.masks.data_ptr()
    for t in range(6):
        add_marked_step(storage, t)
    assert storage.full_size == 6
    assert storage.masks.data_ptr() == before


def test_room_doubles():
    storage = new_storage(init_size=2)
    for t in range(5):
        add_marked_step(storage, t)
    assert storage.full_size == 8


def test_reserve_after_initialize_keeps_the_rows():
    storage = new_storage(init_size=2)
    add_marked_step(storage, 0)
    storage.reserve(9)
    assert storage.full_size == 9
    assert torch.equal(storage.rewards[0], marks(0, 4, 1) / 100)


def test_the_next_rollout_continues_where_the_last_one_ended():
    storage = new_storage()
    fill(storage, steps=3, mask=torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
    expected = copy.deepcopy(storage.agent_input_for_next_step())
    storage.after_updates()
    assert storage.step == 0
    agent_input = storage.agent_input_for_next_step()
    assert torch.equal(agent_input["observations"]["body"]["position"][0], marks(3, 4, 3))
    for name in ("masks", "prev_actions"):
        assert torch.equal(agent_input[name], expected[name])
    assert torch.equal(agent_input["masks"][0, :, 0], torch.tensor([1.0, 0, 1, 0]))
    assert torch.equal(agent_input["memory"].tensor("rnn"), expected["memory"].tensor("rnn"))
    assert torch.equal(storage.memory_first_last.tensor("rnn")[0], expected["memory"].tensor("rnn"))


def test_a_model_that_writes_into_its_memory_does_not_change_the_stored_one():
    storage = new_storage()
    fill(storage, steps=2)
    storage.after_updates()
    memory = storage.agent_input_for_next_step()["memory"]
    memory.tensor("rnn").fill_(-1.0)
    memory.set_tensor("rnn", torch.full((2, 4, 3), -2.0))
    assert torch.equal(storage.memory_first_last.tensor("rnn")[0, 0], marks(2, 4, 3))
    assert storage.agent_input_for_next_step()["memory"].tensor("rnn").max() != -2


@pytest.mark.parametrize(
    ("num_samplers", "num_mini_batch", "limits"),
    [
        (16, 4, [0, 4, 8, 12, 16]),
        (16, 2, [0, 8, 16]),
        (128, 4, [0, 32, 64, 96, 128]),
        (3, 2, [0, 2, 3]),
        (5, 2, [0, 2, 5]),
        (5, 4, [0, 1, 2, 4, 5]),
        (7, 3, [0, 2, 5, 7]),
        (10, 4, [0, 2, 5, 8, 10]),
    ],
)
def test_mini_batches_are_contiguous_groups_of_samplers(num_samplers, num_mini_batch, limits):
    storage = new_storage(num_samplers)
    fill(storage, steps=2)
    batches = storage.batched_experience_generator(num_mini_batch)
    groups = [batch["old_action_log_probs"][0] for batch in batches]
    members = sorted([int(-x) for x in group] for group in groups)
    assert members == [list(range(a, b)) for a, b in pairwise(limits)]


def test_every_row_comes_back_once_per_pass_in_a_new_order():
    storage = new_storage(num_samplers=16)
    fill(storage, steps=5)
    expected = sorted((-storage.action_log_probs).flatten().tolist())
    random.seed(3)
    orders = []
    for _ in range(4):
        batches = list(storage.batched_experience_generator(8))
        seen = torch.cat([-batch["old_action_log_probs"].flatten() for batch in batches])
        assert sorted(seen.tolist()) == expected
        orders.append(tuple(seen.tolist()))
    assert len(set(orders)) == 4
    random.seed(3)
    again = [-batch["old_action_log_probs"].flatten() for batch in storage.batched_experience_generator(8)]
    assert torch.cat(again).tolist() == list(orders[0])


def assert_batch_is_consistent(batch, storage):
    """All entries of a batch belong to the same rows: each is a function of the row's mark."""
    mark = -batch["old_action_log_probs"].unsqueeze(-1)  # [T, n, 1]
    step, sampler = (mark // 1000).long(), (mark % 1000).long()
    assert torch.equal(batch["actions"], mark.expand_as(batch["actions"]))
    assert torch.equal(batch["values"], mark / 10)
    assert torch.equal(batch["observations"]["body"]["position"], mark.expand(*mark.shape[:2], 3))
    assert torch.equal(batch["observations"]["image"], mark[..., None].expand(*mark.shape[:2], 2, 2).to(torch.int16))
    previous = torch.where(step > 0, mark - 1000, 0.0)
    assert torch.equal(batch["prev_actions"], previous.expand_as(batch["prev_actions"]))
    assert torch.equal(batch["masks"], (step > 0).float())
    advantages = batch["returns"] - batch["values"]
    torch.testing.assert_close(batch["adv_targ"], advantages, atol=1e-3, rtol=1e-4)
    everything = gae(storage.rewards, storage.value_preds, storage.masks, gamma=0.9, gae_lambda=0.8)
    torch.testing.assert_close(batch["adv_targ"], everything[step[..., 0], sampler[..., 0]])
    torch.testing.assert_close(batch["norm_adv_targ"], normalize_advantages(everything)[step[..., 0], sampler[..., 0]])
    assert batch["bsize"] == mark.numel()


def test_a_batch_of_samplers_holds_their_whole_sequences():
    storage = new_storage(num_samplers=5)
    fill(storage, steps=6)
    for batch in storage.batched_experience_generator(2):
        assert_batch_is_consistent(batch, storage)
        assert batch["masks"].shape[0] == 6
        samplers = [int(-x) for x in batch["old_action_log_probs"][0]]
        assert batch["memory"].tensor("rnn").shape == (2, len(samplers), 3)


def test_a_batch_gets_the_memory_of_its_own_samplers():
    storage = new_storage(num_samplers=5)
    fill(storage, steps=2)
    storage.after_updates()
    fill(storage, steps=3)
    for batch in storage.batched_experience_generator(3):
        samplers = -batch["old_action_log_probs"][0]  # [n]
        assert torch.equal(batch["memory"].tensor("rnn")[0, :, 0], 2000 + samplers)


@pytest.mark.parametrize("kept", [True, False])
def test_mini_batches_are_those_of_the_current_rollout_in_every_pass(monkeypatch, kept):
    monkeypatch.setattr(rollout_batches, "_KEPT_GROUPS_BYTES", 10**9 if kept else 0)
    storage = new_storage(num_samplers=5)
    for steps in (6, 3):
        fill(storage, steps=steps)
        for _ in range(3):
            for batch in storage.batched_experience_generator(2):
                samplers = (-batch["old_action_log_probs"][0]).long()  # [n]
                assert torch.equal(batch["returns"], storage.returns[:-1, samplers])
        storage.after_updates()
    fill(storage, steps=2)
    list(storage.batched_experience_generator(1))
    storage.sampler_select([1, 4])
    (batch,) = storage.batched_experience_generator(1)
    assert (-batch["old_action_log_probs"][0]).tolist() == [1, 4]


@pytest.mark.parametrize("num_mini_batch", [1, 4, 7, 30])
def test_mini_batches_over_steps(num_mini_batch):
    storage = new_storage(num_samplers=5, memory_spec=None)
    fill(storage, steps=6)
    torch.manual_seed(0)
    batches = list(storage.batched_experience_generator(num_mini_batch, mini_batches_over="steps"))
    assert len(batches) == num_mini_batch
    for batch in batches:
        assert batch["masks"].shape == (1, batch["bsize"], 1)
        assert_batch_is_consistent(batch, storage)
    seen = torch.cat([batch["old_action_log_probs"][0] for batch in batches])
    assert sorted(seen.tolist()) == sorted(storage.action_log_probs.flatten().tolist())
    again = storage.batched_experience_generator(num_mini_batch, mini_batches_over="steps")
    assert torch.cat([batch["old_action_log_probs"][0] for batch in again]).tolist() != seen.tolist()


def test_zero_mini_batches_are_none():
    storage = new_storage()
    fill(storage, steps=2)
    assert list(storage.batched_experience_generator(0)) == []


def test_more_mini_batches_than_samplers_are_refused():
    storage = new_storage(num_samplers=4)
    fill(storage, steps=2)
    with pytest.raises(ExperimentConfigError, match="8 mini-batches cannot be cut from 4 task samplers"):
        storage.batched_experience_generator(8)


def test_steps_of_a_model_with_memory_are_not_shuffled():
    storage = new_storage()
    fill(storage, steps=2)
    with pytest.raises(ExperimentConfigError, match="cannot be shuffled for a model with memory"):
        storage.batched_experience_generator(2, mini_batches_over="steps")


def test_returns_without_gae():
    storage = new_storage()
    for t in range(4):
        add_marked_step(storage, t)
    next_value = torch.arange(4.0).reshape(1, 4, 1)
    storage.before_updates(next_value=next_value, use_gae=False, gamma=0.9)
    expected = discounted_returns(storage.rewards, next_value, storage.masks, gamma=0.9)
    assert torch.equal(storage.returns, expected)
    assert torch.equal(storage.value_preds[-1], next_value[0])


def test_advantages_are_normalised_with_the_statistics_of_all_workers():
    storage = new_storage()
    fill(storage, steps=3)
    stats = {"mean": torch.tensor(5.0), "std": torch.tensor(2.0)}
    storage.before_updates(
        next_value=torch.zeros(4, 1), use_gae=True, gamma=0.9, tau=0.8, adv_stats_callback=lambda advantages: stats
    )
    (batch,) = storage.batched_experience_generator(1)
    torch.testing.assert_close(batch["norm_adv_targ"], (batch["adv_targ"] - 5) / (2 + 1e-5))


def test_truncation_values_reach_the_returns_of_their_row_only():
    cut = torch.tensor([[1.0], [0.0], [1.0], [1.0]])  # sampler 1 ends at step 1
    beyond = torch.tensor([[0.0], [50.0], [0.0], [0.0]])
    rollouts = []
    for values in (None, beyond):
        storage = new_storage()
        add_marked_step(storage, 0)
        add_marked_step(storage, 1, mask=cut, truncation_values=values)
        add_marked_step(storage, 2)
        storage.before_updates(next_value=torch.zeros(4, 1), use_gae=False, gamma=0.5)
        rollouts.append(storage.returns)
    difference = rollouts[1] - rollouts[0]  # [T+1, N, 1]
    expected = torch.zeros(4, 4, 1)
    expected[0, 1], expected[1, 1] = 12.5, 25.0
    torch.testing.assert_close(difference, expected)


def test_a_truncation_is_forgotten_with_its_rollout():
    storage = new_storage()
    add_marked_step(storage, 0, truncation_values=torch.ones(4, 1))
    storage.after_updates()
    add_marked_step(storage, 0)
    storage.before_updates(next_value=torch.zeros(4, 1), use_gae=False, gamma=0.5)
    torch.testing.assert_close(storage.returns[0], storage.rewards[0])


def test_sampler_select_keeps_rows_memory_and_order():
    storage = new_storage()
    storage.sampler_select([0, 1, 2, 3])  # before anything was added
    fill(storage, steps=3)
    storage.sampler_select([1, 3])
    assert torch.equal(-storage.action_log_probs % 1000, torch.tensor([[1.0, 3.0]] * 3))
    assert storage.agent_input_for_next_step()["memory"].tensor("rnn")[0, :, 0].tolist() == [3001, 3003]
    add_marked_step(storage, 3)
    assert storage.actions.shape == (4, 2, 2)
    storage.sampler_select([])
    assert storage.agent_input_for_next_step()["masks"].shape == (1, 0, 1)


@pytest.mark.parametrize(
    ("space", "dtype", "size"),
    [
        (gym.spaces.Discrete(5), torch.int64, 1),
        (gym.spaces.Box(-1, 1, (3,)), torch.float32, 3),
        (gym.spaces.MultiDiscrete([3, 4]), torch.int64, 2),
        (gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": gym.spaces.Box(0, 1, (2,))}), torch.float32, 3),
        (gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Discrete(3))), torch.int64, 2),
    ],
)
def test_actions_are_stored_in_their_natural_type(space, dtype, size):
    storage = new_storage(action_space=space)
    assert storage.prev_actions.dtype == dtype
    assert storage.prev_actions.shape == (1, 4, size)


def test_large_whole_actions_survive():
    storage = new_storage(num_samplers=1, action_space=gym.spaces.Discrete(2**40))
    action = torch.tensor([[2**24 + 1]])
    storage.add(
        observations_at(1, 1), None, action, torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1)
    )
    assert storage.agent_input_for_next_step()["prev_actions"].tolist() == [[2**24 + 1]]


def test_numpy_observations_are_taken_as_they_are():
    storage = RolloutBlockStorage()
    first = {"x": np.arange(6, dtype=np.float64).reshape(2, 3)}
    storage.initialize(observations=first, num_samplers=2, action_space=BOX)
    assert storage.agent_input_for_next_step()["observations"]["x"].dtype == torch.float64
    assert not storage.agent_input_for_next_step()["memory"]


def test_gradients_do_not_enter_the_storage():
    storage = new_storage()
    values = torch.ones(4, 1, requires_grad=True)
    memory = Memory(rnn=(torch.ones(2, 4, 3, requires_grad=True) * 2, 1))
    storage.add(
        observations_at(1, 4), memory, marks(0, 4, 2), torch.zeros(4), values * 2, torch.zeros(4, 1), torch.ones(4, 1)
    )
    assert not storage.value_preds.requires_grad
    assert not storage.pick_memory_step(-1).tensor("rnn").requires_grad


def test_a_wrong_shape_is_refused_and_named():
    storage = new_storage()
    with pytest.raises(TaskError, match=r'"rewards".*\n.*\(4,\), expected \(4, 1\)'):
        storage.add(
            observations_at(1, 4),
            None,
            marks(0, 4, 2),
            torch.zeros(4),
            torch.zeros(4, 1),
            torch.zeros(4),
            torch.ones(4, 1),
        )


def test_missing_observations_are_refused():
    storage = new_storage()
    incomplete = observations_at(1, 4)
    del incomplete["image"]
    with pytest.raises(TaskError, match="changed their names"):
        storage.add(
            incomplete, None, marks(0, 4, 2), torch.zeros(4), torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4, 1)
        )


def test_memory_in_the_middle_of_a_rollout_is_not_kept():
    storage = new_storage()
    fill(storage, steps=3)
    with pytest.raises(ValueError, match="steps 0 and 3 only"):
        storage.pick_memory_step(1)
    assert torch.equal(storage.pick_observation_step(1)["body"]["position"][0], marks(1, 4, 3))
    assert torch.equal(storage.pick_prev_actions_step(2)[0], marks(1, 4, 2))


def test_restored_storage_continues_like_the_saved_one():
    storage = new_storage()
    fill(storage, steps=3, mask=torch.tensor([[1.0], [0.0], [1.0], [1.0]]))
    storage.after_updates()
    state = pickle.loads(pickle.dumps(storage.state_dict()))
    restored = new_storage()
    restored.load_state_dict(state)
    assert restored.total_experiences == 12
    for each in (storage, restored):
        fill(each, steps=2)
    random.seed(0)
    ours = next(storage.batched_experience_generator(2))
    random.seed(0)
    theirs = next(restored.batched_experience_generator(2))
    for name in ("masks", "prev_actions", "norm_adv_targ", "returns"):
        assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours["observations"]["image"], theirs["observations"]["image"])
    assert torch.equal(ours["memory"].tensor("rnn"), theirs["memory"].tensor("rnn"))


def test_restarted_samplers_begin_an_episode():
    storage = new_storage()
    fill(storage, steps=3)
    restored = new_storage()
    restored.load_state_dict(storage.state_dict(), restarted=[2])
    agent_input = restored.agent_input_for_next_step()
    assert agent_input["masks"][0, :, 0].tolist() == [1, 1, 0, 1]
    assert agent_input["observations"]["body"]["joint"]["angle"][0].tolist() == [3000, 3001, 2, 3003]
    assert agent_input["memory"].tensor("rnn")[1, :, 2].tolist() == [3000, 3001, 0, 3003]
    assert agent_input["prev_actions"][0, 2].tolist() == [0, 0]


def test_a_foreign_state_is_refused():
    with pytest.raises(CheckpointError, match="other observations, actions or samplers"):
        new_storage(num_samplers=3).load_state_dict(new_storage(num_samplers=4).state_dict())


def test_initialize_again_forgets_the_rollout():
    storage = new_storage()
    fill(storage, steps=3)
    storage.initialize(observations=observations_at(9, 4), num_samplers=4, action_space=BOX)
    assert storage.step == 0
    assert torch.equal(storage.masks, torch.zeros(1, 4, 1))
    assert torch.equal(storage.agent_input_for_next_step()["observations"]["body"]["position"][0], marks(9, 4, 3))
    assert torch.equal(storage.prev_actions, torch.zeros(1, 4, 2))


@pytest.mark.parametrize("name", ["rewards", "masks", "prev_actions"])
def test_observations_may_have_the_names_of_other_rows(name):
    storage = RolloutBlockStorage()
    storage.initialize(observations={name: torch.zeros(2, 3)}, num_samplers=2, action_space=BOX)
    seen = np.arange(6, dtype=np.float32).reshape(2, 3)
    storage.add_transition({name: seen}, np.ones((2, 2), np.float32), np.full(2, 7, np.float32), np.zeros(2, bool))
    np.testing.assert_array_equal(storage.observations.tensor(name)[1], seen)
    assert storage.rewards.flatten().tolist() == [7, 7]
    assert storage.masks[1].flatten().tolist() == [1, 1]
    assert storage.actions.flatten().tolist() == [1] * 4


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        ({"state": np.zeros((2, 1), np.float32)}, 'the shape of "state"'),
        ({}, "changed their names"),
        ({"state": np.zeros((2, 3), np.float32), "more": np.zeros(2)}, "changed their names"),
    ],
)
def test_a_transition_of_another_shape_or_name_is_refused(observations, message):
    storage = RolloutBlockStorage()
    storage.initialize(observations={"state": torch.zeros(2, 3)}, num_samplers=2, action_space=BOX)
    with pytest.raises(TaskError, match=message):
        storage.add_transition(observations, np.ones((2, 2)), np.zeros(2), np.zeros(2, bool))


def test_a_loss_may_change_the_dicts_of_its_batch():
    storage = new_storage()
    fill(storage, steps=3)
    (batch,) = storage.batched_experience_generator(1)
    del batch["observations"]["body"]["position"], batch["actions"]
    (again,) = storage.batched_experience_generator(1)
    assert_batch_is_consistent(again, storage)
