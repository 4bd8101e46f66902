"""A worker's lease: one row, renewed on a connection of its own, and a session lock that a crash frees at once.

Hot rows carry only the worker's id; renewing costs one statement however many runs are held.

Who lost the lease cannot write. But it may do: a process that was frozen in the middle of a commit hears, when it goes
on, that what it wrote is stored, and would begin the next step, which another worker may have done by then. So nothing
is begun while the lease may be over (:meth:`Lease.trust`).
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

from instances.engine import store
from instances.engine.group_commit import LOST
from tenants.clock import Clock
from tenants.database import Database

TRUSTED = 5 / 6
"""Part of the time after which others take over in which a worker is sure of its lease: clocks differ a little."""


class Lease:
    """The right of one process to hold runs."""

    def __init__(
        self, db: Database, clock: Clock, seconds: float, silent: float, description: tuple[str, int, list[int], int]
    ) -> None:
        """It lasts `seconds` after each renewal; with the session lock gone, too, only `silent` seconds."""
        self._db = db
        self._clock = clock
        self._length = timedelta(seconds=seconds)
        self._silent = timedelta(seconds=silent)
        self._description = description
        self._connection: Any = None
        self._epoch = 0
        self._renewed_at = clock.now()
        self._renewed_on: Any = None
        self._renewals = asyncio.Condition()
        self._doubted = asyncio.Event()
        self.worker_id = 0

    @property
    def certain(self) -> bool:
        """Whether nobody can have taken the lease away."""
        whole = (
            self._connection is self._renewed_on and self._connection is not None and not self._connection.is_closed()
        )
        return self._clock.now() - self._renewed_at < (self._length if whole else self._silent) * TRUSTED

    async def trust(self) -> None:
        """Returns when the lease is certain; if it is not, it is renewed at once. A lost one never is again."""
        while not self.certain:
            self._doubted.set()
            async with self._renewals:
                await self._renewals.wait()

    async def rest(self) -> None:
        """Returns when it is time to renew."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._length.total_seconds() / 6):
                await self._doubted.wait()
        self._doubted.clear()

    async def acquire(self) -> None:
        """Register as a new worker; an id is never used again."""
        connection = await self._connect()
        self._clock.observe(await connection.fetchval("select clock_timestamp()"))
        now = self._clock.now()
        row = await connection.fetchrow(store.REGISTER, now, self._length, *self._description)
        self.worker_id, self._epoch = row["id"], row["epoch"]
        await connection.execute(store.LOCK_WORKER, store.WORKER_LOCK_CLASS, self.worker_id)
        await self._renewed(now)

    async def renew(self) -> list[Any] | None:
        """Renew, then read the rows this worker owns. None: the lease was taken away, every run with it."""
        try:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await self._connect()
                await connection.execute(store.LOCK_WORKER, store.WORKER_LOCK_CLASS, self.worker_id)
            now = self._clock.now()
            row = await connection.fetchrow(store.RENEW, self.worker_id, self._epoch, now, self._length)
            if row is None:
                return None
            await self._renewed(now)
            self._clock.observe(row["now"])
            return await connection.fetch(store.HELD, self.worker_id)
        except LOST:
            self._terminate()
            raise

    async def _renewed(self, at: datetime) -> None:
        self._renewed_at, self._renewed_on = at, self._connection
        async with self._renewals:
            self._renewals.notify_all()

    async def release(self) -> None:
        """Give the lease up; runs still held are taken over at once."""
        if self._connection is not None and not self._connection.is_closed():
            with contextlib.suppress(Exception):
                await self._connection.execute(store.RETIRE, self.worker_id, self._epoch)
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=2)
        self._connection = None

    async def _connect(self) -> Any:
        self._terminate()
        self._connection = await self._db.dedicated("millrace-lease")
        return self._connection

    def _terminate(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()
