"""The Python engine of a sandbox: an interpreter whose event loop answers frames.

Runs on the other side of the wall: it imports the standard library and its own folder, nothing else.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import resource
import sys
import types
from pathlib import Path
from typing import Any, NoReturn

import books
import chance
import console
import entry
import library
import runs
import steps
import turns
import values
import workers_api

MESSAGE, SOURCE = b"J", b"P"
_RECURSION = 1000
_OWN = tuple(path.stem for path in Path(__file__).parent.glob("*.py"))
_ZYGOTE = ("attempts", "boot", "control", "frames", "lockdown", "seccomp", "syscalls", "zygote", "__main__")


class Python:
    """See `Engine` in the zygote."""

    syscalls = frozenset[str]()

    def __init__(self) -> None:
        self._library: library.Library

    def prepare(self) -> None:
        library.load()
        chance.install()
        console.install()
        workers_api.install()
        self._library = library.Library()

    def open(self, limits: Any) -> None:
        """Nothing: everything is in the zygote."""

    def serve(self, frames: Any, limits: Any) -> NoReturn:
        self._library.close_library((*_OWN, *_ZYGOTE))
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.setrecursionlimit(_RECURSION)
        conversation = _Conversation(frames, self._library)
        asyncio.set_event_loop(conversation.loop)
        while True:
            try:
                conversation.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # of a task that nobody awaits: it ended itself, not the process


class _Conversation:
    """Frame by frame, part by part: the next part is taken when nothing of the last one moves any more."""

    def __init__(self, frames: Any, modules: library.Library) -> None:
        self.loop = turns.TurnLoop(self._advance)
        self._frames = frames
        self._library = modules
        self._refused = False
        self._working = False
        self._before = 0
        self._spent: list[int] = []
        self._served: books.Life | None = None
        """Whose past may have something to hand over."""
        self._touched: dict[int, books.Life] = {}

    def _advance(self) -> None:
        """Go on until something is ready to run."""
        while self.loop.idle:
            if self._served is not None and steps.hand_over(self._served):
                continue
            if self._working:
                self._count_cpu()
            part = self._frames.next_part()
            if part is None:
                self._working = False
                self._reply()
                continue
            if not self._working:
                self._before = _cpu()
                self._working = True
            self._deliver(part)

    def _count_cpu(self) -> None:
        after = _cpu()
        self._spent.append(after - self._before)
        self._before = after

    def _deliver(self, part: bytes) -> None:
        self._served = None
        if part[:1] == SOURCE:
            self._add_module(part[1:])
            return
        message = json.loads(part[1:])
        if message["op"] == "load":
            if not self._refused:
                context = contextvars.copy_context()
                books.post(context.run(entry.load, self._library, message))
            return
        try:
            life = runs.handle(self.loop, message)
        except Exception as error:  # the run's part of the books is broken, or memory is short
            life = books.lives.get(message["r"])
            books.post({"op": "throw", "r": message["r"], "error": values.told(error, leaving=True)})
        if life is not None and not life.dropped:
            self._served = self._touched[life.number] = life

    def _add_module(self, part: bytes) -> None:
        header, _, source = part.partition(b"\n")
        path = json.loads(header)["module"]
        try:
            self._library.add_source(path, source.decode("utf-8", "surrogatepass"))
        except library.ModuleRefused as error:
            if not self._refused:
                books.post(entry.load_failed(error, self._library) | {"module": path})
            self._refused = True

    def _reply(self) -> None:
        state = {
            str(life.number): [life.active, life.outside, life.inside]
            for life in self._touched.values()
            if not life.dropped
        }
        answer = {"state": state, "cpu": self._spent, "out": books.outbox}
        self._frames.reply(_encode(answer))
        self._spent, self._touched = [], {}
        books.outbox.clear()


_plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def _encode(answer: Any) -> bytes:
    text = _plain.encode(answer)
    try:
        return text.encode()
    except UnicodeEncodeError:  # surrogates: pairs become what they stand for, others cannot be kept
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _cpu() -> int:
    """CPU microseconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1_000_000)


def engine() -> Python:
    """For the zygote."""
    return Python()
