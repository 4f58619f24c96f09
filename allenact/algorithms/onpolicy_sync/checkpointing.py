"""What a checkpoint is: its contents, its file, and how checkpoints are found again. No other module knows the keys."""

from __future__ import annotations

import glob
import io
import math
import os
import pickle
import platform
import re
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch

from allenact.errors import CheckpointError, did_you_mean
from allenact.pipeline.schedules import LinearDecay, MultiLinearDecay
from allenact.utils.files import write_whole
from allenact.utils.plain_values import decode_plain, encode_plain, with_python_numbers
from allenact.utils.system import get_logger
from allenact.utils.wandb_checkpoints import PREFIX as WANDB_PREFIX
from allenact.utils.wandb_checkpoints import download_checkpoint_from_wandb

FORMAT_VERSION = 1
_EXACT_PARTS = ("rng_state", "sampler_states", "storage_states", "stream_memory", "tracker_state")


@dataclass(frozen=True)
class TrainingState:
    """Everything a training run needs to go on as if it had never stopped.

    The first five fields are upstream's; checkpoints written by upstream have only those.
    """

    model_state_dict: dict[str, torch.Tensor]
    """Parameters and buffers of the actor-critic."""
    total_steps: int
    """Environment steps over all stages and workers."""
    optimizer_state_dict: dict[str, Any]
    """Moments and settings of the optimiser."""
    training_pipeline_state_dict: dict[str, Any]
    """Counters of stages and storages."""
    trainer_seed: int | None
    """The seed of the run."""
    scheduler_state: dict[str, Any] | None = None
    """State of the learning rate scheduler, without its functions."""
    rng_state: dict[str, Any] | None = None
    """Generators of Python, NumPy and torch in the training process."""
    sampler_states: list[dict[str, Any] | None] | None = None
    """One state for each task sampler; None where a sampler cannot be saved."""
    storage_states: dict[str, Any] | None = None
    """What each storage carries over to the next rollout, by storage uuid."""
    stream_memory: dict[str, Any] | None = None
    """Recurrent state of streamed data."""
    tracker_state: dict[str, Any] | None = None
    """Metrics gathered since the last log."""
    library_versions: dict[str, str] | None = None
    """Versions that wrote the file; None before it is written."""

    @property
    def is_exact(self) -> bool:
        """Whether a run can continue from here bit for bit (as far as its samplers can be saved)."""
        return self.rng_state is not None and self.sampler_states is not None

    def to_file_contents(self) -> dict[str, Any]:
        """Returns a dict of tensors and builtins only, with upstream's keys at the top level."""
        contents: dict[str, Any] = {
            "model_state_dict": self.model_state_dict,
            "total_steps": self.total_steps,
            "optimizer_state_dict": with_python_numbers(self.optimizer_state_dict),
            "training_pipeline_state_dict": self.training_pipeline_state_dict,
            "trainer_seed": self.trainer_seed,
        }
        if self.scheduler_state is not None:
            contents["scheduler_state"] = with_python_numbers(self.scheduler_state)
        contents["format_version"] = FORMAT_VERSION
        contents["library_versions"] = library_versions()
        for name in _EXACT_PARTS:
            contents[name] = encode_plain(getattr(self, name), where=name)
        return contents

    @classmethod
    def from_file_contents(cls, contents: dict[str, Any], path: str) -> TrainingState:
        """Reads the dict of a checkpoint file, ours or upstream's.

        Raises:
            CheckpointError: it holds no model.
        """
        if not isinstance(contents, dict) or "model_state_dict" not in contents:
            found = ", ".join(map(str, contents)) if isinstance(contents, dict) else type(contents).__name__
            raise CheckpointError(
                "the file is no checkpoint of an experiment: it has no model_state_dict.",
                f"{path}, which holds {found[:200]}",
                "pass a .pt file that a training run wrote.",
            )
        return cls(
            model_state_dict=contents["model_state_dict"],
            total_steps=contents.get("total_steps", 0),
            optimizer_state_dict=contents.get("optimizer_state_dict", {}),
            training_pipeline_state_dict=contents.get("training_pipeline_state_dict", {}),
            trainer_seed=contents.get("trainer_seed"),
            scheduler_state=contents.get("scheduler_state"),
            library_versions=contents.get("library_versions"),
            **{name: decode_plain(contents.get(name)) for name in _EXACT_PARTS},
        )


class CheckpointStore:
    """Writes a run's checkpoints into one folder.

    Args:
        folder: where; created at the first save.
        experiment_name: the experiment's tag, used in file names.
    """

    def __init__(self, folder: str | Path, experiment_name: str) -> None:
        self.folder = Path(folder)
        self.experiment_name = experiment_name

    def path(self, stage_index: int, total_steps: int) -> Path:
        """Returns the file name of a checkpoint written in stage `stage_index` at `total_steps` environment steps."""
        return self.folder / f"exp_{self.experiment_name}__stage_{stage_index:02d}__steps_{total_steps:012d}.pt"

    def save(self, state: TrainingState, path: Path) -> None:
        """Writes a checkpoint to `path`, whole or not at all."""
        write_whole(_to_bytes(state.to_file_contents()), path)


