"""An animated GIF, encoded piece by piece, so that a long video never has to be in memory as a whole.

Pillow compresses the frames. Writing the file around them ourselves is what lets us encode clip by clip, with
one palette for each clip; it is also some six times as fast as handing Pillow the whole video.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_UNCHANGED = 255  # colour index that lets the frame below show through


@dataclass(frozen=True)
class Clip:
    """Part of a video, encoded: the frame blocks of a GIF, without its header and trailer."""

    blocks: bytes
    num_frames: int


def join_clips(clips: Sequence[Clip], *, height: int, width: int) -> bytes:
    """Returns a GIF file that plays the clips, whose frames have that size in pixels, over and over."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)  # no colours: frames have their own
    repeat = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    return header + repeat + b"".join(clip.blocks for clip in clips) + b";"


def encode_clip(frames: Sequence[np.ndarray], fps: float, num_colours: int = _UNCHANGED) -> Clip:
    """Encodes frames that follow each other, storing of each only what differs from the one before.

    Args:
        frames: at least one, each [H, W, 3] uint8, all of one size.
        fps: frames per second, at most 50.
        num_colours: of the palette, at most 255; fewer make a smaller file.
    """
    from PIL import Image

    # One palette for the clip, without dithering: unchanged pixels then stay equal, which compresses well.
    samples = np.concatenate(frames[:: max(1, len(frames) // 8)])
    palette = Image.fromarray(samples).quantize(num_colours, method=Image.Quantize.MEDIANCUT)
    duration_ms = max(20, round(100 / fps) * 10)  # GIF counts in 10 ms, and browsers slow down below 20
    blocks, previous = [], None
    for frame in frames:
        picture = Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        colours = np.asarray(picture)  # [H, W]
        blocks.append(_encode_frame(colours, previous, palette, duration_ms))
        previous = colours
    return Clip(b"".join(blocks), len(frames))


def _encode_frame(colours: np.ndarray, previous: np.ndarray | None, palette: Image, duration_ms: int) -> bytes:
    """Encodes a frame of colour indices [H, W] on top of the previous one, in the shorter of two ways."""
    if previous is None:
        return _gif_block(colours, 0, 0, palette, duration_ms)
    changed = colours != previous  # [H, W]
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    top, left = (int(index[0]) if len(index) else 0 for index in (rows, columns))
    bottom, right = (int(index[-1]) + 1 if len(index) else 1 for index in (rows, columns))
    part = np.s_[top:bottom, left:right]
    opaque = _gif_block(colours[part], top, left, palette, duration_ms)
    sparse_colours = np.where(changed[part], colours[part], np.uint8(_UNCHANGED))
    sparse = _gif_block(sparse_colours, top, left, palette, duration_ms, transparency=_UNCHANGED)
    return min(opaque, sparse, key=len)


def _gif_block(colours: np.ndarray, top: int, left: int, palette: Image, duration_ms: int, **params: int) -> bytes:
    """Returns the bytes of one GIF frame with its own colour table."""
    from PIL import Image
    from PIL.GifImagePlugin import getdata

    height, width = colours.shape
    frame = Image.frombytes("P", (width, height), np.ascontiguousarray(colours).tobytes())
    frame.putpalette(palette.getpalette() or [])
    keep = 1  # GIF's disposal method: leave the frame in place under the next one
    return b"".join(
        getdata(frame, (left, top), duration=duration_ms, disposal=keep, include_color_table=True, **params)
    )
