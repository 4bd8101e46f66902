"""What code prints and logs, as the run's log: of the run and the step whose code it is."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from books import Life, current, post
from values import clean, text_of

LINE = 8192
MAX_LINES = 10_001
_UNFINISHED = 64 * 1024


def say(level: str, text: str) -> None:
    """One entry of the log."""
    place = current.get()
    life = place.life
    if life is None or life.dropped or life.lines >= MAX_LINES:
        return
    life.lines += 1
    post({"op": "log", "r": life.number, "level": level, "message": clean(text, LINE), "inside": place.step})


class Console(io.TextIOBase):
    """Standard output or error. What ends with a line feed is an entry, however many lines it has."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, level: str) -> None:
        self._level = level

    def writable(self) -> bool:
        return True

    def write(self, text: Any, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        place = current.get()
        life = place.life
        if life is None or life.lines >= MAX_LINES:
            return len(text)
        key = (place.step, self._level)
        line = life.unfinished.pop(key, "") + text
        if line.endswith("\n"):
            say(self._level, line[:-1])
        elif len(line) > _UNFINISHED:
            say(self._level, line)
        elif line:
            life.unfinished[key] = line
        return len(text)


def finish(life: Life, step: int) -> None:
    """Say what was written without a line's end."""
    for level in ("info", "error"):
        text = life.unfinished.pop((step, level), "")
        if text:
            say(level, text)


_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))


def install() -> None:
    """Replace the standard streams, and have `logging` keep its levels when it writes to them."""
    sys.stdout = sys.__stdout__ = Console("info")
    sys.stderr = sys.__stderr__ = Console("error")
    emit = logging.StreamHandler.emit

    def emitted(self: Any, record: logging.LogRecord) -> None:
        if not isinstance(self.stream, Console):
            emit(self, record)
            return
        try:
            text = self.format(record)
        except Exception as error:
            text = f"(a record that cannot be formatted: {text_of(error)})"
        say(next((name for least, name in _LEVELS if record.levelno >= least), "debug"), text)

    logging.StreamHandler.emit = emitted  # type: ignore[method-assign]
    logging.raiseExceptions = False
