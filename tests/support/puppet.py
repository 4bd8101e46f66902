"""A worker played by hand: it claims and flushes when the test says so, and keeps no lease."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from instances.engine import store
from instances.engine.claims import ZERO
from instances.engine.journal_writer import Entry, Flush, Flushed, JournalWriter, Next
from instances.lifecycle import Kind
from tests.support.engine import Engine


class Puppet:
    """One connection of the engine's role and a registered worker id."""

    def __init__(self, engine: Engine, connection: Any, worker_id: int) -> None:
        self.engine = engine
        self.connection = connection
        self.worker_id = worker_id
        self._ordinals: Counter[int] = Counter()
        self._writer = JournalWriter(lambda: engine.db.dedicated("puppet"), engine.clock)

    @classmethod
    async def enter(cls, engine: Engine, *, lease: float = 1e6) -> Puppet:
        """Register, with a lease of `lease` seconds that is never renewed."""
        connection = await engine.db.dedicated("puppet")
        worker_id: int = await connection.fetchval(
            store.REGISTER, engine.clock.now(), timedelta(seconds=lease), "puppet", 1, [0], 1000
        )  # type: ignore[assignment]
        await connection.execute(store.LOCK_WORKER, store.WORKER_LOCK_CLASS, worker_id)
        puppet = cls(engine, connection, worker_id)
        engine.puppets.append(puppet)
        return puppet

    async def leave(self) -> None:
        """Close the connection, and with it the session lock."""
        if not self.connection.is_closed():
            await self.connection.close()

    async def claim(
        self, limit: int = 100, *, runtimes: Sequence[int] = (0,), after: UUID = ZERO, shunned: Sequence[UUID] = ()
    ) -> list[asyncpg.Record]:
        """Claimed rows."""
        return (await self.claim_all(limit, runtimes=runtimes, after=after, shunned=shunned))[:-1]

    async def claim_all(
        self, limit: int = 100, *, runtimes: Sequence[int] = (0,), after: UUID = ZERO, shunned: Sequence[UUID] = ()
    ) -> list[asyncpg.Record]:
        """Claimed rows and the closing row."""
        now = self.engine.clock.now()
        return await store.claim(self.connection, self.worker_id, runtimes, limit, after, shunned, now)

    async def claim_pages(self, limit: int = 100) -> int:
        """Claim, and tell how many pages that touched."""
        statement = f"explain (analyze, buffers, format json) {store.CLAIM}"
        now = self.engine.clock.now()
        plan = json.loads(await self.connection.fetchval(statement, self.worker_id, [0], limit, ZERO, [], now))[0][
            "Plan"
        ]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    async def claim_one(self) -> asyncpg.Record:
        [row] = await self.claim()
        return row

    def change(self, row: Any, next: Next = Next.KEEP, *, entries: int = 0, **fields: Any) -> Flush:
        """The next flush of a claimed run: `entries` log lines and a transition. `seen` is the claim's signal."""
        self._ordinals[row["epoch"]] += 1
        fields.setdefault("seen", row["signal"])
        fields.setdefault("parent_key", row["parent_key"])
        return Flush(
            row["account_id"],
            row["key"],
            row["epoch"],
            self._ordinals[row["epoch"]],
            self.engine.clock.now(),
            [self.entry(f"line {n}") for n in range(entries)],
            next=next,
            **fields,
        )

    def entry(self, text: str) -> Entry:
        return (int(Kind.LOG), None, None, None, self.engine.clock.now(), f'{{"level":"info","message":"{text}"}}')

    async def send(self, *flushes: Flush, connection: Any = None) -> list[Flushed]:
        """Flush in one statement, as the journal writer would."""
        return await self._writer._write(connection or self.connection, list(flushes), [])

    async def flush(self, row: Any, next: Next = Next.KEEP, **fields: Any) -> Flushed:
        [answer] = await self.send(self.change(row, next, **fields))
        return answer

    async def take_over(self, *, connection: Any = None) -> list[tuple[UUID, UUID]]:
        """Take the runs of dead workers back."""
        now = self.engine.clock.now()
        return await store.take_over(connection or self.connection, self.worker_id, timedelta(seconds=1.5), now)
