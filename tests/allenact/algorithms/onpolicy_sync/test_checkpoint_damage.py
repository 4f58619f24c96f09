"""A damaged checkpoint is never taken for a good one, whichever bytes are wrong or missing."""

import os
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allenact.algorithms.onpolicy_sync.checkpointing import (
    CheckpointStore,
    TrainingState,
    load_checkpoint,
    newest_good_checkpoint,
    one_checkpoint,
)
from allenact.errors import CheckpointError

# The fixtures are files and functions that no example changes.
ANYWHERE = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


def state(steps=64):
    generator = torch.Generator().manual_seed(steps)
    return TrainingState(
        model_state_dict={"weight": torch.rand(8, 4, generator=generator), "bias": torch.arange(8.0)},
        total_steps=steps,
        optimizer_state_dict={"state": {}, "param_groups": [{"lr": 0.1}]},
        training_pipeline_state_dict={"stage_info_list": []},
        trainer_seed=5,
        rng_state={"torch": torch.arange(64, dtype=torch.uint8)},
        sampler_states=[None, {"steps": 3}],
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A good checkpoint's path and bytes, and a path for the damaged ones."""
    folder = tmp_path_factory.mktemp("damage")
    path = folder / "exp_Toy__stage_00__steps_000000000064.pt"
    CheckpointStore(folder, "Toy").save(state(), path)
    return load_checkpoint(path), path.read_bytes(), folder / "damaged.pt"


def equals_or_is_refused(good, data, path, same_state):
    path.write_bytes(data)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError:
        return
    same_state(vars(good), vars(loaded))  # the bits that differ mean nothing, like those of a date


@pytest.mark.slow
@pytest.mark.faults("random flipped bits in a checkpoint (700 files)", "refused, or read as it was", "nothing")
@settings(max_examples=700, **ANYWHERE)
@given(where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits(where, written, same_state):
    good, data, path = written
    flipped = bytearray(data)
    for position, bit in where:
        flipped[int(position * len(data))] ^= 1 << bit
    equals_or_is_refused(good, bytes(flipped), path, same_state)


@pytest.mark.slow
@pytest.mark.faults("checkpoint truncated at random (300 files)", "refused, or read as it was", "nothing")
@settings(max_examples=300, **ANYWHERE)
@given(length=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=16))
def test_missing_ends(length, more, written, same_state):
    good, data, path = written
    equals_or_is_refused(good, data[: int(length * len(data))] + more, path, same_state)


@pytest.mark.slow
@pytest.mark.faults("blocks of zeros in a checkpoint (100 files)", "refused, or read as it was", "nothing")
@settings(max_examples=100, **ANYWHERE)
@given(begin=st.floats(0, 1, exclude_max=True), zeros=st.integers(1, 4096))
def test_blocks_that_never_reached_the_disk(begin, zeros, written, same_state):
    good, data, path = written
    begin = int(begin * len(data))
    block = bytes(min(zeros, len(data) - begin))
    equals_or_is_refused(good, data[:begin] + block + data[begin + len(block) :], path, same_state)


def test_every_bit_of_the_weights_counts(written):
    good, data, path = written
    weights = good.model_state_dict["weight"].numpy().tobytes()
    begin = data.index(weights)
    for index in range(len(weights)):
        path.write_bytes(data[: begin + index] + bytes([data[begin + index] ^ 1]) + data[begin + index + 1 :])
        with pytest.raises(CheckpointError, match=r"checksum of its part .* is wrong"):
            load_checkpoint(path)


def test_other_tools_read_our_files(written):
    _, data, path = written
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["total_steps"] == 64
    assert zipfile.ZipFile(path).testzip() is None


def save_three(folder):
    store = CheckpointStore(folder, "Toy")
    paths = [store.path(0, steps) for steps in (64, 128, 192)]
    for path, steps in zip(paths, (64, 128, 192), strict=True):
        store.save(state(steps), path)
    return [os.fspath(path) for path in paths]


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def test_damaged_files_are_skipped_and_named(tmp_path, caplog):
    paths = save_three(tmp_path)
    assert newest_good_checkpoint(paths) == paths[2]
    truncate(paths[2])
    with caplog.at_level("WARNING", logger="allenact"):
        assert newest_good_checkpoint(paths) == paths[1]
    assert paths[2] in caplog.text
    for path in paths:
        truncate(path)
    assert newest_good_checkpoint(paths) is None


def test_a_damaged_file_that_was_asked_for_names_a_good_one(tmp_path):
    paths = save_three(tmp_path)
    truncate(paths[1])
    with pytest.raises(CheckpointError, match=r"newest good one beside it: .*0192"):
        one_checkpoint(paths[1])
    for path in paths:
        truncate(path)
    with pytest.raises(CheckpointError, match="use another checkpoint of the run"):
        one_checkpoint(paths[1])
