"""Deleting deliveries that have outlived their time, and what endpoints that are gone leave behind."""

from __future__ import annotations

from jobs.webhooks.store import upkeep
from tenants.clock import Clock
from tenants.database import Database

BATCH = 1000


class RetireDeliveries:
    """Housekeeping. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def tick(self) -> bool:
        """One batch of each; whether more are waiting."""
        await upkeep.forget(self._db, self._clock.now())
        expired = await upkeep.expire(self._db, self._clock.now(), BATCH)
        return await upkeep.empty_deleted(self._db, BATCH) > 0 or expired == BATCH
