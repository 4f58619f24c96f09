"""`--config_kwargs`: the keyword arguments of an experiment, from the command line, and which there are."""

from __future__ import annotations

import ast
import contextlib
import glob
import inspect
import json
import os
import re
import textwrap
from pathlib import Path
from typing import Any

from allenact.errors import ExperimentConfigError, did_you_mean

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n     +.*)*)", re.MULTILINE)  # of a docstring's list of arguments
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
    """Reads `name=value name=value`, where values are JSON or Python, and strings need no quotation marks."""
    kwargs: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name in kwargs:
            raise ExperimentConfigError(
                "the experiment's keyword arguments are not name=value, with spaces between them and nowhere else.",
                f"--config_kwargs {text[:200]}, which has {word}",
                'write each name once and values without spaces, or JSON: {"name": value}.',
            )
        kwargs[name] = _parse_value(value)
    return kwargs


def _parse_value(text: str) -> Any:
    """Reads one value: None, True and 1_000_000 are no JSON, but are not meant to be strings either."""
    with contextlib.suppress(ValueError):
        return json.loads(text)
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return json.loads(json.dumps(ast.literal_eval(text)))  # what JSON does not know stays a string
    return text


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


def keyword_arguments(config_class: type) -> dict[str, inspect.Parameter]:
    """Returns the arguments of a class by name, and those of its bases that it takes as `**kwargs`."""
    arguments: dict[str, inspect.Parameter] = {}
    for cls in config_class.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        _, *parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                arguments.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return arguments


def describe_keyword_arguments(config_class: type) -> str:
    """Returns a text with a paragraph for each argument of a class: its default, and what the docstrings say of it."""
    explanations: dict[str, str] = {}
    for cls in reversed(config_class.__mro__):
        for name, text in _ENTRY.findall(inspect.cleandoc(vars(cls).get("__doc__") or "")):
            explanations[name] = " ".join(text.split())
    lines = [f"keyword arguments of {config_class.__name__} (--config_kwargs 'NAME=VALUE NAME=VALUE'):"]
    for name, parameter in keyword_arguments(config_class).items():
        default = "" if parameter.default is parameter.empty else f"={json.dumps(parameter.default, default=repr)}"
        lines.append(f"  {name}{default}")
        if name in explanations:
            lines += textwrap.wrap(explanations[name], 78, initial_indent=" " * 24, subsequent_indent=" " * 24)
    return "\n".join(lines) if len(lines) > 1 else f"{config_class.__name__} takes no keyword arguments."
