"""One picture of an episode: shrinking, keeping it compressed, writing on it, tiling several into one."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_QUALITY = 90  # a 400x400 view of a MuJoCo task takes about 30 kB, so 1000 steps take 30 MB


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """An RGB picture as JPEG, small enough to keep for every step and to send to another process.

    `numpy.asarray(image)` decodes it to [H, W, 3] uint8.
    """

    jpeg: bytes

    @classmethod
    def from_array(cls, image: np.ndarray, max_side: int | None = None) -> CompressedImage:
        """Compresses a picture, shrinking it first so that no side is longer than `max_side` pixels.

        Args:
            image: [H, W, 3] uint8.
            max_side: pixels; None or 0: keep the size.
        """
        from PIL import Image

        picture = Image.fromarray(as_rgb(image))
        longest = max(picture.size)
        if max_side and longest > max_side:
            width, height = (max(1, round(side * max_side / longest)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BOX)  # the mean over the covered area
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # all colours: thin lines stay sharp
        return cls(stream.getvalue())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.jpeg)), dtype=dtype)  # [H, W, 3]


def as_rgb(image: Any) -> np.ndarray:
    """Returns a picture as [H, W, 3] uint8.

    Args:
        image: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; uint8 in 0..255, or floats in 0..1.

    Raises:
        ValueError: it has another shape.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]  # [H, W, 1]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"a picture has shape [H, W, 3], not {tuple(array.shape)}")
    if np.issubdtype(array.dtype, np.floating):
        array = (array * 255.0).round().clip(0, 255)
    if array.shape[-1] == 1:
        array = array.repeat(3, axis=-1)  # [H, W, 3]
    return np.ascontiguousarray(array[..., :3], dtype=np.uint8)


def greyed(image: np.ndarray) -> np.ndarray:
    """Returns a picture without its colours, darker: an episode that is over. [H, W, 3] uint8."""
    grey = image.mean(axis=-1, keepdims=True) * 0.6  # [H, W, 1]
    return grey.astype(np.uint8).repeat(3, axis=-1)


def with_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Returns a copy of a picture, [H, W, 3] uint8, with `text` in its upper left corner."""
    from PIL import Image

    picture = Image.fromarray(image)
    caption = _caption(text, picture.width, picture.height)
    picture.paste(caption, mask=caption)
    return np.array(picture)


@functools.lru_cache(maxsize=64)  # drawing text takes longer than all else that happens to a frame
def _caption(text: str, width: int, height: int) -> Image:
    """Returns `text` on transparent ground, as large as reads well, smaller if it would not fit into the width."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(picture)
    size = max(8, height // 20)
    while size > 8 and draw.textlength(text, font=ImageFont.load_default(size)) > width - 4:
        size -= 1
    font = ImageFont.load_default(size)
    draw.text((2, 1), text, font=font, fill="white", stroke_width=1, stroke_fill="black")
    return picture


def tile(images: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures into a nearly square grid, row by row; smaller ones are padded with black.

    Args:
        images: at least one, each [H, W, 3] uint8, sizes may differ.

    Returns:
        [rows * max H, columns * max W, 3] uint8.
    """
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    grid = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid
