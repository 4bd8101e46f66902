"""Keeping sums small and means current: counters of finished instances, durations of document nodes."""

from __future__ import annotations

from jobs.figures import store
from tenants.database import Database

CROWDED = 8
"""Rows of one counter that are worth folding."""
FOLDS = 200
CURSOR = "node_statistics"
FEED_ROWS = 100
WINDOW = 50
"""A node's mean duration is that of about its last fifty runs."""


class FoldCounters:
    """Folds counters that many writers have spread over many rows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tick(self) -> bool:
        """One batch; whether more are waiting."""
        return await store.fold_counters(self._db, CROWDED, FOLDS) == FOLDS


class MeasureNodes:
    """Takes durations of completed document steps from the feed into `node_statistics` (estimated completion)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._opened = False

    async def tick(self) -> bool:
        """A sample of what happened since the last look. Never more at once: a sample is enough."""
        if not self._opened:
            await store.open_cursor(self._db, CURSOR)
            self._opened = True
        await store.measure_nodes(self._db, CURSOR, FEED_ROWS, WINDOW)
        return False
