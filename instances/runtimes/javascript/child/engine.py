"""V8, reached through mini-racer. Everything that goes below that package's public surface is in this file.

One isolate per process. A value given to a property of the prelude's box runs the setter, and V8's microtasks after
it; reading a property does the same with the getter. So one call is one turn: when the next one begins, nothing moves.
"""

from __future__ import annotations

import ctypes
import os
import queue
from pathlib import Path
from typing import Any

import snapshot

VERSION = "0.14.1"
FLAGS = (
    "--single-threaded",
    "--jitless",
    "--max-heap-size=112",
    "--disallow-code-generation-from-strings",
    "--no-flush-bytecode",
)
"""No machine code is ever generated: most of what breaks out of V8 needs that. What has been compiled stays so: the
prelude could not be compiled again (see :mod:`snapshot`)."""
BEGIN = b"{ const begin = __begin; delete globalThis.__begin; begin(); }"
"""What makes the box of the prelude."""

_BOOLEAN, _INTEGER, _DOUBLE, _STRING = 2, 3, 4, 5
_EXCEPTIONS = 200
"""Types from here on are errors: the value is their text."""
_TURNS = 50


class ScriptError(Exception):
    """Source could not be compiled, or threw. The text is V8's, with the place."""


class V8:
    """An isolate with the prelude in it. `load` once per process, before any fork; `open` once per child."""

    def __init__(self) -> None:
        self.settles = False
        """Whether `give` lets everything settle and hands all of a past over, so that `more` need not be asked."""
        self._dll: Any = None
        self._context = 0
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._callback: Any = None
        self._box: Any = None
        self._names: dict[str, Any] = {}
        self._prelude = b""
        self._snapshot: Any = None

    def load(self, prelude: bytes, *, snapshots: bool = True) -> None:
        """Initialise V8 for contexts in which `prelude`, a script, has run. Starts no thread.

        The prelude is in V8's snapshot, or, where none can be made or without `snapshots`, run in each context.
        """
        from py_mini_racer import _dll

        self._module = _dll
        self._prelude = prelude
        if snapshots and (made := self._make_snapshot()) is not None:
            self._use_snapshot(made)
        self._dll = _dll.init_mini_racer(flags=FLAGS)
        if self._snapshot is not None:
            snapshot.share_read_only_heap(self._library())
        self._warm_up()

    def _warm_up(self) -> None:
        """Do what V8 does once per process, so that no child has to: the first isolate takes longer than all others.
        And the first thread that has to wait for a lock finds out how fast the clock is, which takes 3 ms of sleep: on
        one processor, threads that take turns come to that soon."""
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        self.open()
        for _ in range(_TURNS):
            self.take()
        self.close()
        os.sched_setaffinity(0, processors)

    def _make_snapshot(self) -> bytes | None:
        """A snapshot that has been tried out."""
        assert snapshot.NO_CHECKPOINT in self._prelude
        script = self._prelude.replace(snapshot.NO_CHECKPOINT, snapshot.CHECKPOINT)
        self._library()  # once, not in each of the processes

        def make() -> bytes:
            return snapshot.make(self._module.init_mini_racer(flags=(*FLAGS, *snapshot.FLAGS)), script)

        def try_out() -> bytes:
            assert made is not None
            self._use_snapshot(made)
            self._dll = self._module.init_mini_racer(flags=FLAGS)
            snapshot.share_read_only_heap(self._library())
            self.open()
            return self.take()

        made = snapshot.apart(make)
        return made if made is not None and snapshot.apart(try_out) == b'{"state":{},"out":[]}' else None

    def _use_snapshot(self, made: bytes) -> None:
        self._snapshot = snapshot.install(self._library(), made)
        self.settles = True

    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(Path(self._module.__file__).parent / "libmini_racer.so"))

    def open(self) -> None:
        """Make the isolate, and the thread it runs on."""
        self._callback = self._module.MR_CALLBACK(lambda _, value: self._answers.put(value))
        self._context = self._dll.mr_init_context(self._callback)
        if self._snapshot is None:
            self.evaluate(self._prelude)
        self._box = self._evaluate(BEGIN)
        self._plain(self._box)
        for name in ("i", "more", "o"):
            self._names[name] = self._text(name.encode())

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

    def give(self, message: bytes) -> None:
        """Set the box's `i`, and let everything settle. Unless it `settles`, ask for `more` until there is none."""
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
