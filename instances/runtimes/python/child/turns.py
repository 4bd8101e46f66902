"""The event loop: it runs what is ready, and where others would wait for the kernel it ends the part of the frame.

There are no file descriptors and no timers of its own: `call_later` asks the worker, which holds the clock.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, NoReturn

from books import GLOBAL_SCOPE, Place, cancel_call, current, place_call
from chance import loop_time

MAX_MS = 2**31


class TurnLoop(asyncio.BaseEventLoop):
    """`advance` is called when nothing is ready; when it returns, something is."""

    _ready: Any
    _stopping: bool

    def __init__(self, advance: Callable[[], None]) -> None:
        super().__init__()
        self._advance = advance
        self._timers: dict[int, int] = {}
        """Numbers of calls, by handle (by identity: handles of equal times compare equal)."""
        self.set_task_factory(_task)
        # Whether an exception was retrieved is found out when garbage is collected: at no particular time.
        self.set_exception_handler(lambda loop, context: None)

    @property
    def idle(self) -> bool:
        return not self._ready

    def _run_once(self) -> None:
        """One pass: what is ready when it begins. (The original asks for events and for the time, too; there are no
        events, and the time is asked for by whoever wants it.)"""
        ready = self._ready
        if not ready and not self._stopping:
            self._advance()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def _write_to_self(self) -> None:
        """Nobody else could wake it."""

    def time(self) -> float:
        return loop_time()

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        place: Place = context.get(current, current.get()) if context is not None else current.get()
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]

        def fire(_: dict[str, Any]) -> None:
            self._timers.pop(id(handle), None)
            self._ready.append(handle)

        milliseconds = min(max(delay * 1000, 0), MAX_MS)
        self._timers[id(handle)] = place_call("timer", {"ms": milliseconds}, place, fire)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        number = self._timers.pop(id(handle), None)
        if number is not None:
            cancel_call(number)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        raise RuntimeError("there are no threads here (asyncio.to_thread, run_in_executor): call the function itself")


def _task(loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    """Tasks are known to their run, which takes them along when it is forgotten."""
    place: Place = context.get(current, current.get()) if context is not None else current.get()
    if place.life is None:
        coro.close()
        raise RuntimeError(GLOBAL_SCOPE)
    task = asyncio.Task(coro, loop=loop, context=context)
    tasks = place.life.tasks
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
