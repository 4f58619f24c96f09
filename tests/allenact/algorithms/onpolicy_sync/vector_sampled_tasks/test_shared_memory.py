"""The arrays themselves, and the memory they may lie in."""

import os

import numpy as np
import pytest

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.shared_memory import (
    StepArrays,
    copy_observation,
    create_shared_memory,
    layout_of,
    map_shared_memory,
)
from allenact.base_abstractions.task_batch import StepBatch

OBSERVATION = {"image": np.arange(6, dtype=np.uint8).reshape(2, 3), "inner": {"x": 1.5, "n": 3}}


def shared_arrays(num_rows, action_size=2):
    size = (layout_of(OBSERVATION), num_rows, action_size)
    descriptor = create_shared_memory(StepArrays.num_bytes(*size))
    try:
        return [StepArrays.allocate(*size, map_shared_memory(descriptor)) for _ in range(2)]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("has_memfd", [True, False])
def test_two_maps_of_the_same_memory(monkeypatch, has_memfd):
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create")
    writer, reader = shared_arrays(5)
    writer.rows(2, 4).write(1, OBSERVATION, sampler=3)  # row 3 of all
    writer.rewards[3] = 0.5
    writer.dones[4] = True
    writer.rows(2, 4).actions[0] = [0.1, 7]  # row 2 of all
    observations, rewards, dones, truncated = reader.select(range(5))
    assert np.array_equal(observations["image"][3], OBSERVATION["image"])
    assert observations["inner"]["x"].tolist() == [0, 0, 0, 1.5, 0]
    assert observations["inner"]["n"].tolist() == [0, 0, 0, 3, 0]
    assert rewards.tolist() == [0, 0, 0, 0.5, 0]
    assert reader.actions.tolist() == [[0, 0], [0, 0], [0.1, 7], [0, 0], [0, 0]]
    assert dones.tolist() == [False] * 4 + [True]
    assert not truncated.any()


@pytest.mark.parametrize("has_memfd", [True, False])
def test_memory_has_no_name(monkeypatch, has_memfd):
    """So the kernel frees it with its last user, however that one ends."""
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create")
    descriptor = create_shared_memory(64)
    try:
        assert os.fstat(descriptor).st_nlink == 0
        assert os.fstat(descriptor).st_size == 64
    finally:
        os.close(descriptor)


def test_too_much_memory_is_refused_at_once():
    with pytest.raises(OSError, match="more than the machine has"):
        create_shared_memory(2**60)


def test_nothing_stays_open_when_there_is_no_memory(monkeypatch):
    def refuse(descriptor, size):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="no space left"):
        create_shared_memory(64)  # the fixture looks for what stays open


def test_arrays_are_aligned_and_do_not_overlap():
    arrays = shared_arrays(7)[0]
    for number, array in enumerate([arrays.actions, *arrays._results()]):
        assert array.ctypes.data % 64 == 0
        array[...] = number if array.dtype != bool else True
    assert arrays.observations[0].min() == arrays.observations[0].max() == 1
    assert arrays.rewards.min() == arrays.rewards.max() == 4


def test_selecting_all_rows_copies_nothing():
    arrays = StepArrays.allocate(layout_of(OBSERVATION), 3)
    observations, rewards, _, _ = arrays.select([0, 1, 2])
    assert observations["image"] is arrays.observations[0]
    assert rewards is arrays.rewards
    arrays.rewards[:] = [1, 2, 3]
    assert arrays.select([0, 2])[1].tolist() == [1, 3]


def test_put_is_the_inverse_of_select():
    one, two = (StepArrays.allocate(layout_of(OBSERVATION), 3) for _ in range(2))
    for row in range(3):
        one.write(row, {"image": np.full((2, 3), row, np.uint8), "inner": {"x": row / 2, "n": row}}, row)
    one.rewards[1] = 0.25
    two.put_step([2, 0], StepBatch(*one.select([0, 1]), {}, [], []))
    assert two.observations[0][:, 0, 0].tolist() == [1, 0, 0]
    assert two.observations[1].tolist() == [0.5, 0, 0]
    assert two.rewards.tolist() == [0.25, 0, 0]


def test_copies_are_independent():
    copied = copy_observation(OBSERVATION)
    assert copied["image"] is not OBSERVATION["image"]
    assert not np.shares_memory(copied["image"], OBSERVATION["image"])
    assert copied["inner"]["x"].dtype == np.float32
    assert copied["inner"]["n"].dtype == np.int64
