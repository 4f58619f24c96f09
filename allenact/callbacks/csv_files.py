"""`--callbacks csv`: every log as a row of a table, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allenact.base_abstractions.callbacks import Callback

_FIRST = ("training_steps", "wall_time", "elapsed_time")


class CsvFiles(Callback):
    """Writes `train.csv`, `valid.csv` and `test.csv`, as far as there is something to write, beside the metrics files.

    A column for each number, a row for each log. When a number is logged for the first time, the file is written anew
    with one more column, empty in the rows before, so that it is a valid table at any time. That happens a few times in
    a run.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._columns: dict[str, list[str]] = {}
        self._began = time.monotonic()

    def on_start(self, *, metrics_dir: Path, **kwargs: Any) -> None:
        """Takes note of the folder."""
        self._folder, self._began = metrics_dir, time.monotonic()

    def on_train_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Adds a row to `train.csv`."""
        self._add("train", step, metric_means)

    def on_valid_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Adds a row to `valid.csv`."""
        self._add("valid", step, metric_means)

    def on_test_log(self, *, metric_means: dict[str, float], step: int, **kwargs: Any) -> None:
        """Adds a row to `test.csv`."""
        self._add("test", step, metric_means)

    def _add(self, mode: str, step: int, means: Mapping[str, float]) -> None:
        times = {"wall_time": time.time(), "elapsed_time": time.monotonic() - self._began}
        row = {"training_steps": step, **times, **means}
        path = self._folder / f"{mode}.csv"
        columns = self._columns.setdefault(mode, _columns_of(path))
        if new := sorted(row.keys() - set(columns) - set(_FIRST)):
            columns = [*(columns or _FIRST), *new]
            _widen(path, columns)
            self._columns[mode] = columns
        with open(path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns).writerow(row)


def _columns_of(path: Path) -> list[str]:
    """Returns the columns of a table, which a resumed run goes on with; none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _widen(path: Path, columns: list[str]) -> None:
    """Writes a table anew with these columns, those it has among them; or an empty one if there is no such file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".csv.part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        if path.exists():
            with open(path, newline="", encoding="utf-8") as before:
                table.writerows(csv.DictReader(before))
    os.replace(part, path)
