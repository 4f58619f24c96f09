"""The logger, free ports, and readable errors for optional packages."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
from types import TracebackType
from typing import TextIO

from allenact._constants import LOG_LEVELS
from allenact.utils.terminal import ERASE_BELOW, understands_control_codes

HUMAN_LOG_LEVELS = LOG_LEVELS  # the name that AllenAct has for them

_COLOURS = {
    "DEBUG": "\033[36m",
    "INFO": "\033[32m",
    "WARNING": "\033[33m",
    "ERROR": "\033[31m",
    "CRITICAL": "\033[31m",
}
_RESET = "\033[0m"


class _Formatter(logging.Formatter):
    """`[MM/DD HH:MM:SS LEVEL:] message<TAB>[file.py: line]`, the level coloured on request."""

    def __init__(self) -> None:
        super().__init__(datefmt="%m/%d %H:%M:%S")

    def format(self, record: logging.LogRecord, coloured: bool = False) -> str:
        head = f"[{self.formatTime(record, self.datefmt)} {record.levelname}:]"
        if coloured:
            head = f"{_COLOURS.get(record.levelname, '')}{head}{_RESET}"
        text = f"{head} {record.getMessage()}\t[{record.filename}: {record.lineno}]"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time, in colours if that is a terminal and NO_COLOR is not set."""

    def __init__(self) -> None:
        super().__init__()
        self._formatter = _Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream: TextIO = sys.stderr
            coloured = stream.isatty() and not os.environ.get("NO_COLOR")
            room = ERASE_BELOW if understands_control_codes(stream) else ""  # the main process may show a live block
            stream.write(f"{room}{self._formatter.format(record, coloured)}\n")
            stream.flush()
        except Exception:
            self.handleError(record)


def get_logger() -> logging.Logger:
    """Returns the package's logger; level "info" until `init_logging` sets another."""
    logger = logging.getLogger("allenact")
    if not logger.handlers:
        logger.addHandler(_StderrHandler())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    return logger


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Logs a warning the first time it is given; in the main process only, because all others would repeat it."""
    if multiprocessing.parent_process() is None and message not in _warned:
        _warned.add(message)
        get_logger().warning(message)


def init_logging(human_log_level: str = "info") -> None:
    """Sets the level of the package's logger in this process, one of `HUMAN_LOG_LEVELS`."""
    update_log_level(get_logger(), human_log_level)


def update_log_level(logger: logging.Logger, level: str) -> None:
    """Sets the level of `logger`, one of `HUMAN_LOG_LEVELS`.

    Raises:
        ValueError: there is no such level.
    """
    if level not in HUMAN_LOG_LEVELS:
        raise ValueError(f'unknown log level "{level}"; choose one of {", ".join(HUMAN_LOG_LEVELS)}')
    logger.setLevel(logging.CRITICAL + 1 if level == "none" else level.upper())


def find_free_port(address: str = "127.0.0.1") -> int:
    """Returns a TCP port that is free on `address` at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


class ImportChecker:
    """Context manager that adds advice to the error of a missing package.

    Args:
        msg: what to do when an import inside fails with `ModuleNotFoundError`.
    """

    def __init__(self, msg: str = "") -> None:
        self.msg = msg

    def __enter__(self) -> ImportChecker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, ModuleNotFoundError) and self.msg:
            raise ModuleNotFoundError(f"{error.msg}\n{self.msg}", name=error.name, path=error.path) from error
