"""Group commit: while one statement is in flight, work accumulates; the next statement takes all of it.

No timer and no commit per item: the batch forms by itself while the previous commit is on its way. One loop owns one
connection. A statement whose outcome is unknown (lost connection) is sent again, unchanged, without end: the
statements are idempotent. One that fails for its data is halved until the culprit is alone, and only that one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from instances.engine.connections import OwnConnection
from tenants import metrics

log = structlog.get_logger(__name__)

LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InsufficientResourcesError,
)
"""The outcome is unknown or the server is away: connect anew and send the same again."""

RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Rolled back whole: send the same again on the same connection."""


class Unstorable(Exception):
    """The database refuses this one change for what is in it; trying again would not help."""


Unit = TypeVar("Unit")
Answer = TypeVar("Answer")


class CommitLoop(Generic[Unit, Answer]):
    """The loop: takes batches from `take`, commits them with `write`, hands answers to `settle`.

    `take()` gives the next batch (empty: nothing to do now); `write(connection, batch)` gives one answer per unit;
    `settle(unit, answer | exception)` is called once per unit, in order, after the commit.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Any]],
        take: Callable[[], list[Unit]],
        write: Callable[[Any, list[Unit]], Awaitable[Sequence[Answer]]],
        settle: Callable[[Unit, Any], None],
        on_resend: Callable[[list[Unit]], None] | None = None,
    ) -> None:
        self._name = name
        self._connection = OwnConnection(connect)
        self._take = take
        self._write = write
        self._settle = settle
        self._on_resend = on_resend
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._seconds = metrics.FLUSH_SECONDS.labels(name)
        self._sizes = metrics.FLUSH_ENTRIES.labels(name)

    async def start(self) -> None:
        await self._connection.open()
        self._task = asyncio.create_task(self._run(), name=f"commit-loop-{self._name}")

    async def stop(self) -> None:
        """Commit what is queued, then stop."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._idle.wait()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._connection.drop()

    def notify(self) -> None:
        """There is something to take."""
        self._idle.clear()
        self._work.set()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while batch := self._take():
                await self._commit(batch)
            if not self._work.is_set():
                self._idle.set()

    async def _commit(self, batch: list[Unit]) -> None:
        delay = 0.0
        while True:
            try:
                connection = await self._connection.get()
                began = time.perf_counter()
                answers = await self._write(connection, batch)
                self._seconds.observe(time.perf_counter() - began)
                self._sizes.observe(len(batch))
            except RETRIED:
                continue
            except LOST as error:
                delay = min(1.0, delay * 2 or 0.01)
                log.warning(
                    "commit outcome unknown, sending again", loop=self._name, error=repr(error), units=len(batch)
                )
                self._connection.drop()
                if self._on_resend is not None:
                    self._on_resend(batch)
                await asyncio.sleep(delay)
                continue
            except Exception as error:
                if len(batch) == 1:
                    # Not the error's text: it may quote the change, and changes carry secrets.
                    log.error("a change cannot be stored", loop=self._name, error=type(error).__name__)
                    unstorable = Unstorable(type(error).__name__)
                    unstorable.__cause__ = error
                    self._settle(batch[0], unstorable)
                    return
                half = len(batch) // 2
                await self._commit(batch[:half])
                await self._commit(batch[half:])
                return
            for unit, answer in zip(batch, answers, strict=True):
                self._settle(unit, answer)
            return


class _Ticket(Generic[Unit, Answer]):
    __slots__ = ("future", "resent", "unit", "weight")

    def __init__(self, unit: Unit, weight: int, future: asyncio.Future[Answer]) -> None:
        self.unit = unit
        self.weight = weight
        self.future = future
        self.resent = False


class GroupCommit(Generic[Unit, Answer]):
    """A queue of independent units in front of a :class:`CommitLoop`. `weigh` gives what a unit counts for; batches
    count for up to `max_weight`, but for a unit that is heavier alone."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Any]],
        write: Callable[[Any, list[Unit], list[bool]], Awaitable[Sequence[Answer]]],
        weigh: Callable[[Unit], int],
        *,
        max_weight: int = 1000,
        on_committed: Callable[[list[tuple[Unit, Answer]]], None] | None = None,
    ) -> None:
        self._write_units = write
        self._weigh = weigh
        self._max_weight = max_weight
        self._on_committed = on_committed
        self._queue: deque[_Ticket[Unit, Answer]] = deque()
        self._committed: list[tuple[Unit, Answer]] = []
        self._loop: CommitLoop[_Ticket[Unit, Answer], Answer] = CommitLoop(
            name, connect, self._take, self._write, self._settle, self._mark_resent
        )

    async def start(self) -> None:
        await self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def submit(self, unit: Unit) -> asyncio.Future[Answer]:
        """Queue a unit; the future has its answer after the commit."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Ticket(unit, self._weigh(unit), future))
        self._loop.notify()
        return future

    def _take(self) -> list[_Ticket[Unit, Answer]]:
        if self._committed and self._on_committed is not None:
            committed, self._committed = self._committed, []
            self._on_committed(committed)
        batch: list[_Ticket[Unit, Answer]] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= self._max_weight):
            ticket = self._queue.popleft()
            weight += ticket.weight
            batch.append(ticket)
        return batch

    async def _write(self, connection: Any, batch: list[_Ticket[Unit, Answer]]) -> Sequence[Answer]:
        return await self._write_units(connection, [t.unit for t in batch], [t.resent for t in batch])

    def _mark_resent(self, batch: list[_Ticket[Unit, Answer]]) -> None:
        for ticket in batch:
            ticket.resent = True

    def _settle(self, ticket: _Ticket[Unit, Answer], answer: Any) -> None:
        if isinstance(answer, Exception):
            if not ticket.future.done():
                ticket.future.set_exception(answer)
            return
        self._committed.append((ticket.unit, answer))
        if not ticket.future.done():
            ticket.future.set_result(answer)