def save_weights(state: TrainingState, path: Path) -> None:
    """Writes the part of a checkpoint that can be evaluated, or trained anew from with `--restart_pipeline`."""
    whole = state.to_file_contents()
    kept = ("model_state_dict", "total_steps", "trainer_seed", "format_version")
    contents = {**{key: whole[key] for key in kept}, "library_versions": state.library_versions}
    write_whole(_to_bytes(contents), path)


def _to_bytes(contents: dict[str, Any]) -> memoryview:
    data = io.BytesIO()  # in memory, so that whatever fails while a file is written is the disk
    torch.save(contents, data)
    return data.getbuffer()


def load_checkpoint(path: str | os.PathLike[str]) -> TrainingState:
    """Reads a checkpoint file onto the CPU without executing anything in it.

    Raises:
        CheckpointError: there is no such file, it is truncated or damaged, or it is no checkpoint.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        names = os.listdir(folder) if os.path.isdir(folder) else []
        raise CheckpointError(
            "there is no such checkpoint file.",
            path,
            did_you_mean(os.path.basename(path), names) or "pass a .pt file that a training run wrote.",
        )
    # Upstream's files hold the schedule objects of their scheduler; ours hold builtins and tensors only.
    rebuild_array, rebuild_scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    known: list[Any] = [
        LinearDecay,
        MultiLinearDecay,
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
    ]
    known += [rebuild_array, rebuild_scalar]
    known += [(rebuild_array, "numpy.core.multiarray._reconstruct"), (rebuild_scalar, "numpy.core.multiarray.scalar")]
    try:
        _check_sums(path)
        with torch.serialization.safe_globals(known):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what readers raise on damaged bytes has no end: ValueError, zlib.error, ...
        # The messages of unpickling advise to read the file unsafely, which nobody should.
        is_unpickling = isinstance(error, pickle.UnpicklingError) or not str(error)
        reason = type(error).__name__ if is_unpickling else str(error).splitlines()[0]
        raise CheckpointError(
            "the checkpoint cannot be read: it is truncated, damaged, or no checkpoint at all.",
            f"{path} ({os.path.getsize(path):,} bytes): {reason}",
            "use another checkpoint of the run.",
        ) from error
    return TrainingState.from_file_contents(contents, path)


def _check_sums(path: str) -> None:
    """Compares every part of a checkpoint with the CRC-32 that `torch.save` has written beside it.

    `torch.load` does not, so that a flipped bit would become a wrong weight.

    Raises:
        ValueError: they differ. (Files too damaged to have parts raise other errors, here or in `torch.load`.)
    """
    if not is_zipfile(path):
        return  # cut off, or in the format before torch 1.6
    with ZipFile(path) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is wrong")


def newest_good_checkpoint(files: Sequence[str]) -> str | None:
    """Returns the last of some checkpoints, ordered by steps, that can be read; warns of those that cannot."""
    for path in reversed(files):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            get_logger().warning(f"A checkpoint is skipped: {error.given}")
            continue
        return path
    return None


def load_model_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies a checkpoint's weights into `model`.

    Args:
        model: gets them.
        weights: by name, as `TrainingState.model_state_dict` has them.
        source: where they come from, for the error.

    Raises:
        CheckpointError: names or shapes differ; the first difference is named.
    """
    expected, given = model.state_dict(), weights
    for key in [*expected, *given]:
        if key not in given or key not in expected:
            holder, lacks = ("model", "checkpoint") if key in expected else ("checkpoint", "model")
            what = f'it is the checkpoint of another model: the {holder} has "{key}", the {lacks} has not.'
        elif expected[key].shape != given[key].shape:
            what = (
                f'it is the checkpoint of another model: "{key}" is {list(given[key].shape)} in the checkpoint'
                f" and {list(expected[key].shape)} in the model."
            )
        else:
            continue
        raise CheckpointError(what, source, "use the experiment, and the config_kwargs, that wrote the checkpoint.")
    model.load_state_dict(OrderedDict(given))


def step_from_checkpoint(path: str) -> int:
    """Returns the environment steps of a checkpoint: from its file name, else (with a warning) from its contents."""
    steps = _steps_in_name(path)
    if steps is not None:
        return steps
    get_logger().warning(f"The file name of {path} does not tell its number of steps; the file is read to find out.")
    return load_checkpoint(path).total_steps


