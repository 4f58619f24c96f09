"""Where every file of a run lies, the lock on its folders, and the record of what was run."""

from __future__ import annotations

import enum
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from allenact.errors import OutputDirectoryError
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR
from allenact.utils.system import get_logger

START_TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"
_LOCK_TIMEOUT_S = 60


class SaveDirFormat(enum.Enum):
    """How a run's folders are laid out: by kind of file, or by run."""

    FLAT = "FLAT"
    NESTED = "NESTED"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one experiment below its output directory.

    Args:
        output_dir: root of all output.
        tag: the experiment's tag.
        extra_tag: extra folder below the tag, or "".
        layout: flat or nested.
    """

    output_dir: Path
    tag: str
    extra_tag: str = ""
    layout: SaveDirFormat = SaveDirFormat.FLAT

    @property
    def tag_dir(self) -> Path:
        """`tag` or `tag/extra_tag`."""
        return Path(self.tag, self.extra_tag) if self.extra_tag else Path(self.tag)

    @property
    def _is_flat(self) -> bool:
        return self.layout is SaveDirFormat.FLAT

    def _run_path(self, flat_folder: str, nested_folder: str, start_time: str) -> Path:
        if self._is_flat:
            return self.output_dir / flat_folder / self.tag_dir / start_time
        return self.output_dir / self.tag_dir / start_time / nested_folder

    def checkpoints(self, start_time: str) -> Path:
        """The folder of a training run's checkpoints."""
        return self._run_path("checkpoints", "checkpoints", start_time)

    def start_times(self) -> list[str]:
        """Returns when the training runs began that have a folder of checkpoints, oldest first."""
        root = self.output_dir / (Path("checkpoints") / self.tag_dir if self._is_flat else self.tag_dir)
        names = [path.name for path in root.iterdir()] if root.is_dir() else []
        return sorted(name for name in names if _is_start_time(name) and self.checkpoints(name).is_dir())

    def used_configs(self, start_time: str) -> Path:
        """The folder with copies of what was run."""
        return self._run_path("used_configs", "used_configs", start_time)

    def train_tensorboard(self, start_time: str) -> Path:
        """The event files of training and validation."""
        return self._run_path("tb", "train_tb", start_time)

    def train_metrics(self, start_time: str) -> Path:
        """The folder of a training run's metrics files."""
        if self._is_flat:
            return self.output_dir / "metrics" / self.tag_dir / start_time
        return self.output_dir / "test" / self.tag / start_time

    def test_tensorboard(self, start_time: str, checkpoint_start_time: str) -> Path:
        """The event files of a test of checkpoints that lie in the folder `checkpoint_start_time`."""
        if self._is_flat:
            return self.output_dir / "tb" / self.tag_dir / checkpoint_start_time / "test" / start_time
        return self.output_dir / "test" / self.tag / start_time

    def videos(self, start_time: str) -> Path:
        """The folder of the videos that a run made."""
        return self._run_path("videos", "videos", start_time)

    def test_metrics(self, start_time: str) -> Path:
        """The metrics file of a test."""
        if self._is_flat:
            return self.output_dir / "metrics" / self.tag_dir / start_time / f"metrics__test_{start_time}.json"
        return self.output_dir / "test" / self.tag / start_time / "metrics.json"

    def metrics(self, mode: str, start_time: str) -> Path:
        """The folder of the metrics files of a run of `mode` ("train" or "test")."""
        return self.test_metrics(start_time).parent if mode == "test" else self.train_metrics(start_time)

    def valid_metrics(self, start_time: str, training_steps: int) -> Path:
        """The metrics file of one validated checkpoint (`--collect_valid_results`)."""
        return self.train_metrics(start_time) / f"metrics__valid_{start_time}{training_steps:012d}.json"

    def check_writable(self) -> None:
        """Creates the output directory and proves that files can be written there.

        Raises:
            OutputDirectoryError: it cannot.
        """
        probe = self.output_dir / f".allenact_write_test_{os.getpid()}"
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise OutputDirectoryError(
                f"the output directory cannot be written: {error.strerror}.",
                f"--output_dir {self.output_dir}",
                "pass a directory that you may write to.",
            ) from error

    def _is_taken(self, start_time: str) -> bool:
        """Whether an earlier run has that name, which happens when the clock is set back."""
        return self.checkpoints(start_time).exists() or self.train_metrics(start_time).exists()

    def new_start_time(self) -> str:
        """Returns the local time as `YYYY-MM-DD_hh-mm-ss`, never the same twice for one output directory."""
        last_file = self.output_dir / ".allenact_last_start_time_string"
        try:
            with FileLock(str(self.output_dir / ".allenact_start_time_string.lock"), timeout=_LOCK_TIMEOUT_S):
                last = last_file.read_text().strip() if last_file.exists() else ""
                while (start_time := time.strftime(START_TIME_FORMAT)) == last or self._is_taken(start_time):
                    time.sleep(0.05)
                last_file.write_text(start_time)
        except Timeout as error:
            raise OutputDirectoryError(
                f"another run has held the lock of the output directory for {_LOCK_TIMEOUT_S} s.",
                f"--output_dir {self.output_dir}",
                "if no other run is starting, remove .allenact_start_time_string.lock there.",
            ) from error
        return start_time


