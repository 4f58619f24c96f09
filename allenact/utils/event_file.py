"""One TensorBoard event file, written by the calling thread. Importing this module imports TensorBoard."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from allenact.utils.system import get_logger

FLUSH_BYTES = 2**20  # events beyond this are written without waiting for a flush
KEPT_BYTES = 2**26  # events that cannot be written are kept up to this size
FILE_NUMBERS = itertools.count()  # of this process, so that no two files of one second share a name


class EventFile:
    """Appends events to a file that TensorBoard reads, and survives what happens to that file.

    TensorBoard's own `EventFileWriter` has a thread that ends for good at the first error, prints a traceback, and
    drops what was waiting. Here errors reach the caller, what could not be written is tried again at the next flush,
    and a file or folder that somebody has removed is made again.

    Args:
        folder: where the file is to be; made if need be.
        flush_secs: an event that comes so many seconds after the last flush causes one.
        suffix: of the file's name.

    Attributes:
        path: of the file.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: str | Path, flush_secs: float = 120.0, suffix: str = "") -> None:
        origin = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(FILE_NUMBERS)}"
        self.path = Path(folder, f"events.out.tfevents.{origin}{suffix}")
        self._flush_secs = flush_secs
        self._pending = bytearray()
        self._size = 0  # bytes of the file that are whole events
        self.flush()

    def get_logdir(self) -> str:
        """Returns the folder of the file."""
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Writes an event, at the latest at the next flush, which is also who tells if that cannot be done."""
        self._pending += framed(event)
        if len(self._pending) > FLUSH_BYTES or time.monotonic() - self._flushed > self._flush_secs:
            with contextlib.suppress(OSError):
                self.flush()

    def flush(self) -> None:
        """Writes the events that are waiting.

        Raises:
            OSError: they cannot be written; they go on waiting, or are dropped if they have become too many.
        """
        self._flushed = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                if file.tell() > self._size:  # TensorBoard reads nothing behind half an event
                    file.truncate(self._size)
                self._size = min(self._size, file.tell())
                left = memoryview(bytes(self._pending) if self._size else framed(header()) + self._pending)
                size = self._size + len(left)
                while left:
                    left = left[file.write(left) :]
        except OSError:
            if len(self._pending) > KEPT_BYTES:
                get_logger().warning(f"{self.path}: {len(self._pending):,} bytes that cannot be written are dropped.")
                self._pending.clear()
            raise
        self._size = size
        self._pending.clear()

    def close(self) -> None:
        """Writes the events that are waiting. There is nothing to close: between two flushes the file is not open."""
        self.flush()


def header() -> Event:
    """Returns the event with which TensorBoard wants a file to begin."""
    return Event(wall_time=time.time(), file_version="brain.Event:2")


def framed(event: Event) -> bytes:
    """Returns an event with the length and the checksums that belong to it in a file."""
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()
