"""GIFs that stay below a size: what is given up, in which order, and that time is kept."""

import io

import numpy as np
import pytest
from PIL import Image

from allenact.utils.preview import encode_preview

RNG = np.random.default_rng(0)


def noise(num_frames, height=24, width=32):
    """The worst case: nothing repeats."""
    return [RNG.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(num_frames)]


def opened(video):
    gif = Image.open(io.BytesIO(video.encoded_image_string))
    seconds = 0.0
    for index in range(gif.n_frames):
        gif.seek(index)
        seconds += gif.info["duration"] / 1000
    return gif, seconds


def test_small_videos_lose_nothing():
    frames = [np.full((6, 8, 3), 20 * step, np.uint8) for step in range(12)]
    gif, seconds = opened(encode_preview(frames, fps=20, max_bytes=20_000))
    assert (gif.n_frames, gif.size) == (12, (8, 6))
    assert seconds == pytest.approx(12 / 20)
    gif.seek(7)
    assert gif.convert("RGB").getpixel((0, 0)) == (140, 140, 140)


@pytest.mark.parametrize(
    ("share", "size", "least_fps"),
    [(0.6, (32, 24), 10), (0.2, (32, 24), 10), (0.06, (16, 12), 3)],
)
def test_large_videos_lose_frames_and_pixels_and_keep_their_speed(share, size, least_fps):
    frames = noise(60)
    whole = len(encode_preview(frames, fps=40, max_bytes=10**9).encoded_image_string)
    video = encode_preview(frames, fps=40, max_bytes=int(share * whole))
    assert len(video.encoded_image_string) <= share * whole
    gif, seconds = opened(video)
    assert gif.size == size
    assert gif.n_frames < 60
    assert gif.n_frames / seconds >= least_fps - 1
    assert seconds == pytest.approx(60 / 40, rel=0.15)


def test_hopeless_videos_are_cut_short():
    frames = noise(40)
    video = encode_preview(frames, fps=4, max_bytes=4000)
    assert len(video.encoded_image_string) <= 4000
    gif, seconds = opened(video)
    assert 1 <= gif.n_frames < 40
    assert gif.n_frames / seconds == pytest.approx(4, rel=0.1)  # frames are not skipped below three a second


def test_a_guess_that_was_too_low_is_mended():
    quiet, wild = [np.zeros((24, 32, 3), np.uint8)] * 12, noise(28)
    frames = [*quiet[:4], *wild[:14], *quiet[4:8], *wild[14:], *quiet[8:]]  # where the guess looks, nothing happens
    video = encode_preview(frames, fps=5, max_bytes=6000)
    assert len(video.encoded_image_string) <= 6000


def test_one_frame_is_shown_whatever_its_size():
    gif, _ = opened(encode_preview(noise(1), fps=4, max_bytes=10))
    assert gif.n_frames == 1
