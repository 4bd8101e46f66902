"""A worker's lease: one row, renewed on a connection of its own, and a session lock that a crash frees at once.

Hot rows carry only the worker's id; renewing costs one statement however many runs are held.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

from instances.engine import store
from instances.engine.group_commit import LOST
from tenants.clock import Clock
from tenants.database import Database


class Lease:
    """The right of one process to hold runs."""

    def __init__(
        self, db: Database, clock: Clock, seconds: float, description: tuple[str, int, list[int], int]
    ) -> None:
        self._db = db
        self._clock = clock
        self._length = timedelta(seconds=seconds)
        self._description = description
        self._connection: Any = None
        self._epoch = 0
        self.worker_id = 0

    async def acquire(self) -> None:
        """Register as a new worker; an id is never used again."""
        connection = await self._connect()
        self._clock.observe(await connection.fetchval("select clock_timestamp()"))
        row = await connection.fetchrow(store.REGISTER, self._clock.now(), self._length, *self._description)
        self.worker_id, self._epoch = row["id"], row["epoch"]
        await connection.execute(store.LOCK_WORKER, store.WORKER_LOCK_CLASS, self.worker_id)

    async def renew(self) -> list[Any] | None:
        """Renew, then read the rows this worker owns. None: the lease was taken away, every run with it."""
        try:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await self._connect()
                await connection.execute(store.LOCK_WORKER, store.WORKER_LOCK_CLASS, self.worker_id)
            row = await connection.fetchrow(store.RENEW, self.worker_id, self._epoch, self._clock.now(), self._length)
            if row is None:
                return None
            self._clock.observe(row["now"])
            return await connection.fetch(store.HELD, self.worker_id)
        except LOST:
            self._terminate()
            raise

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
