"""Videos of what the tasks look like while the agent plays them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allenact.utils.video_utils import process_video
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

    Frame k is the view before action k. Episodes that are over freeze on their last frame, in grey.

    Args:
        label: name in the tags of TensorBoard.
        max_clip_length: frames encoded at a time, a bound on memory; does not change how long the video is.
        max_video_length: frames after which the video is cut, and not even rendered; -1: never.
        vector_task_source: where the images come from; mode "rgb_array" needs a single task sampler.
        episode_ids: ids of the episodes to show instead of the suite's, one page or a list of pages.
        fps: frames per second.
        max_render_size: longest side of an episode's picture in pixels; larger ones are shrunk.
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
        **base_kwargs: Any,
    ) -> None:
        super().__init__(label, vector_task_sources=[vector_task_source], **base_kwargs)
        self.max_clip_length = max_clip_length
        self.max_video_length = max_video_length
        self.fps = fps
        self.episode_ids = as_pages(episode_ids)
        self.max_render_size = max_render_size
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
            frames = side_by_side({episode: views[episode] for episode in episodes})
            video = process_video(frames, self.max_clip_length, self.max_video_length, self.fps)
            log_writer.add_vid(self.tag(page), video, global_step=num_steps)


def side_by_side(views: Mapping[str, Sequence[Any]]) -> Iterator[np.ndarray]:
    """Yields the frames of a video that shows several episodes at once, [H, W, 3] uint8.

    Args:
        views: episode id -> its images, compressed or as arrays.
    """
    frozen: dict[str, np.ndarray] = {}
    for step in range(max(map(len, views.values()))):
        tiles = []
        for episode, images in views.items():
            if step < len(images):
                tiles.append(with_caption(np.asarray(images[step]), str(episode)))
                continue
            if episode not in frozen:
                frozen[episode] = with_caption(greyed(np.asarray(images[-1])), str(episode))
            tiles.append(frozen[episode])
        yield tile(tiles)
