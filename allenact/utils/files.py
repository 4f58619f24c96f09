"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TEMPORARY_SUFFIX = ".incomplete"


def write_whole(data: bytes | memoryview, path: Path) -> None:
    """Writes a file and its name to the disk; if that fails, an older file of that name is still there.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + _TEMPORARY_SUFFIX)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)
