"""Takes the logs of a run that is resumed back to its checkpoint: metrics file, CSV tables and TensorBoard's files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.utils.files import write_whole
from allenact.utils.metrics_files import FILE_NAME, readable_rows

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.checkpointing import TrainingState
    from allenact.pipeline.pipeline import TrainingPipeline
    from allenact.runs.resume_point import ResumePoint


def truncate_logs(
    resumed_from: ResumePoint, metrics_folder: Path, tensorboard_folder: Path, pipeline: TrainingPipeline
) -> None:
    """Removes from a run's logs what was written after the checkpoint, since the resumed run will write it again.

    Args:
        resumed_from: where the run is resumed.
        metrics_folder: of its metrics file.
        tensorboard_folder: of its event files.
        pipeline: says which tags have the experiences of a storage, not steps, as their x-axis.
    """
    rows = readable_rows(metrics_folder / FILE_NAME)
    kept = [row for row in rows if row["training_steps"] <= resumed_from.steps]
    if len(kept) < len(rows):
        write_whole("".join(json.dumps(row) + "\n" for row in kept).encode(), metrics_folder / FILE_NAME)
    for table in ("train.csv", "valid.csv"):
        _truncate_table(metrics_folder / table, resumed_from.steps)
    limit = _step_limits(resumed_from.state, pipeline)
    for events in sorted(tensorboard_folder.glob("events.out.tfevents.*")):
        _truncate_events(events, limit)


def _truncate_table(file: Path, steps: int) -> None:
    """Rewrites a table of the callback `csv` without the rows of later steps, and without one that was cut off."""
    if not file.exists():
        return
    with open(file, newline="", encoding="utf-8") as text:
        header, *rows = [*csv.reader(text)] or [[]]
    kept = [row for row in rows if len(row) == len(header) and int(row[header.index("training_steps")]) <= steps]
    if len(kept) < len(rows):
        table = io.StringIO(newline="")
        csv.writer(table).writerows([header, *kept])
        write_whole(table.getvalue().encode(), file)


def _step_limits(state: TrainingState, pipeline: TrainingPipeline) -> Callable[[str], int]:
    """Returns what tells the last step of a tag that lies before the checkpoint."""
    pipeline.load_state_dict(state.training_pipeline_state_dict)
    experiences = pipeline.storage_uuid_to_total_experiences
    storage_of = {
        component.uuid: component.storage_uuid
        for stage in pipeline.pipeline_stages
        for component in stage.stage_components
    }

    def limit(tag: str) -> int:
        of_component = re.match(r"(?:train|valid)-(.+)-(?:losses|misc)/", tag)
        storage = storage_of.get(of_component.group(1)) if of_component else None
        return state.total_steps if storage is None else experiences[storage]

    return limit


def _truncate_events(file: Path, limit: Callable[[str], int]) -> None:
    """Rewrites an event file without what lies after the limit, and without an entry that was cut off."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    kept = io.BytesIO()
    writer = RecordWriter(kept)
    for record in RawEventFileLoader(str(file)).Load():
        event = Event.FromString(record)
        if all(event.step <= limit(value.tag) for value in event.summary.value):
            writer.write(record)
    if kept.tell() < file.stat().st_size:
        write_whole(kept.getbuffer(), file)
