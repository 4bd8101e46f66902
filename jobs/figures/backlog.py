"""Telling Prometheus how much is unfinished, and how long the oldest of what could run has been waiting."""

from __future__ import annotations

from instances.lifecycle import Status
from jobs.figures import store
from tenants.clock import Clock
from tenants.database import Database
from tenants.metrics import INSTANCES_UNFINISHED, QUEUE_AGE_SECONDS


class ReportBacklog:
    """Counts unfinished instances of all accounts by status. Looks at every one of them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def tick(self) -> bool:
        """One count."""
        now = self._clock.now()
        counts, oldest = await store.backlog(self._db, now)
        for status in Status:
            if not status.finished:
                INSTANCES_UNFINISHED.labels(status.wire).set(counts.get(status, 0))
        QUEUE_AGE_SECONDS.set(0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        return False
