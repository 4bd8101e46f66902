"""What a script's code may ask of the world outside its sandbox. Every request passes here, with its limits.

A call is answered by a `reply`: a value, or an error that the code catches. Calls run side by side, each a task; a run
that leaves memory drops them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import structlog

from instances.runtimes.scripts.messages import Call, Violation

log = structlog.get_logger(__name__)

MAX_PENDING = 10_000
"""Calls of one run in flight."""

Answer = Callable[[int, int, dict[str, Any]], None]
"""`answer(call, inside, {"v": …} or {"error": {name, message}})`"""
Handler = Callable[["RunFacts", Any], Awaitable[dict[str, Any]]]
"""Performs one kind of call: given the run and the decoded `args`, the reply's fields. Raises :class:`CallFailed`."""


class CallFailed(Exception):
    """The call failed in a way the code is told: an error of this name and message."""

    def __init__(self, name: str, message: str) -> None:
        self.error = {"name": name, "message": message}
        super().__init__(message)


@dataclass(slots=True)
class RunFacts:
    """What handlers may know of the run, and what they keep for it."""

    account_id: Any
    key: Any
    instance_id: str
    workflow: str
    workspace_id: Any
    request_limit: int | None = None
    """Fetches it may make."""
    requests: int = 0
    """Fetches it has made, in this life and those before."""
    requested: Callable[[int], None] = lambda _: None
    """Told of each fetch that counts: how many the run has made with it."""
    kept: dict[str, Any] = field(default_factory=dict)
    """State of handlers, by their own names: open bodies, counters."""
    closing: list[Callable[[], None]] = field(default_factory=list)
    """Called when the run leaves memory."""


class Operations:
    """The host calls of one run."""

    def __init__(
        self, facts: RunFacts, handlers: Mapping[str, Handler], cpu_ms: int, now: Callable[[], datetime]
    ) -> None:
        self.cpu_ms = cpu_ms
        """CPU time one attempt may use."""
        self.now = now
        self._facts = facts
        self._handlers = handlers
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closed = False

    def begin(self, call: Call, answer: Answer) -> None:
        """Start a call. Raises :class:`Violation` for what no prelude sends."""
        handler = self._handlers.get(call.kind)
        if handler is None or call.call in self._tasks:
            raise Violation(f"a call of kind {call.kind!r}")
        if len(self._tasks) >= MAX_PENDING:
            raise Violation(f"more than {MAX_PENDING} calls at once")
        try:
            arguments = msgspec.json.decode(call.args)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Violation("the arguments of a call are no JSON") from None
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._perform(handler, arguments, call, answer))
        self._tasks[call.call] = task
        task.add_done_callback(lambda _: self._tasks.pop(call.call, None))

    async def _perform(self, handler: Handler, arguments: Any, call: Call, answer: Answer) -> None:
        try:
            reply = await handler(self._facts, arguments)
        except CallFailed as failed:
            reply = {"error": failed.error}
        except Exception as error:
            log.exception("a call of a script failed", kind=call.kind, instance=self._facts.instance_id)
            reply = {"error": {"name": "Error", "message": f"internal error: {type(error).__name__}"}}
        answer(call.call, call.inside, reply)

    def cancel(self, call: int) -> None:
        """The code no longer wants an answer."""
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """The run leaves memory: stop everything."""
        self._closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        for close in self._facts.closing:
            close()
        self._facts.closing.clear()
        self._facts.requested = _nobody  # the session, which has these operations


def _nobody(_requests: int) -> None:
    """Hears of fetches when nobody does any more."""
