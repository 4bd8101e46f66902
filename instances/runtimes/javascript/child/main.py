"""The JavaScript engine of a sandbox: V8 with the prelude, answering frames.

Runs on the other side of the wall: it imports the standard library, mini-racer and its own folder, nothing else.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any, NoReturn

import rehearsal
from engine import V8, ScriptError
from parts import Parts

MESSAGE, SOURCE = b"J", b"S"
OWN = "millrace:prelude"
"""Name of the prelude in stack traces; the prelude takes its own frames out of those it tells."""
STRIP = b'J{"op":"strip"'


class JavaScript:
    """See `Engine` in the zygote."""

    syscalls = frozenset[str]()

    def __init__(self) -> None:
        self._v8 = V8()
        self._parts = Parts(Path(__file__).parent / "web")
        self._loaded: set[str] = set()
        self._stripper = (Path(__file__).parent / "vendor" / "sucrase.js").read_bytes()
        self._strips = False

    def prepare(self) -> None:
        self._v8.load(prelude())
        self._v8.open()
        for frame in rehearsal.FRAMES:
            self._answer(rehearsal.Frame(frame))
        self._v8.close()
        self._loaded.clear()

    def open(self, limits: Any) -> None:
        # V8 has a thread of its own, and only one of the two ever runs: on one processor each turn saves two wake-ups
        # of another one.
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
        self._v8.open()

    def serve(self, frames: Any, limits: Any) -> NoReturn:
        while True:
            self._answer(frames)

    def _answer(self, frames: Any) -> None:
        """Take one frame, and answer it."""
        v8 = self._v8
        give, more, settles = v8.give, v8.more, v8.settles
        spent: list[int] = []
        errors: list[bytes] = []
        before = _cpu()
        while (part := frames.next_part()) is not None:
            try:
                if part[:1] == MESSAGE:
                    if part.startswith(STRIP):
                        self._bring_stripper()
                    give(part[1:])
                elif part[:1] == SOURCE:
                    self._module(part[1:])
                while not settles and more():
                    pass
            except ScriptError as error:
                errors.append(_load_failed(part, error))
            after = _cpu()
            spent.append(after - before)
            before = after
        answer = v8.take()  # {"state": …, "out": [ … ]}
        if errors:
            empty = answer.endswith(b'"out":[]}')
            answer = answer[:-2] + (b"" if empty else b",") + b",".join(errors) + b"]}"
        frames.reply(b'{"cpu":' + json.dumps(spent).encode() + b"," + answer[1:])

    def _bring_stripper(self) -> None:
        """What takes types out of TypeScript: much code, which only sandboxes of uploads ever need."""
        if not self._strips:
            self._strips = True
            self._v8.evaluate(self._stripper)

    def _module(self, part: bytes) -> None:
        header, _, source = part.partition(b"\n")
        for name in self._parts.wanted(source):
            if name not in self._loaded:
                self._loaded.add(name)
                self._v8.evaluate(b"__module=" + self._parts.source(name))
                self._v8.give(b'{"op":"part"}')
        self._v8.evaluate(b"__module=" + source)
        self._v8.give(json.dumps({"op": "module", "name": json.loads(header)["module"]}).encode())


def prelude() -> bytes:
    """The prelude's files as one script, in the order of their names. It leaves `__begin`, see `BEGIN`."""
    folder = Path(__file__).parent / "prelude"
    text = "\n".join(path.read_text() for path in sorted(folder.rglob("*.js")))
    return f'globalThis.__begin = (() => {{ "use strict";\n{text}\nreturn begin; }})();\n//# sourceURL={OWN}'.encode()


def _load_failed(part: bytes, error: ScriptError) -> bytes:
    """A module that V8 does not take."""
    text = str(error)
    message = {"op": "load_failed", "error": {"name": "SyntaxError", "message": text[:2000]}}
    if part[:1] == SOURCE:
        message["module"] = json.loads(part[1:].partition(b"\n")[0])["module"]
    return json.dumps(message).encode()


def _cpu() -> int:
    """CPU microseconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1_000_000)


def engine() -> JavaScript:
    """For the zygote."""
    return JavaScript()
