"""One look a second for all that is rarely due.

Deadlines of instances aside (the claim sees to those), a worker has few things to do on time: jobs somebody waits for,
schedules, retention. Asking for each of them every second costs an idle platform more than everything else together.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobs.loops import store
from jobs.loops.loop import Loop
from tenants.clock import Clock
from tenants.database import Database


class LookForWork:
    """Asks which duties have something to do, in one round trip, and wakes their loops, which do it. A duty without a
    loop is another worker's.
    """

    def __init__(self, db: Database, clock: Clock, loops: Mapping[store.Duty, Loop]) -> None:
        self._db = db
        self._clock = clock
        self._loops = loops

    async def tick(self) -> bool:
        """One look."""
        for duty in await store.duties_due(self._db, self._clock.now()):
            if duty in self._loops:
                self._loops[duty].wake()
        return False
