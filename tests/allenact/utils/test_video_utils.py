"""Pictures and videos: what is encoded must come back, in the right order, number and size."""

import io
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from allenact.utils.video_utils import (
    SummaryWriter,
    clips_to_video,
    convert_to_HWC,
    image,
    make_grid,
    process_video,
    tensor_to_clip,
    tensor_to_video,
    write_mp4,
)

RNG = np.random.default_rng(0)


def solid(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def decode_gif(data: bytes) -> list[np.ndarray]:
    gif = Image.open(io.BytesIO(data))
    frames = []
    for index in range(gif.n_frames):
        gif.seek(index)
        frames.append(np.asarray(gif.convert("RGB")))
    return frames


def read_images(directory, tag):
    events = EventAccumulator(str(directory), size_guidance={"images": 0})
    events.Reload()
    return events.Images(tag)


def moving_square(num_frames: int) -> list[np.ndarray]:
    """A white square on a coloured ground: most pixels stay as they are, some change and change back."""
    frames = []
    for step in range(num_frames):
        frame = np.full((20, 30, 3), (10, 60, 120), np.uint8)
        frame[3 + step : 8 + step, 2 + 2 * step : 7 + 2 * step] = 255
        frames.append(frame)
    return frames


# GIF


@pytest.mark.parametrize("max_clip_len", [1, 3, 4, 100, -1])
def test_video_does_not_depend_on_how_it_is_cut_into_clips(max_clip_len):
    frames = moving_square(8)
    video = process_video(iter(frames), max_clip_len=max_clip_len)
    decoded = decode_gif(video.encoded_image_string)
    assert len(decoded) == 8
    np.testing.assert_array_equal(decoded, frames)  # fewer than 256 colours: exact
    assert (video.height, video.width, video.colorspace) == (20, 30, 3)


def test_equal_frames_are_all_kept():
    frames = [solid(7), solid(7), solid(200), solid(200), solid(7)]
    decoded = decode_gif(process_video(frames).encoded_image_string)
    assert [int(frame[0, 0, 0]) for frame in decoded] == [7, 7, 200, 200, 7]


def test_video_of_many_colours_is_close():
    ramp = np.linspace(0, 255, 64)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128.0), -1).astype(np.uint8)
    frames = [np.roll(frame, shift, axis=0) for shift in range(0, 12, 3)]
    for decoded, original in zip(decode_gif(process_video(frames).encoded_image_string), frames, strict=True):
        error = np.abs(decoded.astype(int) - original.astype(int))
        assert error.mean() < 8


def test_max_video_length_cuts_without_asking_for_more_frames():
    def frames():
        yield from (solid(0), solid(50), solid(100))
        raise AssertionError("asked for a frame that is not shown")

    video = process_video(frames(), max_video_len=3, max_clip_len=2)
    assert len(decode_gif(video.encoded_image_string)) == 3


def test_no_frames_make_no_video():
    assert process_video([]) is None


@pytest.mark.parametrize(("fps", "milliseconds"), [(4, 250), (25, 40), (30, 30), (50, 20), (1000, 20)])
def test_frame_rate_in_the_hundredths_of_a_second_that_gif_knows(fps, milliseconds):
    gif = Image.open(io.BytesIO(process_video([solid(0), solid(9)], fps=fps).encoded_image_string))
    assert gif.info["duration"] == milliseconds
    assert gif.info["loop"] == 0  # for ever


def test_tensor_of_several_videos_is_tiled():
    videos = torch.zeros(2, 3, 3, 4, 5, dtype=torch.uint8)  # [N, T, C, H, W]
    videos[0, :, 0] = 255  # the first one is red
    videos[1, 2, 2] = 255  # the second one turns blue in its last frame
    clip, (height, width, channels) = tensor_to_clip(videos)
    assert (height, width, channels, clip.num_frames) == (4, 10, 3, 3)
    decoded = decode_gif(clips_to_video([clip, clip], height, width, channels).encoded_image_string)
    assert len(decoded) == 6
    assert decoded[2][0, 0].tolist() == [255, 0, 0]
    assert decoded[2][0, 9].tolist() == decoded[5][0, 9].tolist() == [0, 0, 255]
    assert decoded[3][0, 9].tolist() == [0, 0, 0]


