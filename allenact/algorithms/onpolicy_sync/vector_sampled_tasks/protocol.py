"""The commands that task samplers and their tasks understand, and how messages cross a pipe."""

from __future__ import annotations

import pickle
import traceback
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from allenact.errors import AllenActError, ExperimentConfigError

STEP_COMMAND = "step"
NEXT_TASK_COMMAND = "next_task"
RENDER_COMMAND = "render"
CLOSE_COMMAND = "close"
OBSERVATION_SPACE_COMMAND = "observation_space"
ACTION_SPACE_COMMAND = "action_space"
CALL_COMMAND = "call"
SAMPLER_COMMAND = "call_sampler"
ATTR_COMMAND = "attr"
SAMPLER_ATTR_COMMAND = "sampler_attr"
RESET_COMMAND = "reset"
SEED_COMMAND = "seed"
PAUSE_COMMAND = "pause"
RESUME_COMMAND = "resume"

COMPLETE_TASK_METRICS_KEY = "__AFTER_TASK_METRICS__"
"""Where `RLStepResult.info` holds the metrics of the episode that this step ended."""

COMPLETE_TASK_CALLBACK_KEY = "__AFTER_TASK_CALLBACK__"
"""Where `RLStepResult.info` holds what the callback sensors saw of that episode."""

DEFAULT_MP_CONTEXT_TYPE = "forkserver"


def answer(command: str, data: Any, target: Any) -> Any:
    """Carries out the commands that read from a task or a sampler, or call a method of it.

    Args:
        command: one of the constants of this module.
        data: a name (attributes), a name and a list of positional arguments (calls), positional and keyword
            arguments (render), or None.
        target: the sampler for `SAMPLER_COMMAND` and `SAMPLER_ATTR_COMMAND`, else its task.
    """
    match command:
        case "observation_space" | "action_space":
            return getattr(target, command)
        case "attr" | "sampler_attr":
            return getattr(target, data)
        case "call" | "call_sampler":
            name, args = (data, None) if isinstance(data, str) else data
            return getattr(target, name)(*(args or ()))
        case "render":
            args, kwargs = data or ((), {})
            try:
                return target.render("rgb", *args, **kwargs)
            except Exception as error:  # an answer: a task that cannot be drawn can still be stepped
                return Failure.of(error)
    raise NotImplementedError(f"task samplers do not understand the command {command!r}")


Request = tuple[str, tuple[Any, ...]]
"""A method of the worker (see `worker._Server`) and its positional arguments."""


class Failure(NamedTuple):
    """What a worker sends when answering raised."""

    traceback: str
    error: AllenActError | None  # given where the error already says what, given and do

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describes `error`, which is being handled."""
        return cls("".join(traceback.format_exception(error)), error if isinstance(error, AllenActError) else None)


# Messages are pickled here rather than by `Connection.send`: with torch loaded, that one would move every tensor to a
# shared memory file of its own.


def send(connection: Connection, message: Any) -> None:
    """Writes one message to the pipe."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def pickled(message: Any, name: str, problem: str, do: str) -> bytes:
    """Returns a message as bytes.

    Args:
        message: what to pickle.
        name: what the error names as given.
        problem: first sentence of the error.
        do: what to do about it.

    Raises:
        ExperimentConfigError: it cannot be pickled.
    """
    try:
        return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # pickle calls code of what it meets
        raise ExperimentConfigError(problem, f"{name}: {type(error).__name__}: {error}", do) from error


def can_be_pickled(message: Any) -> bool:
    """Whether `pickled` would return."""
    try:
        pickle.dumps(message)
    except Exception:  # pickle calls code of what it meets
        return False
    return True


def receive(connection: Connection) -> Any:
    """Reads one message from the pipe; EOFError or ConnectionResetError if the other side is gone."""
    return pickle.loads(connection.recv_bytes())