def _steps_in_name(path: str) -> int | None:
    for part in reversed(os.path.basename(path).split("__")):  # a tag, which comes first, may look the same
        match = re.search(r"steps_(?:.*_)?(\d+)", part.split(".")[0])
        if match:
            return int(match.group(1))
    return None


def checkpoints_in(folder: Path) -> list[str]:
    """Returns the checkpoints in a folder whose names tell their environment steps, ordered by them."""
    steps = {str(file): _steps_in_name(str(file)) for file in folder.glob("*.pt")}
    known = [(count, file) for file, count in steps.items() if count is not None]
    return [file for _, file in sorted(known)]


def find_checkpoints(path_or_pattern: str, approx_step_interval: float | None = None) -> list[str]:
    """Returns the checkpoints that a file, folder or glob names, ordered by environment steps.

    Args:
        path_or_pattern: a file, a folder (its `*.pt` files), a glob (`**` enters folders), or
            `wandb://<run token>//<step>`, which is downloaded from Weights & Biases.
        approx_step_interval: keep about one checkpoint for this many environment steps.

    Raises:
        CheckpointError: nothing matches.
    """
    if path_or_pattern.startswith(WANDB_PREFIX):
        path_or_pattern = download_checkpoint_from_wandb(path_or_pattern, tempfile.mkdtemp(prefix="allenact_wandb_"))
    if os.path.isfile(path_or_pattern):  # before globbing: a name may hold characters that globs treat specially
        return [path_or_pattern]
    if os.path.isdir(path_or_pattern):
        files = glob.glob(os.path.join(glob.escape(path_or_pattern), "*.pt"))
    else:
        files = [file for file in glob.glob(path_or_pattern, recursive=True) if os.path.isfile(file)]
    if not files:
        is_folder = os.path.isdir(path_or_pattern)
        below = glob.glob(os.path.join(glob.escape(path_or_pattern), "**", "*.pt"), recursive=True) if is_folder else []
        folders = sorted({os.path.dirname(file) for file in below})
        raise CheckpointError(
            "no checkpoint was found.",
            f"--checkpoint {path_or_pattern}" + (" (a folder without .pt files)" if is_folder else ""),
            f"pass one of the runs below it: {', '.join(folders[-5:])}"
            if folders
            else "pass a .pt file, a folder of them, or a glob. Training runs write to OUT/checkpoints/TAG/START_DATE."
            + ("" if is_folder else _what_is_there(path_or_pattern)),
        )
    steps = {file: step_from_checkpoint(file) for file in files}
    files.sort(key=lambda file: (steps[file], file))
    if approx_step_interval is None:
        return files
    grid = np.arange(math.ceil(steps[files[-1]] / approx_step_interval) + 1) * approx_step_interval
    all_steps = np.array([steps[file] for file in files])
    kept = {int(np.argmin(np.abs(all_steps - target))) for target in grid}
    return [files[index] for index in sorted(kept)]


def _what_is_there(path: str) -> str:
    """Says what is in the last folder that exists on the way to a path, names with the latest dates first."""
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    names = sorted(os.listdir(folder), reverse=True) if folder else []
    return f"\n         {folder} has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""


def one_checkpoint(path_or_pattern: str) -> str:
    """Returns the checkpoint to resume from, known to be readable.

    Raises:
        CheckpointError: nothing matches, more than one file does, or it cannot be read.
    """
    files = find_checkpoints(path_or_pattern)
    if len(files) != 1:
        raise CheckpointError(
            "training resumes from one checkpoint.",
            f"--checkpoint {path_or_pattern}, which matches {len(files)} files",
            f"pass one of them, for example the newest: {files[-1]}",
        )
    try:
        load_checkpoint(files[0])
    except CheckpointError as error:
        good = newest_good_checkpoint([file for file in checkpoints_in(Path(files[0]).parent) if file != files[0]])
        if good is None:
            raise
        raise CheckpointError(error.what, error.given, f"use the newest good one beside it: {good}") from error
    return files[0]


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """Returns a scheduler's state without its functions, which the experiment makes anew."""
    state = dict(scheduler.state_dict())
    if "lr_lambdas" in state:
        state["lr_lambdas"] = [None] * len(state["lr_lambdas"])
    return encode_plain(state)


def load_scheduler_state(scheduler: Any, state: dict[str, Any]) -> None:
    """Restores a scheduler from our state or from upstream's; its functions stay the experiment's own."""
    state = dict(decode_plain(state))
    if "lr_lambdas" in state:
        state["lr_lambdas"] = [None] * len(scheduler.state_dict()["lr_lambdas"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch asks to save the optimiser too, which is done
        scheduler.load_state_dict(state)


def library_versions() -> dict[str, str]:
    """Returns the versions that decide whether a resumed run can be bit-equal."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "mujoco", "gymnasium", "minigrid"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
