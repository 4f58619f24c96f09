"""Reads the metrics files of training runs back: the curves of a run, resumed or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from allenact.errors import MetricsFileError, did_you_mean

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Series:
    """One number over the course of a run; all lists have the same length.

    Attributes:
        steps: environment steps, rising.
        seconds: seconds spent training until then, pauses between the parts of a resumed run not counted.
        values: the number.
    """

    steps: list[int]
    seconds: list[float]
    values: list[float]

    def at(self, steps: float) -> float | None:
        """Returns the last value up to that many environment steps, None if there is none."""
        known = [value for step, value in zip(self.steps, self.values, strict=True) if step <= steps]
        return known[-1] if known else None


@dataclass(frozen=True)
class RunMetrics:
    """What a run logged, the parts of a resumed one joined.

    Attributes:
        tag: the experiment's tag (the folder between `metrics` and the start time, in the flat layout).
        files: the metrics files, one for each part.
        rows: their lines in order, each with `mode`, `training_steps`, `seconds` (spent training) and tags.
    """

    tag: str
    files: tuple[Path, ...]
    rows: tuple[dict[str, Any], ...]

    @property
    def steps(self) -> int:
        """Environment steps until the last training log."""
        return max((row["training_steps"] for row in self.rows if row["mode"] == "train"), default=0)

    @property
    def seconds(self) -> float:
        """Seconds spent training until the last log."""
        return max((row["seconds"] for row in self.rows), default=0.0)

    def series(self, metric: str, mode: str = "train") -> Series:
        """Returns one number over the run.

        Args:
            metric: a metric of the episodes, such as "reward", or a whole tag, such as "train-onpolicy-misc/lr", or the
                end of only one tag, such as "lr".
            mode: "train" or "valid"; of no meaning for a whole tag.

        Raises:
            MetricsFileError: the run has logged no such number.
        """
        tag = self._tag_of(metric, mode)
        rows = [row for row in self.rows if tag in row]
        return Series(
            [row["training_steps"] for row in rows], [row["seconds"] for row in rows], [row[tag] for row in rows]
        )

    def _tag_of(self, metric: str, mode: str) -> str:
        """Returns the tag that a name stands for; see `series`."""
        known = sorted({key for row in self.rows for key in row if "/" in key})
        for tag in (metric, f"{mode}-metrics/{metric}"):
            if tag in known:
                return tag
        ends = [tag for tag in known if tag.startswith(f"{mode}-") and tag.endswith(f"/{metric}")]
        if len(ends) == 1:
            return ends[0]
        last_names = {tag.rpartition("/")[2] for tag in known}
        whole = ends or [tag for tag in known if tag.endswith(f"/{metric}")]  # of another mode
        raise MetricsFileError(
            f'the run has logged {"several" if ends else "no"} "{metric}" in mode "{mode}".',
            f"{self.files[-1]}",
            f"choose one of {', '.join(whole)}."
            if len(whole) > 1
            else f'did you mean "{whole[0]}"?'
            if whole
            else did_you_mean(metric, [*sorted(last_names), *known]) or "docs/metrics.md lists what a run logs.",
        )


def read_runs(path: Path) -> list[RunMetrics]:
    """Reads every run below a folder.

    Files of the same tag are taken for the parts of one resumed run as long as each goes on where an earlier one
    already was. One whose first log has no more environment steps than the first one's begins another run. So give
    runs that are resumed side by side output folders of their own.

    Args:
        path: an output folder, any folder in it, or a metrics file.

    Raises:
        MetricsFileError: there is none, or one cannot be read.
    """
    files = [path] if path.is_file() else sorted(path.rglob(FILE_NAME), key=lambda file: (_tag(file), file.parent.name))
    runs: list[list[tuple[Path, list[dict[str, Any]]]]] = []
    for file in files:
        rows = _read(file)
        if not rows:
            continue
        known = runs[-1] if runs else None
        if known and _tag(known[0][0]) == _tag(file) and _first_steps(rows) > _first_steps(known[0][1]):
            known.append((file, rows))
        else:
            runs.append([(file, rows)])
    if not runs:
        raise MetricsFileError(
            "no run has logged anything here.",
            f"{path} ({len(files)} metrics files)",
            f"pass the output folder of a training run; it holds metrics/TAG/START/{FILE_NAME}.",
        )
    return [
        RunMetrics(
            _tag(parts[0][0]),
            tuple(file for file, _ in parts),
            tuple(_join([part for _, rows in parts for part in _parts(rows)])),
        )
        for parts in runs
    ]


def read_run(path: Path) -> RunMetrics:
    """Reads the only run below a folder.

    Raises:
        MetricsFileError: there is none, or there are several.
    """
    runs = read_runs(path)
    if len(runs) != 1:
        raise MetricsFileError(
            f"there are {len(runs)} runs where one was asked for.",
            f"{path}: {', '.join(str(run.files[0].parent) for run in runs)}",
            "pass one of these folders.",
        )
    return runs[0]


def readable_rows(file: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file that can be read, as they are; none of a file that does not exist.

    One that is just being written, or was cut off when its run ended, is left out.
    """
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"mode", "training_steps"} <= row.keys():
            rows.append(row)
    return rows


