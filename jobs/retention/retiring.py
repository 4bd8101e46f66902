"""Deleting what has outlived its time: finished instances, and rows of short-lived kinds."""

from __future__ import annotations

from typing import Protocol

from jobs.metrics import INSTANCES_RETIRED
from jobs.retention import store
from tenants.clock import Clock
from tenants.database import Database

BATCH = 1000
ENTRIES = 50_000
"""Journal entries one transaction removes, about; it must stay well below a second, or live streams lag."""


class RetireInstances:
    """Deletes finished instances whose retention is over. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def tick(self) -> bool:
        """One batch; whether more are waiting."""
        retired, more = await store.retire_instances(self._db, self._clock.now(), BATCH, ENTRIES)
        INSTANCES_RETIRED.inc(retired)
        return more and retired > 0


class Forgetful(Protocol):
    """A package that deletes its own outlived rows (`tenants.service.TenantService`)."""

    async def forget_expired(self, limit: int = 1000) -> int:
        """Delete up to `limit` rows per kind; how many went."""
        ...


class ExpireRows:
    """Deletes rows nobody needs any more: of the feed, finished jobs, idempotency keys, sessions, tickets, audit."""

    def __init__(self, db: Database, clock: Clock, tenants: Forgetful) -> None:
        self._db = db
        self._clock = clock
        self._tenants = tenants

    async def tick(self) -> bool:
        """One batch of each kind; whether more may be waiting."""
        gone = await store.expire(self._db, self._clock.now(), BATCH)
        forgotten = await self._tenants.forget_expired(BATCH)
        return forgotten >= BATCH or any(count == BATCH for count in gone.values())
