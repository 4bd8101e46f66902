"""What was looked up a moment ago, so that authentication runs at memory speed and yet never lags behind much."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from tenants.clock import Clock

CACHE_TIME = timedelta(seconds=0.5)
"""How long an answer is used again: a change in the database counts within a second in every process."""
CACHE_ENTRIES = 10_000

V = TypeVar("V")


class Remembered(Generic[V]):
    """Answers by key. Only what was found is remembered; what was not is asked for again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[datetime, V]] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[V | None]] = {}

    async def get(self, key: bytes, find: Callable[[], Awaitable[V | None]]) -> V | None:
        """What `find` says about `key`, at most `CACHE_TIME` old. However many wait for a key, one of them asks."""
        known = self._found.get(key)
        if known is not None and self._clock.now() - known[0] <= CACHE_TIME:
            return known[1]
        task = self._looking.get(key)
        if task is None:
            task = self._looking[key] = asyncio.create_task(self._ask(key, find))
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Drop everything: after a change made in this process, nothing stale is left here."""
        self._found.clear()
        self._looking.clear()

    async def _ask(self, key: bytes, find: Callable[[], Awaitable[V | None]]) -> V | None:
        started = self._clock.now()  # what is remembered ages from before the query, not from its answer
        value = await find()
        if value is not None and asyncio.current_task() is self._looking.get(key):
            self._found[key] = (started, value)
            self._found.move_to_end(key)
            while len(self._found) > CACHE_ENTRIES:
                self._found.popitem(last=False)
        return value

    def _asked(self, key: bytes, task: asyncio.Task[V | None]) -> None:
        if self._looking.get(key) is task:
            del self._looking[key]
        if not task.cancelled():
            task.exception()  # every waiter has gone: nobody else would collect it
