"""From the experiment argument of the command line to an ExperimentConfig object."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from allenact.errors import (
    AllenActError,
    ExperimentConfigError,
    ExperimentNotFoundError,
    UsageError,
    did_you_mean,
)
from allenact.utils.config_kwargs import keyword_arguments, parse_config_kwargs

CONFIG_KWARGS_STR = "__CONFIG_KWARGS__"
# Code in these places is the library's, Python's or an installed package's.
_ROOT = Path(__file__).resolve().parents[2]
_NOT_THE_USERS = (
    "<",
    *(f"{_ROOT / package}{os.sep}" for package in ("allenact", "allenact_plugins")),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment and where it came from."""

    config: Any
    """The ExperimentConfig object."""
    source_files: dict[str, str]
    """`{file path: dotted module}` of its classes, and the keyword arguments under CONFIG_KWARGS_STR."""


def load_experiment(experiment: str, base: str, config_kwargs: str | None = None) -> LoadedExperiment:
    """Finds the experiment's module, imports it, and builds its only ExperimentConfig class.

    Args:
        experiment: a module (`a.b`) or file (`a/b.py`) below `base` or the current directory, an absolute path, or
            any of these followed by `:Class`.
        base: the directory of experiment modules.
        config_kwargs: keyword arguments for the class, as `parse_config_kwargs` reads them.

    Raises:
        ExperimentNotFoundError: no such directory, module or class.
        ExperimentConfigError: the keyword arguments cannot be read or do not fit, or the class lacks a method.
        Exception: whatever the experiment's own code raises.
    """
    kwargs = parse_config_kwargs(config_kwargs)
    config_class = load_experiment_class(experiment, base)
    _check_complete(config_class)
    sources = _source_files(config_class)
    sources[CONFIG_KWARGS_STR] = json.dumps(kwargs)
    return LoadedExperiment(_build(config_class, kwargs), sources)


def load_experiment_class(experiment: str, base: str) -> type:
    """Finds the experiment's module, imports it, and returns its only ExperimentConfig class.

    Arguments and errors are those of `load_experiment`.
    """
    name, _, class_name = experiment.partition(":")
    return _experiment_class(_import_file(find_experiment_file(name, base)), class_name)


def find_experiment_file(name: str, base: str) -> Path:
    """Returns the file that an experiment argument names.

    Raises:
        ExperimentNotFoundError: nothing of that name; the message lists the nearest names.
    """
    if not os.path.isdir(base):
        raise ExperimentNotFoundError(
            f'the experiment base "{base}" is not a directory.',
            f"--experiment_base {base}, seen from {os.getcwd()}",
            "pass the directory that holds the experiment file.",
        )
    as_path = name if name.endswith(".py") or "/" in name else name.replace(".", "/")
    # A bare name is looked for close by only: on the whole search path, "random" would be the standard library's.
    for folder in (base, os.getcwd(), *(sys.path if "/" in as_path else ())):
        for candidate in (as_path, as_path + ".py", os.path.join(as_path, "__init__.py")):
            path = Path(folder, candidate)
            if path.is_file() and path.suffix == ".py":
                return path.resolve()
    raise _not_found(name, base)


def _not_found(name: str, base: str) -> ExperimentNotFoundError:
    stem = name.removesuffix(".py").replace(".", "/").rsplit("/", 1)[-1]
    files = list(dict.fromkeys(find_python_files(base) + find_python_files(os.getcwd())))
    by_stem = {os.path.basename(path)[:-3]: path for path in reversed(files)}
    similar = [path for path in files if stem and stem in os.path.basename(path)]
    if (path := by_stem.get(stem)) is not None:  # the right name in the wrong folder
        advice = f"add -b {_from_here(os.path.dirname(path))}, or pass the path of the file:"
    else:
        advice = did_you_mean(stem, by_stem)
    if similar:
        advice += "".join(f"\n         {path}" for path in similar[:5])
    return ExperimentNotFoundError(
        f'no experiment is called "{name}".',
        f"experiment {name}, --experiment_base {base}",
        advice or "pass a module below --experiment_base, or the path of the file.",
    )