def _is_start_time(name: str) -> bool:
    try:
        time.strptime(name, START_TIME_FORMAT)
    except ValueError:
        return False
    return True


def checkpoint_start_time_str(checkpoint_file_name: str) -> str:
    """Returns the name of the folder that holds a checkpoint: in standard layouts, when its training began."""
    folder = Path(checkpoint_file_name).resolve().parent
    return folder.parent.name if folder.name == "checkpoints" else folder.name


def save_used_configs(folder: Path, source_files: Mapping[str, str]) -> None:
    """Writes what was run into `folder`: the experiment's source files, its keyword arguments, and the git diff.

    Args:
        folder: created if need be.
        source_files: `{file path: dotted module}`, and the keyword arguments as JSON under CONFIG_KWARGS_STR.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in source_files.items():
        if path == CONFIG_KWARGS_STR:
            (folder / "config_kwargs.json").write_text(content)
            continue
        target = folder / os.path.basename(path)
        clashes = 0
        while target.exists():
            target = folder / f"namecollision{clashes}__{os.path.basename(path)}"
            clashes += 1
        source = Path(path).read_text(encoding="utf-8")
        header = f"### THIS FILE ORIGINALLY LOCATED AT '{os.path.abspath(path)}'\n\n"
        target.write_text(header + source, encoding="utf-8")
    _save_git_diff(folder)


def changes_since(folder: Path, source_files: Mapping[str, str]) -> list[str]:
    """Says what is no longer as `save_used_configs` has recorded it in `folder`, or when the run was resumed last.

    Args:
        folder: of the run; nothing is said if it is not there.
        source_files: what is run now.
    """
    record = max(folder.glob("resumed_*"), default=folder)
    changes = []
    for path, content in source_files.items():
        if path == CONFIG_KWARGS_STR:
            changes += _changed_kwargs(record / "config_kwargs.json", json.loads(content))
            continue
        name = os.path.basename(path)
        recorded = [file for file in record.glob("*.py") if re.sub(r"^namecollision\d+__", "", file.name) == name]
        sources = [file.read_text(encoding="utf-8").partition("\n\n")[2] for file in recorded]  # without the header
        if record.is_dir() and Path(path).read_text(encoding="utf-8") not in sources:
            changes.append(f"{name} has changed" if recorded else f"{name} is new")
    return changes


def _changed_kwargs(file: Path, now: Mapping[str, Any]) -> list[str]:
    if not file.exists():
        return []
    before = json.loads(file.read_text())
    shown = {
        name: [repr(kwargs[name]) if name in kwargs else "not given" for kwargs in (before, now)]
        for name in {**before, **now}
    }
    return [f"{name} was {old} and is {new}" for name, (old, new) in shown.items() if old != new]


def _save_git_diff(folder: Path) -> None:
    if shutil.which("git") is None:
        get_logger().info("git is not installed: the run's source revision is not recorded.")
        return
    try:
        commit = _git("describe", "--always").strip()
        (folder / f"{commit}.patch").write_text(_git("diff", commit), encoding="utf-8")
    except (subprocess.SubprocessError, OSError, UnicodeError):
        get_logger().debug("The current directory is not a git repository: the run's source revision is not recorded.")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, check=True, text=True, timeout=60).stdout


class RunLock:
    """Lets only one process at a time write into a run's folders. It ends with the process, however that ends."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, folder: Path) -> None:
        """Locks a folder, which is created if need be.

        Raises:
            OutputDirectoryError: another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise OutputDirectoryError(
                "the run that is to be resumed is still going on.",
                f"{folder} is locked by another process",
                "stop that one, or start another run without --resume.",
            ) from error
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Gives the lock back. Calling it again does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
