"""`--config_kwargs`: the keyword arguments of an experiment, from the command line."""

from __future__ import annotations

import ast
import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from allenact.errors import ExperimentConfigError, did_you_mean

_ASSIGNMENT = re.compile(r"\s*[A-Za-z_]\w*\s*=")


def parse_config_kwargs(text: str | None) -> dict[str, Any]:
    """Reads `--config_kwargs`: name=value pairs, JSON, the path of a JSON file, or (with a warning) a Python dict.

    Raises:
        ExperimentConfigError: it is none of these, or not a dict with string keys.
    """
    if text is None:
        return {}
    source = "--config_kwargs"
    if os.path.exists(text):
        source = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentConfigError(f"{source} cannot be read: {error}", f"--config_kwargs {source}") from error
    elif _ASSIGNMENT.match(text):
        return _parse_assignments(text)
    elif not text.lstrip().startswith(("{", "[", '"')):
        raise ExperimentConfigError(
            "--config_kwargs is neither JSON nor an existing file.",
            f"--config_kwargs {text}, seen from {os.getcwd()}",
            did_you_mean(text, glob.glob("*.json") + glob.glob("configs/**/*.json", recursive=True))
            or 'write name=value or {"name": value}, or pass the path of a JSON file.',
        )
    try:
        kwargs = json.loads(text)
    except json.JSONDecodeError as error:
        kwargs = _parse_python_dict(text, source, error)
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise ExperimentConfigError(
            "the experiment's keyword arguments must be a JSON object.",
            f"{source} holds {type(kwargs).__name__}: {str(text)[:100]}",
            'write them as {"name": value}.',
        )
    return kwargs


def _parse_assignments(text: str) -> dict[str, Any]:
    """Reads `name=value name=value`, where values are JSON, and strings need no quotation marks."""
    kwargs: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name in kwargs:
            raise ExperimentConfigError(
                "the experiment's keyword arguments are not name=value, with spaces between them and nowhere else.",
                f"--config_kwargs {text[:200]}, which has {word}",
                'write each name once and values without spaces, or JSON: {"name": value}.',
            )
        try:
            kwargs[name] = json.loads(value)
        except json.JSONDecodeError:
            kwargs[name] = value
    return kwargs


def _parse_python_dict(text: str, source: str, json_error: json.JSONDecodeError) -> Any:
    try:
        kwargs = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ExperimentConfigError(
            f"the experiment's keyword arguments are not valid JSON: {json_error}.",
            f"{source}: {text[:200]}" if source == "--config_kwargs" else source,
            'write them as {"name": value}, or pass the path of an existing JSON file.',
        ) from None
    from allenact.utils.system import get_logger

    get_logger().warning(f"{source} is not JSON ({json_error}); it was read as a Python dict.")
    return kwargs