def _from_here(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def find_python_files(path: str) -> list[str]:
    """Lists Python files in `path` and below, entering only folders that look like packages."""
    found: list[str] = []
    for folder, subfolders, files in os.walk(path):
        found.extend(
            os.path.join(folder, file) for file in sorted(files) if file.endswith(".py") and file != "__init__.py"
        )
        subfolders[:] = sorted(
            sub
            for sub in subfolders
            if any(os.path.exists(os.path.join(folder, sub, mark)) for mark in ("__init__.py", "setup.py"))
        )
    return found


def module_name_of(file: Path) -> tuple[str, Path]:
    """Returns the dotted name under which `file` is imported, and the directory that must be on the search path.

    Files below the current directory are named from there, as upstream does. Others are named from the first directory
    above them that is not a package, so that worker processes can import them under the same name.
    """
    parts = file.with_suffix("").parts
    here = Path.cwd().resolve().parts
    if parts[: len(here)] == here and all(part.isidentifier() for part in parts[len(here) : -1]):
        root = Path(*here)
    else:
        root = file.parent
        while (root / "__init__.py").exists():
            root = root.parent
    names = list(file.with_suffix("").relative_to(root).parts)
    if names[-1] == "__init__" and len(names) > 1:
        names.pop()
    return ".".join(names), root


def _import_file(file: Path) -> ModuleType:
    name, root = module_name_of(file)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    imported = Path(module.__file__ or "").resolve()
    if imported != file:
        raise ExperimentNotFoundError(
            f'the experiment\'s module name "{name}" is taken by another file.',
            f"wanted {file}, Python imports {imported}",
            "rename the experiment file.",
        )
    return module


def _experiment_class(module: ModuleType, class_name: str) -> type:
    from allenact.base_abstractions.experiment_config import ExperimentConfig

    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, ExperimentConfig) and value.__module__ == module.__name__
    }
    if class_name:
        if class_name not in own:
            raise ExperimentNotFoundError(
                f'{module.__file__} defines no ExperimentConfig class "{class_name}".',
                f"classes: {', '.join(own) or 'none'}",
                did_you_mean(class_name, own),
            )
        return own[class_name]
    # A base class and the experiment derived from it may share a file: only classes that nothing derives from count.
    leaves = {name: cls for name, cls in own.items() if not any(cls in other.__mro__[1:] for other in own.values())}
    if len(set(leaves.values())) != 1:
        raise ExperimentNotFoundError(
            f"{module.__file__} must define exactly one experiment, it defines {len(leaves)}.",
            f"subclasses of ExperimentConfig defined in the file: {', '.join(leaves) or 'none'}",
            f"name one of them: {os.path.basename(str(module.__file__))}:{next(iter(leaves))}"
            if leaves
            else "define one class that derives from ExperimentConfig (imported ones do not count).",
        )
    return next(iter(leaves.values()))


def _check_complete(config_class: type) -> None:
    missing = sorted(getattr(config_class, "__abstractmethods__", ()))
    if missing:
        own = [name for cls in config_class.__mro__[:-1] for name in vars(cls) if name not in missing]
        raise ExperimentConfigError(
            f"{config_class.__name__} lacks what every experiment needs.",
            f"no {', '.join(missing)}",
            did_you_mean(missing[0], own) or "define it in the class.",
        )


def _build(config_class: type, kwargs: dict[str, Any]) -> Any:
    accepted = [*keyword_arguments(config_class)]
    unknown = [name for name in kwargs if name not in accepted]
    try:
        return config_class(**kwargs)
    except TypeError as error:  # an experiment may also take what its signature does not name
        refused = [name for name in unknown if f"unexpected keyword argument '{name}'" in str(error)]
        if not refused and not (unknown and "takes no arguments" in str(error)):
            raise
        name = (refused or unknown)[0]
        raise ExperimentConfigError(
            f'{config_class.__name__} takes no keyword argument "{name}".',
            f"--config_kwargs with {', '.join(kwargs)}",
            did_you_mean(name, accepted) or f"it accepts: {', '.join(accepted) or 'none'}.",
        ) from None


def _source_files(config_class: type) -> dict[str, str]:
    """Returns the user's files that define `config_class` and its bases, up to ExperimentConfig."""
    from allenact.base_abstractions.experiment_config import ExperimentConfig

    library = (*sys.stdlib_module_names, "builtins")
    bases = [
        cls
        for cls in config_class.__mro__
        if cls is not ExperimentConfig and cls.__module__.partition(".")[0] not in library
    ]
    return {os.path.abspath(inspect.getfile(cls)): cls.__module__ for cls in bases}


@contextmanager
def experiment_errors() -> Iterator[None]:
    """Turns an exception of the experiment's own code into an error whose traceback shows only the user's frames.

    An exception that no code of the user has a part in stays as it is.
    """
    try:
        yield
    except AllenActError as error:
        raise _with_location(error) from None
    except Exception as error:
        is_users = isinstance(error, SyntaxError) or _user_frames(traceback.extract_tb(error.__traceback__))
        if not is_users:
            raise
        trace = traceback.TracebackException.from_exception(error)
        part: traceback.TracebackException | None = trace
        while part is not None:
            part.stack = traceback.StackSummary.from_list(_user_frames(part.stack))
            part = part.__cause__ or part.__context__
        raise ExperimentConfigError(
            f"the experiment raised {type(error).__name__}: {error}",
            "its code; the traceback shows its own lines\n" + "".join(trace.format()).rstrip(),
            _advice(error),
        ) from None


def _advice(error: Exception) -> str:
    """Returns what to do about an exception of the experiment's own code."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return "mend the experiment file."
    missing = error.name.partition(".")[0]
    extra = {"minigrid": "minigrid", "networkx": "minigrid", "Box2D": "box2d", "wandb": "wandb"}.get(missing)
    if extra is not None:
        return f'pip install "allenact-gym[{extra}]", or in a clone of the repository: pip install -e ".[{extra}]"'
    if missing in ("gymnasium", "mujoco", "numpy", "torch"):
        return (
            f"this Python, {sys.executable}, is not the one that allenact-gym was installed for: in a clone of the "
            "repository, make train sets .venv up, and source .venv/bin/activate enters it."
        )
    return f'install "{missing}", or mend the import.'


def _with_location(error: AllenActError) -> AllenActError:
    """Adds the line of the experiment that led to `error`, if there is one."""
    line = user_line(error)
    if line and isinstance(error, UsageError):
        error.given = f"{error.given}\n         at {line}" if error.given else line
    return error


def user_line(error: BaseException) -> str:
    """Returns the last line of the user's code that led to `error`, with its place; empty if there is none."""
    frames = _user_frames(traceback.extract_tb(error.__traceback__))
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _user_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    return [frame for frame in stack if not frame.filename.startswith(_NOT_THE_USERS)]