def _tag(file: Path) -> str:
    """Returns the folders between `metrics` and the start time, or the one above the start time in other layouts."""
    parts = file.resolve().parts[:-2]
    return "/".join(parts[_last_index(parts, "metrics") + 1 :]) if "metrics" in parts else parts[-1]


def _last_index(parts: Sequence[str], name: str) -> int:
    return len(parts) - 1 - parts[::-1].index(name)


def _read(file: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file; a last line that is being written is left out."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.endswith("\n"):
                row = json.loads(line)
                rows.append({**row, "mode": row["mode"], "training_steps": int(row["training_steps"])})
        except (ValueError, KeyError, TypeError) as error:
            raise MetricsFileError(
                "a metrics file cannot be read.",
                f"{file}, line {number}: {line[:80]!r}",
                "each line is a JSON object with mode and training_steps; remove what is not.",
            ) from error
    return rows


def _first_steps(rows: Sequence[dict[str, Any]]) -> int:
    """Returns the steps of the first training log; of the first row if a part has only validated."""
    steps = [row["training_steps"] for row in rows if row["mode"] == "train"]
    return min(steps or [row["training_steps"] for row in rows])


def _join(parts: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Joins the parts of a run: what a later one did again counts as it did it, but the time of both counts."""
    joined: list[dict[str, Any]] = []
    seconds = 0.0
    for rows in parts:
        first = _first_steps(rows)
        again = {mode: min(row["training_steps"] for row in rows if row["mode"] == mode) for mode in _modes(rows)}
        trained_again = again.get("train", inf)  # nowhere, if it validated and was stopped before it logged more
        joined = [row for row in joined if row["training_steps"] < min(trained_again, again.get(row["mode"], inf))]
        steps = max((row["training_steps"] for row in joined if row["mode"] == "train"), default=0)
        start = rows[0]["wall_time"] - _seconds_to_first_log(rows, first - steps)
        joined += [{**row, "seconds": seconds + row.get("elapsed_time", row["wall_time"] - start)} for row in rows]
        seconds = joined[-1]["seconds"]
    return joined


def _modes(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {row["mode"] for row in rows}


def _parts(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Cuts the rows of a file where `--resume` went on with it: there `elapsed_time` begins anew."""
    parts: list[list[dict[str, Any]]] = []
    last = float("inf")
    for row in rows:
        elapsed = row.get("elapsed_time", last)
        if not parts or elapsed < last:
            parts.append([])
        parts[-1].append(row)
        last = elapsed
    return parts


def _seconds_to_first_log(rows: Sequence[dict[str, Any]], steps: int) -> float:
    """Returns how long a part had trained when it logged first.

    Files written before `elapsed_time` was logged do not say; then it is taken to have gone at the pace that followed.

    Args:
        rows: of the part.
        steps: environment steps since the part before it, or since the beginning.
    """
    if "elapsed_time" in rows[0]:
        return float(rows[0]["elapsed_time"])
    train = [row for row in rows if row["mode"] == "train"]
    gained = train[-1]["training_steps"] - train[0]["training_steps"] if train else 0
    return steps / gained * (train[-1]["wall_time"] - train[0]["wall_time"]) if gained else 0.0
