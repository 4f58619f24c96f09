"""A TensorBoard writer that also takes videos. Importing this module imports TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import FileWriter
from torch.utils.tensorboard import SummaryWriter as TorchSummaryWriter

from allenact.utils.event_file import EventFile
from allenact.utils.video_utils import image


class EventFileWriter(FileWriter):
    """`torch.utils.tensorboard.FileWriter` without a thread of its own: see `EventFile`."""

    def __init__(self, event_file: EventFile) -> None:
        self.event_writer = event_file


class SummaryWriter(TorchSummaryWriter):
    """`torch.utils.tensorboard.SummaryWriter` with videos, which TensorBoard shows in its Images tab.

    It raises an `OSError` where its file cannot be written, and can be used on; see `EventFile`.

    Args:
        videos_dir: where visualisers put the same videos as files; None: nowhere.
        kwargs: for torch's class.
    """

    file_writer: Any
    all_writers: Any

    def __init__(self, *args: Any, videos_dir: Path | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.videos_dir = videos_dir

    def _get_file_writer(self) -> Any:
        """Returns the writer of the event file; the first time, and after `close`, of a new one."""
        if self.file_writer is None:
            writer = EventFileWriter(EventFile(self.log_dir, self.flush_secs, self.filename_suffix))
            self.file_writer, self.all_writers = writer, {self.log_dir: writer}
            if self.purge_step is not None:
                writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step=self.purge_step)
                self.purge_step = None
        return self.file_writer

    def add_summary(self, summary: Any, global_step: int | None = None) -> None:
        """Writes a summary that was made elsewhere."""
        self._get_file_writer().add_summary(summary, global_step)

    def add_vid(self, tag: str, vid: Any, global_step: int | None = None, walltime: float | None = None) -> None:
        """Writes a video made by `process_video` or `tensor_to_video`.

        Args:
            tag: name under which TensorBoard lists it.
            vid: an image summary that holds an animated GIF.
            global_step: environment steps.
            walltime: seconds since the epoch; None: now.
        """
        from torch.utils.tensorboard.summary import Summary

        summary = Summary(value=[Summary.Value(tag=tag, image=vid)])
        self._get_file_writer().add_summary(summary, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Writes a picture, or a batch of them (an `N` in `dataformats`) as one grid.

        Args:
            tag: name under which TensorBoard lists it.
            img_tensor: array or tensor; uint8 in 0..255, or floats in 0..1.
            global_step: environment steps.
            walltime: seconds since the epoch; None: now.
            dataformats: what its dimensions are, for instance "CHW", "HWC", "HW" or "NHWC".
        """
        summary = image(tag, img_tensor, dataformats=dataformats)
        self._get_file_writer().add_summary(summary, global_step, walltime)
