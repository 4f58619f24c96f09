"""What the output folder of a run says about its training: `made_by.json`.

`run` is the experiment, its keyword arguments and the seed. `parts` has an entry for each time that training was
started there: the command, the commit, the machine, the versions and the cores that the run could use.
`prolonged_from` are the numbers of steps that it was first meant to have. Older notes are the list `run` alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import commit, machine, versions

Run = list[Any]  # experiment, keyword arguments, seed


def claim(folder: Path, experiment: str, config_kwargs: dict[str, Any], seed: int) -> None:
    """Makes an output folder that of a run, or checks that it is.

    A run can be prolonged: with more `total_steps` than before it is the same run, and not finished any more.

    Raises:
        RuntimeError: the folder holds a run of something else, or one of more steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run: Run = [experiment, config_kwargs, seed]
    note = read_note(folder)
    if note is None:
        _write(folder, {"run": run, "prolonged_from": [], "parts": []})
    elif note["run"] != run:
        if not _prolongs(run, note["run"]):
            raise RuntimeError(
                f"{folder} holds a run of {json.dumps(note['run'])}, not of {json.dumps(run)}: choose another --out"
            )
        steps = [*note["prolonged_from"], note["run"][1]["total_steps"]]
        _write(folder, {**note, "run": run, "prolonged_from": steps})
        (folder / "finished").unlink(missing_ok=True)


def begin_part(folder: Path, command: Sequence[str], cores: int) -> None:
    """Notes in a folder that `claim` has been called for that training starts or goes on there.

    Args:
        folder: of the run.
        command: without what only says where things are on this machine.
        cores: how many the run can use.
    """
    note = read_note(folder) or {}
    part = {"command": shlex.join(command), "commit": commit(), "machine": machine(), "versions": versions()}
    _write(folder, {**note, "parts": [*note.get("parts", []), {**part, "cores": cores}]})


def read_note(folder: Path) -> dict[str, Any] | None:
    """Returns the note of an output folder; None if there is none, because something else has made the run."""
    path = folder / "made_by.json"
    if not path.exists():
        return None
    note = json.loads(path.read_text())
    return {"run": note, "prolonged_from": [], "parts": []} if isinstance(note, list) else dict(note)


def _prolongs(run: Run, earlier: Run) -> bool:
    """Whether a run is an earlier one with more steps."""
    steps, fewer = (each[1].get("total_steps") for each in (run, earlier))
    if not isinstance(steps, int) or not isinstance(fewer, int) or steps < fewer:
        return False
    return run == [earlier[0], {**earlier[1], "total_steps": steps}, earlier[2]]


def _write(folder: Path, note: dict[str, Any]) -> None:
    (folder / "made_by.json").write_text(json.dumps(note, indent=1) + "\n")
