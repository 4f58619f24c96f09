"""Pictures and videos from arrays: TensorBoard summaries (PNG, animated GIF) and mp4 files.

TensorBoard has no video type, but its Images tab plays animated GIFs. They are encoded clip by
clip, so that a long video never has to be in memory as a whole.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.utils.gif import Clip, encode_clip, join_clips

if TYPE_CHECKING:
    from torch.utils.tensorboard.summary import Summary

    from allenact.utils.summary_writer import SummaryWriter

__all__ = [
    "Clip",
    "SummaryWriter",
    "clips_to_video",
    "convert_to_HWC",
    "image",
    "make_grid",
    "process_video",
    "tensor_to_clip",
    "tensor_to_video",
    "write_mp4",
]


def __getattr__(name: str) -> Any:
    """Imports TensorBoard only for those who ask for its writer."""
    if name == "SummaryWriter":
        from allenact.utils.summary_writer import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# pictures


def image(tag: str, tensor: Any, rescale: float = 1, dataformats: str = "CHW") -> Summary:
    """Returns a TensorBoard summary that holds a picture, as PNG.

    Args:
        tag: name under which TensorBoard lists it.
        tensor: array or tensor; uint8 in 0..255, or floats in 0..1.
        rescale: factor for both sides.
        dataformats: what its dimensions are; with an `N` the pictures become one grid.
    """
    from PIL import Image
    from torch.utils.tensorboard.summary import Summary

    picture = Image.fromarray(convert_to_HWC(_to_uint8(_to_numpy(tensor)), dataformats))
    if rescale != 1:
        picture = picture.resize((int(picture.width * rescale), int(picture.height * rescale)))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    encoded = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=stream.getvalue()
    )
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])


def convert_to_HWC(tensor: np.ndarray, input_format: str) -> np.ndarray:  # noqa: N802  the public name
    """Reorders the dimensions of a picture, or of a batch of pictures, to [H, W, 3].

    Args:
        tensor: one channel (repeated to three), three, or four (the last one dropped).
        input_format: one letter for each dimension, from N, H, W and C; N and C may be missing.

    Raises:
        ValueError: the format does not fit the array.
    """
    letters = input_format.upper()
    if len(letters) != tensor.ndim or not {"H", "W"} <= set(letters) <= set("NHWC") or len(set(letters)) < len(letters):
        raise ValueError(f'format "{input_format}" does not fit an array of shape {tuple(tensor.shape)}')
    if "C" not in letters:
        tensor, letters = tensor[..., None], letters + "C"
    if "N" in letters:
        return make_grid(tensor.transpose([letters.index(letter) for letter in "NCHW"]))
    tensor = tensor.transpose([letters.index(letter) for letter in "HWC"])  # [H, W, C]
    return tensor.repeat(3, axis=-1) if tensor.shape[-1] == 1 else tensor[..., :3]


def make_grid(I: np.ndarray, ncols: int = 8) -> np.ndarray:  # noqa: E741, N803  the public name
    """Puts a batch of pictures into a grid, row by row, black where there is none.

    Args:
        I: [N, C, H, W], C is 1, 3 or 4.
        ncols: pictures in a row, if there are that many.

    Returns:
        [rows * H, columns * W, 3].
    """
    num_images, channels, height, width = I.shape
    pictures = I.repeat(3, axis=1) if channels == 1 else I[:, :3]  # [N, 3, H, W]
    columns = min(num_images, ncols)
    rows = -(-num_images // columns)
    grid = np.zeros((rows * columns, 3, height, width), dtype=I.dtype)
    grid[:num_images] = pictures
    grid = grid.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)  # [rows, H, columns, W, 3]
    return grid.reshape(rows * height, columns * width, 3)


# videos


def process_video(
    render: Iterable[np.ndarray],
    max_clip_len: int = 500,
    max_video_len: int = -1,
    fps: float = 4,
    colours: int = 255,
) -> Summary.Image | None:
    """Encodes a video for `SummaryWriter.add_vid`.

    Args:
        render: the frames, each [H, W, 3] uint8, all of one size; a generator need not hold them all.
        max_clip_len: frames that are in memory at a time; each such clip has its own 255 colours.
        max_video_len: frames to encode at most; -1: all.
        fps: frames per second.
        colours: of a clip, at most 255.

    Returns:
        An image summary holding an animated GIF, or None if there are no frames.
    """
    frames: Iterator[np.ndarray] = iter(render)
    if max_video_len > 0:
        frames = islice(frames, max_video_len)
    clips, size = [], (0, 0, 3)
    while chunk := list(islice(frames, max_clip_len if max_clip_len > 0 else None)):
        clips.append(encode_clip(chunk, fps, colours))
        size = chunk[0].shape
    return clips_to_video(clips, *size) if clips else None


def tensor_to_video(tensor: Any, fps: float = 4) -> Summary.Image:
    """Encodes N videos of equal length side by side; see `tensor_to_clip`."""
    clip, size = tensor_to_clip(tensor, fps)
    return clips_to_video([clip], *size)


def tensor_to_clip(tensor: Any, fps: float = 4) -> tuple[Clip, tuple[int, int, int]]:
    """Encodes N videos of equal length side by side as part of a longer video.

    Args:
        tensor: [N, T, C, H, W]; uint8 in 0..255, or floats in 0..1.
        fps: frames per second.

    Returns:
        The clip, and height, width and channels of its frames.
    """
    videos = _to_uint8(_to_numpy(tensor))
    frames = [make_grid(videos[:, step]) for step in range(videos.shape[1])]
    height, width, channels = frames[0].shape
    return encode_clip(frames, fps), (height, width, channels)


def clips_to_video(clips: Sequence[Clip], h: int, w: int, c: int) -> Summary.Image:
    """Joins clips with frames of `h` x `w` pixels and `c` channels to a GIF that repeats for ever."""
    from torch.utils.tensorboard.summary import Summary

    gif = join_clips(clips, height=h, width=w)
    return Summary.Image(height=h, width=w, colorspace=c, encoded_image_string=gif)


# mp4


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Writes an H.264 video that browsers and presentation programs play.

    An existing file is never overwritten: `clip.mp4` becomes `clip-1.mp4`, and so on. Missing folders are
    made. An odd side is extended by one pixel, because the pixel format (yuv420p) needs even ones.

    Args:
        path: where to write.
        frames: at least one, each [H, W, 3] uint8, all of one size.
        fps: frames per second.

    Returns:
        The path that was written.

    Raises:
        ValueError: there are no frames, or they differ in size.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    path = _reserve(Path(path))
    try:
        _encode_mp4(path, first, frames, fps)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _encode_mp4(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float) -> None:
    import imageio_ffmpeg

    height, width, _ = first.shape
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-movflags", "+faststart"],  # starts to play before it has been loaded whole
    )
    writer.send(None)
    try:
        for frame in _chain(first, rest):
            if frame.shape != first.shape:
                raise ValueError(f"frames of one video differ in size: {frame.shape} and {first.shape}")
            writer.send(np.ascontiguousarray(np.pad(frame, padding, mode="edge")))
    finally:
        writer.close()


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _reserve(path: Path) -> Path:
    """Creates an empty file at `path`, or at the first free numbered name beside it; returns where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("count() never ends")


def _to_numpy(value: Any) -> np.ndarray:
    """Returns an array, also for a tensor on any device."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    """Returns pictures as 0..255, given floats in 0..1."""
    if np.issubdtype(array.dtype, np.floating):
        array = (array * 255.0).round().clip(0, 255)
    return array.astype(np.uint8, copy=False)
