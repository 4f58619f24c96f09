"""Batching, moving and tiling."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from allenact.base_abstractions.memory import Memory
from allenact.utils import tensor_utils as t


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, torch.int64),
        (True, torch.int64),
        (np.int32(3), torch.int64),
        (np.uint8(3), torch.int64),
        (0.5, torch.float32),
        (np.float64(0.5), torch.float32),
        (np.bool_(True), torch.float32),
        ([1, 2], torch.float32),
        (np.array([1.0, 2.0]), torch.float64),
        (np.array([True, False]), torch.bool),
        (np.zeros(2, dtype=np.uint8), torch.uint8),
        (torch.zeros(2, dtype=torch.float16), torch.float16),
    ],
)
def test_to_tensor_types_and_values(value, dtype):
    tensor = t.to_tensor(value)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), np.asarray(value, dtype=np.float64))


def test_to_tensor_takes_read_only_and_reversed_arrays():
    array = np.arange(3)
    array.setflags(write=False)
    assert t.to_tensor(array).tolist() == [0, 1, 2]
    assert t.to_tensor(np.arange(3)[::-1]).tolist() == [2, 1, 0]


def observation(i):
    return {
        "rgb": np.full((2, 3), i, dtype=np.uint8),
        "goal": {"distance": float(i), "index": i, "deep": {"tensor": torch.full((2,), i)}},
        "double": np.full(1, i, dtype=np.float64),
    }


def test_batching_stacks_every_leaf():
    batch = t.batch_observations([observation(i) for i in range(4)], device=torch.device("cpu"))
    assert batch["rgb"].shape == (4, 2, 3)
    assert batch["rgb"].dtype == torch.uint8
    assert batch["rgb"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch["goal"]["distance"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert batch["goal"]["index"].dtype == torch.int64
    assert batch["goal"]["deep"]["tensor"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert batch["double"].dtype == torch.float64


def test_a_batch_does_not_share_memory_with_its_observations():
    observations = [observation(0)]
    batch = t.batch_observations(observations)
    observations[0]["rgb"][:] = 9
    assert batch["rgb"].max() == 0


def test_no_observations_give_no_batch():
    assert t.batch_observations([]) == []


class Pair(NamedTuple):
    a: torch.Tensor
    b: int


def test_to_device_goes_everywhere():
    memory = Memory({"rnn": (torch.zeros(1, 2, 3), 1)})
    value = {"x": [torch.zeros(1), "text"], "y": (torch.ones(2), {"z": None}), "m": memory, "p": Pair(torch.ones(1), 4)}
    moved = t.to_device_recursively(value, "meta")
    assert moved is value
    assert moved["x"][0].device.type == "meta"
    assert moved["x"][1] == "text"
    assert moved["y"][0].device.type == "meta"
    assert moved["m"].tensor("rnn").device.type == "meta"
    assert moved["p"].a.device.type == "meta"
    assert moved["p"].b == 4


def test_detach_can_leave_the_original_alone():
    x = torch.ones(1, requires_grad=True) * 2
    original = {"a": [x], "b": (x,)}
    detached = t.detach_recursively(original, inplace=False)
    assert not detached["a"][0].requires_grad
    assert not detached["b"][0].requires_grad
    assert original["a"][0].requires_grad
    t.detach_recursively(original)
    assert not original["a"][0].requires_grad


def test_images_are_tiled_row_by_row_and_filled_up_with_black():
    images = [np.full((2, 3, 3), i + 1, dtype=np.uint8) for i in range(5)]
    tiled = t.tile_images(images)
    assert tiled.shape == (3 * 2, 2 * 3, 3)
    assert tiled.dtype == np.uint8
    assert tiled[::2, ::3, 0].tolist() == [[1, 2], [3, 4], [5, 0]]
    assert tiled[1, 2, 2] == 1
    assert t.tile_images(images[:1]).tolist() == images[0].tolist()


def test_scale_both_sides_ignores_proportions():
    image_module = pytest.importorskip("PIL.Image")
    gradient = np.tile(np.linspace(0, 255, 8, dtype=np.uint8), (4, 1))
    image = image_module.fromarray(np.stack([gradient] * 3, axis=-1))
    scaled = t.ScaleBothSides(width=4, height=6)(image)
    assert scaled.size == (4, 6)
    np.testing.assert_array_equal(
        np.asarray(scaled), np.asarray(image.resize((4, 6), image_module.Resampling.BILINEAR))
    )
    nearest = t.ScaleBothSides(width=2, height=2, interpolation=image_module.Resampling.NEAREST)(image)
    assert set(np.unique(np.asarray(nearest))) <= set(np.unique(gradient))


def test_video_names_come_from_the_video_module():
    from allenact.utils import video_utils

    assert t.make_grid is video_utils.make_grid
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = t.no_such_name
