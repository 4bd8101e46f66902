"""V8, reached through mini-racer. Everything that goes below that package's public surface is in this file.

One isolate per process. A value given to a property of the prelude's box runs the setter, and V8's microtasks after
it; reading a property does the same with the getter. So one call is one turn: when the next one begins, nothing moves.
"""

from __future__ import annotations

import ctypes
import queue
from typing import Any

VERSION = "0.14.1"
FLAGS = ("--single-threaded", "--jitless", "--max-heap-size=112", "--disallow-code-generation-from-strings")
"""No machine code is ever generated: most of what breaks out of V8 needs that."""

_BOOLEAN, _INTEGER, _DOUBLE, _STRING = 2, 3, 4, 5
_EXCEPTIONS = 200
"""Types from here on are errors: the value is their text."""


class ScriptError(Exception):
    """Source could not be compiled, or threw. The text is V8's, with the place."""


class V8:
    """An isolate. `load` once per process, before any fork; `open` once per child."""

    def __init__(self) -> None:
        self._dll: Any = None
        self._context = 0
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._callback: Any = None
        self._box: Any = None
        self._names: dict[str, Any] = {}

    def load(self) -> None:
        """Initialise V8. Starts no thread."""
        import py_mini_racer
        from py_mini_racer import _dll

        self._module = _dll
        self._dll = _dll.init_mini_racer(flags=FLAGS)
        del py_mini_racer

    def open(self) -> None:
        """Make the isolate, and the thread it runs on."""
        self._callback = self._module.MR_CALLBACK(lambda _, value: self._answers.put(value))
        self._context = self._dll.mr_init_context(self._callback)

    def close(self) -> None:
        """End the isolate and its thread."""
        for handle in (self._box, *self._names.values()):
            self._dll.mr_free_value(self._context, handle)
        self._box, self._names = None, {}
        self._dll.mr_free_context(self._context)

    def evaluate(self, source: bytes) -> Any:
        """Run a script; its value, if that is a text or a number. Raises :class:`ScriptError`."""
        handle = self._evaluate(source)
        try:
            return self._plain(handle)
        finally:
            self._dll.mr_free_value(self._context, handle)

    def bind(self, source: bytes) -> None:
        """Run a script whose value is the box. Raises :class:`ScriptError`."""
        self._box = self._evaluate(source)
        self._plain(self._box)
        for name in ("i", "more", "o"):
            self._names[name] = self._text(name.encode())

    def give(self, message: bytes) -> None:
        """Set the box's `i`, and let everything settle."""
        text = self._text(message)
        result = self._dll.mr_set_object_item(self._context, self._box, self._names["i"], text)
        self._dll.mr_free_value(self._context, text)
        self._check(result)

    def more(self) -> bool:
        """Read the box's `more`, and let everything settle."""
        return bool(self._read("more"))

    def take(self) -> bytes:
        """Read the box's `o`."""
        return self._read("o")

    def _read(self, name: str) -> Any:
        handle = self._dll.mr_get_object_item(self._context, self._box, self._names[name])
        try:
            return self._plain(handle)
        finally:
            self._dll.mr_free_value(self._context, handle)

    def _evaluate(self, source: bytes) -> Any:
        text = self._text(source)
        self._dll.mr_eval(self._context, text, 1)
        handle = self._answers.get()
        self._dll.mr_free_value(self._context, text)
        return handle

    def _text(self, text: bytes) -> Any:
        return self._dll.mr_alloc_string_val(self._context, text, len(text), _STRING)

    def _check(self, handle: Any) -> None:
        try:
            self._plain(handle)
        finally:
            self._dll.mr_free_value(self._context, handle)

    def _plain(self, handle: Any) -> Any:
        value = handle.contents
        kind = value.type
        if kind >= _EXCEPTIONS:
            raise ScriptError(ctypes.string_at(value.value.value_ptr, value.len).decode("utf-8", "replace"))
        if kind == _STRING:
            return ctypes.string_at(value.value.value_ptr, value.len)
        if kind in (_INTEGER, _BOOLEAN):
            return value.value.int_val if kind == _INTEGER else value.value.int_val & 0xFF
        return value.value.double_val if kind == _DOUBLE else None
