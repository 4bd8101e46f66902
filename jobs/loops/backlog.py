"""Telling Prometheus how much is unfinished, and how long the oldest of what could run has been waiting."""

from __future__ import annotations

from datetime import datetime

from instances.lifecycle import Status
from jobs import store
from tenants.clock import Clock
from tenants.database import Database
from tenants.metrics import INSTANCES_UNFINISHED, QUEUE_AGE_SECONDS

REST = 500
"""Counting looks at every unfinished instance: it rests for this many times as long as it took. That is half a minute
with 100,000 of them, five with a million.
"""


class ReportBacklog:
    """Counts unfinished instances of all accounts by status."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._rests_until: datetime | None = None

    async def tick(self) -> bool:
        """Count, unless the last count was too costly to repeat so soon."""
        now = self._clock.now()
        if self._rests_until is not None and now < self._rests_until:
            return False
        counts, oldest = await store.backlog(self._db, now)
        after = self._clock.now()
        self._rests_until = after + REST * (after - now)
        for status in Status:
            if not status.finished:
                INSTANCES_UNFINISHED.labels(status.wire).set(counts.get(status, 0))
        QUEUE_AGE_SECONDS.set(0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        return False
