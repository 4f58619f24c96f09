"""An event file is complete for TensorBoard, whatever happens to the file or its folder."""

import errno
import io
import os
import shutil
import threading

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from allenact.utils import event_file
from allenact.utils.event_file import EventFile
from allenact.utils.summary_writer import SummaryWriter


def steps_in(path):
    """Steps of the events of a file, of which the first is the header."""
    first, *events = map(Event.FromString, RawEventFileLoader(str(path)).Load())
    assert first.file_version == "brain.Event:2"
    return [event.step for event in events]


@pytest.fixture
def file(tmp_path):
    return EventFile(tmp_path / "tb", suffix="__train")


def test_events_are_there_after_a_flush(file):
    assert file.path.name.startswith("events.out.tfevents.")
    assert file.path.name.endswith("__train")
    assert steps_in(file.path) == []
    file.add_event(Event(step=1))
    file.add_event(Event(step=2))
    assert steps_in(file.path) == []
    file.flush()
    assert steps_in(file.path) == [1, 2]
    file.add_event(Event(step=3))
    file.close()
    assert steps_in(file.path) == [1, 2, 3]


def test_much_or_old_is_written_without_a_flush(tmp_path, file):
    file.add_event(Event(step=1, graph_def=bytes(event_file.FLUSH_BYTES)))
    assert steps_in(file.path) == [1]
    impatient = EventFile(tmp_path, flush_secs=0.0)
    impatient.add_event(Event(step=1))
    assert steps_in(impatient.path) == [1]


def test_two_files_of_one_second_are_two(tmp_path):
    assert EventFile(tmp_path).path != EventFile(tmp_path).path


@pytest.mark.parametrize("remove", [lambda path: shutil.rmtree(path.parent), os.remove])
def test_a_removed_file_is_begun_anew(file, remove):
    file.add_event(Event(step=1))
    file.flush()
    file.add_event(Event(step=2))
    remove(file.path)
    file.flush()
    assert steps_in(file.path) == [2]


class FullDisk(io.FileIO):
    """A file whose first write takes three bytes, and whose second fails."""

    def __init__(self, path, mode, buffering):
        super().__init__(path, mode)
        self.writes = 0

    def write(self, data):
        self.writes += 1
        if self.writes > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:3])


def test_what_a_full_disk_does_not_take_is_kept(file, monkeypatch):
    file.add_event(Event(step=1))
    file.flush()
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "open", FullDisk, raising=False)
        file.add_event(Event(step=2))
        with pytest.raises(OSError, match="No space left"):
            file.flush()
        assert steps_in(file.path) == [1]
    file.add_event(Event(step=3))
    file.flush()
    assert steps_in(file.path) == [1, 2, 3]


def test_adding_an_event_does_not_fail(tmp_path, monkeypatch):
    """So that all tags of one log are there, and not only the first."""
    file = EventFile(tmp_path, flush_secs=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "open", FullDisk, raising=False)
        for step in (1, 2, 3):
            file.add_event(Event(step=step))
    file.flush()
    assert steps_in(file.path) == [1, 2, 3]


def test_half_an_event_is_cut_off_by_the_next_flush(file):
    file.add_event(Event(step=1))
    file.flush()
    with open(file.path, "ab") as whoever:  # a write that was interrupted
        whoever.write(b"\x18\0\0")
    file.add_event(Event(step=2))
    file.flush()
    assert steps_in(file.path) == [1, 2]


def test_what_is_kept_has_a_limit(file, monkeypatch, caplog):
    monkeypatch.setattr(event_file, "KEPT_BYTES", 1000)
    shutil.rmtree(file.path.parent)
    file.path.parent.write_text("a file where the folder was")
    file.add_event(Event(step=1, graph_def=bytes(2000)))
    with pytest.raises(FileExistsError):
        file.flush()
    assert "bytes that cannot be written are dropped" in caplog.text
    file.path.parent.unlink()
    file.add_event(Event(step=2))
    file.flush()
    assert steps_in(file.path) == [2]


def test_a_summary_writer_has_no_thread_and_can_be_closed_and_used_again(tmp_path):
    threads = threading.active_count()
    writer = SummaryWriter(str(tmp_path), purge_step=5)
    writer.add_scalar("reward", 1.0, global_step=5)
    assert threading.active_count() == threads
    writer.close()
    writer.close()
    writer.add_scalar("reward", 2.0, global_step=6)
    writer.flush()
    assert sorted(map(steps_in, tmp_path.iterdir())) == [[5, 5], [6]]
