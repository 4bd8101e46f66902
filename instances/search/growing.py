"""An execution somebody follows: only what is new of its journal is read, only the steps it is about are made anew."""

from __future__ import annotations

from dataclasses import replace

from instances.projections.execution import Execution, situation_of
from instances.projections.unfolding import Renewed, Unfolding
from instances.search import store
from instances.search.executions import Shown
from instances.search.service import Searcher
from instances.store import WHOLE
from tenants.auth import Caller
from tenants.database import Database


class Growing:
    """Begins with what was shown first; `shown` is what the last look found."""

    def __init__(self, db: Database, searcher: Searcher, caller: Caller, shown: Shown) -> None:
        self._db = db
        self._searcher = searcher
        self._caller = caller
        self._unfolding = Unfolding(shown.execution.document, shown.execution.history)
        self._unfolding.settle(shown.execution.situation)
        self.shown = shown

    async def look(self) -> list[Renewed]:
        """Look what has become of it; steps that may have changed. Raises :class:`InstanceNotFound`."""
        account_id, history = self._caller.account_id, self._unfolding.history
        row = await self._searcher.one(self._caller, self.shown.row.facts.key)
        async with self._db.scope(account_id) as connection:
            unread = [replace(row, live_from=history.last_seq + 1)]
            journals = await store.entries(connection, account_id, unread, WHOLE.kinds, None)
        for entry in journals[row.facts.key]:
            self._unfolding.heed(entry)
        situation = situation_of(row.facet, history)
        renewed = self._unfolding.settle(situation)
        told = Execution(
            facts=row.facts,
            facet=row.facet,
            situation=situation,
            history=history,
            document=self._unfolding.document,
            steps=list(self._unfolding.steps),
        )
        self.shown = Shown(row, told)
        return renewed
