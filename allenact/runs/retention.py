"""`--keep_checkpoints`: which checkpoints of a run are removed when newer ones have been written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from allenact.algorithms.onpolicy_sync.checkpointing import checkpoints_in, step_from_checkpoint
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.runs.supervision import Validation


def remove_old_checkpoints(
    folder: Path, keep: int, rewards: Mapping[int, float], validation: Validation | None
) -> None:
    """Removes all checkpoints of a run but the newest ones and the best one.

    Args:
        folder: with the checkpoints.
        keep: how many of the newest stay, at least 1.
        rewards: environment steps -> mean reward of the checkpoints that have been validated. The best of them stays.
        validation: what still has to be validated stays, too; None: nothing has.
    """
    files = checkpoints_in(folder)
    free = files if validation is None else [file for file in files if validation.is_done_with(file)]
    validated = [(rewards.get(step_from_checkpoint(file), math.nan), index) for index, file in enumerate(files)]
    known = [entry for entry in validated if not math.isnan(entry[0])]
    best = {files[max(known)[1]]} if known else set()
    for file in files[:-keep]:
        if file in free and file not in best:
            try:
                Path(file).unlink(missing_ok=True)
            except OSError as error:
                get_logger().warning(f"An old checkpoint cannot be removed: {file}: {error.strerror}")
