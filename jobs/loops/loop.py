"""One duty, repeated: every interval, at once when woken or when there was more to do, and in spite of failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from jobs.metrics import LOOP_FAILURES, LOOP_SECONDS
from jobs.tasks import end

log = structlog.get_logger(__name__)

JITTER = 0.2
"""Part of the interval by which a pause is shortened at random, so that workers do not look at the same moment."""
MAX_BACKOFF = 5.0
"""Longest pause after failures, seconds: how long a database that came back waits for its duties at most."""


class Loop:
    """Repeats `tick` until stopped. `tick` does one bounded piece of work and says whether more is left.

    After a tick that left nothing the loop pauses for `interval`, or for `rest` times as long as the tick took, if that
    is longer: what looks at much may cost no more than a fixed part of a core. A tick that raises is logged and
    counted, and repeated after a growing pause: no failure ends the loop.
    """

    def __init__(
        self,
        name: str,
        tick: Callable[[], Awaitable[bool]],
        *,
        interval: float,
        rest: float = 0.0,
        chance: Callable[[], float] = random.random,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self.failures = 0
        """Ticks that failed since the last one that did not."""
        self._tick = tick
        self._interval = interval
        self._rest = rest
        self._chance = chance
        self._timer = timer
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is work now: do not wait for the interval."""
        self._woken.set()

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"loop:{self.name}")

    async def stop(self) -> None:
        """Stop now; a tick under way is cancelled, its transaction rolled back."""
        await end(self._task)
        self._task = None

    async def turn(self) -> float:
        """One tick; how long to pause before the next, in seconds."""
        began = self._timer()
        try:
            with LOOP_SECONDS.labels(self.name).time():
                more = await self._tick()
        except Exception as error:
            self.failures += 1
            LOOP_FAILURES.labels(self.name).inc()
            log.warning("loop_failed", loop=self.name, failures=self.failures, error=repr(error), exc_info=error)
            return min(MAX_BACKOFF, self._interval * 2 ** min(self.failures - 1, 10))
        self.failures = 0
        if more:
            return 0.0
        return max(self._interval * (1 - JITTER * self._chance()), self._rest * (self._timer() - began))

    async def _run(self) -> None:
        await self._pause(self._interval * self._chance())
        while True:
            self._woken.clear()
            await self._pause(await self.turn())

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
