"""Checkpoints kept by Weights & Biases, addressed as `wandb://<run token>//<step>[//<step>...]`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from allenact.errors import CheckpointError, MissingExtraError

PREFIX = "wandb://"


def download_checkpoint_from_wandb(
    checkpoint_path_dir_or_pattern: str, all_ckpt_dir: str, only_allow_one_ckpt: bool = False
) -> str:
    """Downloads the artifacts `<run token>-step-<step>:latest` as `ckpt-<step>.pt`.

    Args:
        checkpoint_path_dir_or_pattern: `wandb://<run token>//<step>`, with further steps separated by `//`.
        all_ckpt_dir: folder to put the files into.
        only_allow_one_ckpt: whether several steps are an error.

    Returns:
        The path of the file if only one is allowed, else `all_ckpt_dir`.

    Raises:
        CheckpointError: the address is incomplete, or has several steps where one is allowed.
        MissingExtraError: wandb is not installed.
    """
    token, *steps = checkpoint_path_dir_or_pattern.removeprefix(PREFIX).split("//")
    if not token or not all(step.isdigit() for step in steps) or not steps:
        raise CheckpointError(
            "the address of the checkpoint is incomplete.",
            given=checkpoint_path_dir_or_pattern,
            do=f"write {PREFIX}<run token>//<step>, with further steps separated by //.",
        )
    if only_allow_one_ckpt and len(steps) > 1:
        raise CheckpointError(
            "training continues from one checkpoint.",
            given=f"steps {', '.join(steps)}",
            do="name one step.",
        )
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            "reading a checkpoint from Weights & Biases needs wandb.",
            given=checkpoint_path_dir_or_pattern,
            do='install it: pip install "allenact-gym[wandb]".',
        ) from error
    api = wandb.Api()
    for step in steps:
        with tempfile.TemporaryDirectory(dir=all_ckpt_dir) as folder:
            api.artifact(f"{token}-step-{step}:latest").download(root=folder)
            os.replace(Path(folder) / "ckpt.pt", Path(all_ckpt_dir) / f"ckpt-{step}.pt")
    return str(Path(all_ckpt_dir) / f"ckpt-{steps[0]}.pt") if only_allow_one_ckpt else all_ckpt_dir
