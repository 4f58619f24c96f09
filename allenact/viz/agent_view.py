"""Videos of what the tasks look like while the agent plays them: a GIF in TensorBoard and an mp4 file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from allenact.utils.preview import encode_preview
from allenact.utils.system import get_logger
from allenact.utils.video_utils import write_mp4
from allenact.viz.base import (
    AbstractViz,
    Recording,
    VectorTaskSource,
    as_pages,
    recorded,
    vector_task_datum,
)
from allenact.viz.frames import greyed, tile, with_caption

if TYPE_CHECKING:
    from allenact.utils.summary_writer import SummaryWriter


class AgentViewViz(AbstractViz):
    """One video per page, with the episodes side by side and their ids written on them.

    Frame k is the view before action k. Episodes that are over freeze on their last frame, in grey. TensorBoard shows
    a GIF; the same video as H.264 goes to the writer's `videos_dir`, if it has one.

    Args:
        label: name in the tags of TensorBoard.
        max_clip_length: frames encoded at a time, a bound on memory; does not change how long the video is.
        max_video_length: frames after which the video is cut, and not even rendered; -1: never.
        vector_task_source: where the images come from; mode "rgb_array" needs a single task sampler.
        episode_ids: ids of the episodes to show instead of the suite's, one page or a list of pages.
        fps: frames per second.
        max_render_size: longest side of an episode's picture in pixels; larger ones are shrunk.
        max_gif_bytes: of a GIF. Where a video would take more, TensorBoard shows it with fewer frames, colours and
            pixels. With the default, 150 of them stay below 200 MB.
        base_kwargs: see `AbstractViz`.
    """

    def __init__(
        self,
        label: str = "agent_view",
        max_clip_length: int = 100,
        max_video_length: int = -1,
        vector_task_source: VectorTaskSource = ("render", {"mode": "raw_rgb_list"}),
        episode_ids: Sequence[str] | Sequence[Sequence[str]] | None = None,
        fps: float = 4,
        max_render_size: int = 400,
        max_gif_bytes: int = 1_250_000,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(label, vector_task_sources=[vector_task_source], **base_kwargs)
        self.max_clip_length = max_clip_length
        self.max_video_length = max_video_length
        self.fps = fps
        self.episode_ids = as_pages(episode_ids)
        self.max_render_size = max_render_size
        self.max_gif_bytes = max_gif_bytes
        self.max_recorded_steps = max_video_length if max_video_length > 0 else None

    def log(
        self,
        log_writer: SummaryWriter,
        task_outputs: Sequence[Mapping[str, Any]] | None,
        render: Recording | None,
        num_steps: int,
    ) -> None:
        """Encodes and writes one video for each page."""
        views = recorded(render, vector_task_datum(self.vector_task_sources[0]))
        for page, episodes in self.pages(self.ids_of(task_outputs) or list(views), views):
            frames = SideBySide({episode: views[episode] for episode in episodes}, self.max_video_length)
            video = encode_preview(frames, self.fps, self.max_gif_bytes, self.max_clip_length)
            log_writer.add_vid(self.tag(page), video, global_step=num_steps)
            videos_dir = getattr(log_writer, "videos_dir", None)
            if videos_dir is not None:
                self._write_file(videos_dir / video_name(self.tag(page), num_steps, episodes), frames)

    def _write_file(self, path: Path, frames: Sequence[np.ndarray]) -> None:
        try:
            write_mp4(path, frames, self.fps)
        except (OSError, RuntimeError) as error:  # a full disk, or no ffmpeg for this kind of machine
            get_logger().warning(f"{path} could not be written, the video is in TensorBoard only: {error}")


def video_name(tag: str, num_steps: int, episodes: Sequence[str]) -> str:
    """Returns a file name that says what a video shows: tag, environment steps of training, up to four episode ids."""
    ids = "_".join(map(str, episodes[:4])) + (f"_and_{len(episodes) - 4}_more" if len(episodes) > 4 else "")
    name = re.sub(r"[^\w.-]+", "_", f"{tag}__steps_{num_steps:012d}__{ids}")
    return f"{name[:200]}.mp4"  # file systems allow 255 bytes


class SideBySide(Sequence[np.ndarray]):
    """The frames of a video that shows several episodes at once, each [H, W, 3] uint8, made when asked for.

    Args:
        views: episode id -> its images, at least one, compressed or as arrays.
        max_length: frames after which the video is cut; -1: never.
    """

    def __init__(self, views: Mapping[str, Sequence[Any]], max_length: int = -1) -> None:
        self.views = views
        self.length = max(map(len, views.values()))
        if max_length > 0:
            self.length = min(self.length, max_length)
        self._frozen: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            return [self[step] for step in range(self.length)[index]]
        step = range(self.length)[index]
        return tile([self._frame(episode, step) for episode in self.views])

    def _frame(self, episode: str, step: int) -> np.ndarray:
        images = self.views[episode]
        if step < len(images):
            return with_caption(np.asarray(images[step]), str(episode))
        if episode not in self._frozen:
            self._frozen[episode] = with_caption(greyed(np.asarray(images[-1])), str(episode))
        return self._frozen[episode]
