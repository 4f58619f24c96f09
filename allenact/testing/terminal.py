"""A terminal in memory, with the few control codes that progress displays use."""

from __future__ import annotations

import io
import re

_TOKEN = re.compile(r"\033\[([\d;]*)([A-Za-z])|(\r?\n)|(\r)|([^\033\r\n]+)")


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, of any height and width.

    Attributes:
        lines: what it shows, without colours; the cursor may be anywhere.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._row = self._column = 0

    def isatty(self) -> bool:
        """Returns True."""
        return True

    def write(self, text: str) -> int:
        """Shows `text`."""
        for number, command, newline, carriage_return, plain in _TOKEN.findall(text):
            if newline:
                self._row, self._column = self._row + 1, 0
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif carriage_return:
                self._column = 0
            elif command == "A":
                self._row = max(self._row - int(number or 1), 0)
            elif command == "J":
                self.lines[self._row :] = [self.lines[self._row][: self._column]]
            elif plain:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + plain + line[self._column + len(plain) :]
                self._column += len(plain)
        return super().write(text)
