"""Tables for people, on the terminal."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import Any


def print_test_summary(checkpoints: Sequence[str], results: Sequence[dict[str, Any]]) -> None:
    """Prints one row per tested checkpoint: mean and standard deviation of every metric over its tasks."""
    from rich.console import Console
    from rich.table import Table

    keys = sorted({key for result in results for task in result["tasks"] for key in task if key != "task_info"})
    table = Table(title=f"{len(results)} checkpoint{'s' if len(results) != 1 else ''} tested")
    for heading in ("steps", "tasks", *keys):
        table.add_column(heading, justify="right")
    table.add_column("checkpoint", overflow="fold")
    for path, result in zip(checkpoints, results, strict=True):
        cells = [f"{result['training_steps']:,}", str(len(result["tasks"]))]
        for key in keys:
            values = [float(task[key]) for task in result["tasks"] if key in task]
            spread = f" ± {statistics.stdev(values):.4g}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.5g}{spread}" if values else "")
        table.add_row(*cells, os.path.basename(path))
    Console(stderr=True).print(table)