def test_float_videos_are_between_0_and_1():
    decoded = decode_gif(tensor_to_video(torch.full((1, 1, 1, 2, 2), 0.2)).encoded_image_string)
    assert decoded[0][0, 0].tolist() == [51, 51, 51]


# Pictures


@pytest.mark.parametrize("dataformats", ["HWC", "CHW", "WHC", "NHWC", "NCHW"])
def test_every_layout_gives_the_same_picture(dataformats):
    picture = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)  # [H, W, C]
    layout = [{"N": 0, "H": 1, "W": 2, "C": 3}[letter] for letter in dataformats]
    array = picture[None].transpose([*layout, *({0} - set(layout))])
    if "N" not in dataformats:
        array = array[..., 0]
    np.testing.assert_array_equal(convert_to_HWC(array, dataformats), picture)


def test_grey_pictures_get_three_channels_and_transparency_is_dropped():
    grey = RNG.integers(0, 256, (4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(convert_to_HWC(grey, "HW"), np.stack([grey] * 3, -1))
    rgba = RNG.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(convert_to_HWC(rgba, "HWC"), rgba[..., :3])


@pytest.mark.parametrize("dataformats", ["HW", "HHC", "HXC", "NCH"])
def test_layout_that_does_not_fit_is_refused(dataformats):
    with pytest.raises(ValueError, match="does not fit"):
        convert_to_HWC(np.zeros((2, 3, 4)), dataformats)


def test_grid_is_filled_row_by_row():
    pictures = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), np.uint8)  # [5, 1, 2, 3]
    grid = make_grid(pictures, ncols=3)
    assert grid.shape == (4, 9, 3)
    assert grid[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_rescaled_image_summary():
    summary = image("tag", solid(100, 6, 8), rescale=0.5, dataformats="HWC").value[0]
    assert summary.tag == "tag"
    assert Image.open(io.BytesIO(summary.image.encoded_image_string)).size == (4, 3)


# TensorBoard


def test_writer_puts_pictures_and_videos_where_tensorboard_finds_them(tmp_path):
    picture = RNG.random((3, 4, 5)).astype(np.float32)  # [C, H, W]
    frames = [solid(0), solid(100), solid(200)]
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_image("picture", picture, global_step=7)
        writer.add_vid("video", process_video(frames, fps=10), global_step=8)
        writer.add_scalar("scalar", 1.5, 9)

    (event,) = read_images(tmp_path, "picture")
    decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    np.testing.assert_allclose(decoded, picture.transpose(1, 2, 0) * 255, atol=0.51)
    assert event.step == 7
    (event,) = read_images(tmp_path, "video")
    assert event.encoded_image_string.startswith(b"GIF89a")
    assert len(decode_gif(event.encoded_image_string)) == 3
    assert (event.step, event.height, event.width) == (8, 6, 8)


# mp4


def read_mp4(path, height, width):
    """Returns what ffmpeg says about a video, and its frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    process = subprocess.run(command, capture_output=True, check=True)
    frames = np.frombuffer(process.stdout, np.uint8).reshape(-1, height, width, 3)
    return process.stderr.decode(), frames


def test_mp4_has_the_frames_and_even_sides(tmp_path):
    path = write_mp4(tmp_path / "new" / "clip.mp4", [solid(value, 33, 47) for value in (0, 120, 240)], fps=10)
    report, frames = read_mp4(path, 34, 48)
    for expected in ("Video: h264", "yuv420p", "48x34", "10 fps"):
        assert expected in report
    np.testing.assert_allclose([frame.mean() for frame in frames], [0, 120, 240], atol=4)


def test_mp4_is_never_overwritten(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_text("precious")
    first = write_mp4(path, [solid(0, 16, 16)], fps=5)
    second = write_mp4(path, [solid(0, 16, 16)], fps=5)
    assert path.read_text() == "precious"
    assert [first.name, second.name] == ["clip-1.mp4", "clip-2.mp4"]


def test_failed_mp4_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(tmp_path / "a.mp4", [], fps=5)
    with pytest.raises(ValueError, match="differ in size"):
        write_mp4(tmp_path / "b.mp4", [solid(0, 16, 16), solid(0, 18, 16)], fps=5)
    assert list(tmp_path.iterdir()) == []
