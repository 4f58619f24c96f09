"""Everything that can go wrong in words a user can act on.

Each message has three parts: what went wrong, what was given, what to do. The tree::

    AllenActError
    ├── UsageError                    exit status 2: nothing has been started
    │   ├── ExperimentNotFoundError       no such experiment module or class
    │   ├── ExperimentConfigError         the experiment, its settings or its keyword arguments are wrong
    │   ├── CheckpointError               missing, truncated, foreign or mismatching checkpoint
    │   ├── MetricsFileError              a run's metrics cannot be read, or do not hold what is asked for
    │   ├── OutputDirectoryError          the output directory cannot be written
    │   ├── UnknownEnvironmentError       no environment of that name
    │   ├── MissingExtraError             an optional dependency is not installed
    │   └── SpaceMismatchError            model and task disagree about observations or actions
    └── RunError                      exit status 1: something failed while running
        ├── TaskError                     a task or sampler broke its contract or raised
        │   └── TaskWorkerError           a sampler process died, raised or did not answer in time
        ├── NonFiniteError                NaN or infinity where a finite number is needed
        └── WorkerError                   a training, validation or test process failed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AllenActError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        what: what went wrong, in the user's words.
        given: what we were given, with the values and where they were set.
        do: what to do about it.
    """

    exit_status = 1

    def __init__(self, what: str, given: str = "", do: str = "") -> None:
        self.what, self.given, self.do = what, given, do
        super().__init__(what, given, do)  # all three are the arguments, so that pickling keeps them

    def __str__(self) -> str:
        lines = [self.what]
        if self.given:
            lines.append(f"  given: {self.given}")
        if self.do:
            lines.append(f"  do:    {self.do}")
        return "\n".join(lines)


class UsageError(AllenActError):
    """Something the user can put right before anything starts."""

    exit_status = 2


class ExperimentNotFoundError(UsageError):
    """The experiment argument names no module, or the module holds no experiment class."""


class ExperimentConfigError(UsageError):
    """The experiment was found, but what it describes cannot be run."""


class CheckpointError(UsageError):
    """A checkpoint is missing, unreadable, or does not belong to this model."""


class MetricsFileError(UsageError):
    """The metrics of a run are missing, unreadable, or do not hold what is asked for."""


class OutputDirectoryError(UsageError):
    """The output directory cannot be created or written."""


class UnknownEnvironmentError(UsageError):
    """No environment has that name."""


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed."""


class SpaceMismatchError(UsageError):
    """The model and the task disagree about the observation or the action space."""


class RunError(AllenActError):
    """Something failed while the experiment was running."""


class TaskError(RunError):
    """A task, sensor or task sampler raised or broke its contract."""


class TaskWorkerError(TaskError):
    """A process that runs task samplers died, raised, or did not answer in time."""


class NonFiniteError(RunError):
    """A number that must be finite is not."""


class WorkerError(RunError):
    """A training, validation or test process failed."""


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` candidates that look most like `name`, best first."""
    return difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns `did you mean "x"?` for the candidates nearest to `name`, else the empty string."""
    matches = nearest(name, candidates)
    return "did you mean " + " or ".join(f'"{match}"' for match in matches) + "?" if matches else ""
