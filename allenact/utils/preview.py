"""A video as a GIF below a given size, so that TensorBoard's files stay small; the mp4 file has everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allenact.utils.video_utils import process_video

if TYPE_CHECKING:
    from torch.utils.tensorboard.summary import Summary

SAMPLE_FRAMES = 4  # frames encoded at each of three places to guess the size of the whole


class _Quality(NamedTuple):
    scale: float  # of both sides
    min_fps: float  # frames per second that must be left when frames are skipped
    colours: int


_QUALITIES = (
    _Quality(1.0, float("inf"), 255),  # everything
    _Quality(1.0, 10, 64),
    _Quality(0.5, 10, 64),
    _Quality(0.5, 3, 64),
)


def encode_preview(frames: Sequence[np.ndarray], fps: float, max_bytes: int, max_clip_len: int = 100) -> Summary.Image:
    """Encodes a video for `SummaryWriter.add_vid` in at most `max_bytes`.

    A video that would be larger plays at its speed with fewer colours and frames per second, then also at half the
    size; if even that is too large, only its beginning is shown.

    Args:
        frames: at least one, each [H, W, 3] uint8, all of one size. Looked at one by one, some more than once.
        fps: frames per second.
        max_bytes: of the GIF; a single frame may be larger.
        max_clip_len: frames in memory at a time.
    """
    for quality in _QUALITIES:
        most = max(1, int(fps / quality.min_fps))
        needed = _guess_size(frames, quality, most) / max_bytes  # one frame of how many fits
        stride = min(max(1, int(np.ceil(needed))), most)
        if needed <= most or quality is _QUALITIES[-1]:
            shown = range(0, len(frames), stride)
            if needed > stride:
                shown = shown[: max(1, int(len(shown) * stride / needed))]
            video = _encode(frames, shown, quality, fps / stride, max_clip_len)
            if len(video.encoded_image_string) <= max_bytes:
                return video
    while len(video.encoded_image_string) > max_bytes and len(shown) > 1:  # the guess was too low
        shown = shown[: max(1, int(0.9 * len(shown) * max_bytes / len(video.encoded_image_string)))]
        video = _encode(frames, shown, quality, fps / stride, max_clip_len)
    return video


def _guess_size(frames: Sequence[np.ndarray], quality: _Quality, stride: int) -> float:
    """Returns about how many bytes all frames would take, from a few that are `stride` apart."""
    length = SAMPLE_FRAMES * stride
    starts = sorted({max(0, int(place * (len(frames) - length))) for place in (0.0, 0.5, 1.0)})
    samples = [range(start, min(start + length, len(frames)), stride) for start in starts]
    sizes = [len(_encode(frames, sample, quality, 10, 0).encoded_image_string) for sample in samples]
    return len(frames) * sum(sizes) / sum(map(len, samples))


def _encode(
    frames: Sequence[np.ndarray], shown: range, quality: _Quality, fps: float, max_clip_len: int
) -> Summary.Image:
    pictures = (_scaled(frames[index], quality.scale) for index in shown)
    video = process_video(pictures, max_clip_len, fps=fps, colours=quality.colours)
    assert video is not None, "there is at least one frame"
    return video


def _scaled(frame: np.ndarray, scale: float) -> np.ndarray:
    """Returns a frame, [H, W, 3] uint8, of another size."""
    if scale == 1:
        return frame
    from PIL import Image

    picture = Image.fromarray(frame)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))  # the mean over the covered area
