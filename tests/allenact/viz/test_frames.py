"""Single pictures: compressing, converting, tiling."""

import numpy as np
import pytest

from allenact.viz.frames import CompressedImage, as_rgb, greyed, tile, with_caption


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack((rows * 255 // height, columns * 255 // width, rows * 0 + 90), -1).astype(np.uint8)


def test_compressed_picture_is_small_and_close():
    picture = gradient(200, 300)
    compressed = CompressedImage.from_array(picture)
    assert len(compressed.jpeg) < picture.nbytes / 20
    np.testing.assert_allclose(np.asarray(compressed).astype(int), picture, atol=6)


def test_shrinking_takes_the_mean_over_the_area():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, ::2] = 200  # every second column
    small = np.asarray(CompressedImage.from_array(picture, max_side=40))
    assert small.shape == (20, 40, 3)
    np.testing.assert_allclose(small, 100, atol=2)


@pytest.mark.parametrize("limit", [None, 0, 80, 500])
def test_small_pictures_keep_their_size(limit):
    assert np.asarray(CompressedImage.from_array(gradient(40, 80), limit)).shape == (40, 80, 3)


def test_pictures_of_other_kinds():
    grey = np.array([[0, 255]], np.uint8)
    expected = [[[0, 0, 0], [255, 255, 255]]]
    assert as_rgb(grey).tolist() == expected
    assert as_rgb(grey[..., None]).tolist() == expected
    assert as_rgb(np.array([[0.0, 1.0]])).tolist() == expected
    assert as_rgb(np.full((1, 1, 4), 9, np.uint8)).tolist() == [[[9, 9, 9]]]
    with pytest.raises(ValueError, match=r"\[H, W, 3\], not \(2, 3, 5\)"):
        as_rgb(np.zeros((2, 3, 5)))


def test_tiles_are_padded_to_the_largest():
    pictures = [np.full((2, 3, 3), 1, np.uint8), np.full((1, 1, 3), 2, np.uint8), np.full((2, 2, 3), 3, np.uint8)]
    assert tile(pictures)[..., 0].tolist() == [
        [1, 1, 1, 2, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [3, 3, 0, 0, 0, 0],
        [3, 3, 0, 0, 0, 0],
    ]


def test_caption_leaves_the_picture_it_was_given_alone():
    picture = np.zeros((30, 60, 3), np.uint8)
    assert with_caption(picture, "id").max() > 150
    assert picture.max() == 0


def test_caption_that_is_too_long_becomes_smaller():
    picture = np.zeros((400, 120, 3), np.uint8)
    rows = np.flatnonzero(with_caption(picture, "random1234567890").any(axis=(1, 2)))
    assert rows.max() < 15  # a short one would be 20 pixels high
    assert np.flatnonzero(with_caption(picture, "ab").any(axis=(1, 2))).max() >= 15


def test_grey_has_no_colours():
    grey = greyed(gradient(4, 4))
    assert (grey[..., 0] == grey[..., 1]).all()
    assert grey.max() < gradient(4, 4).max()
