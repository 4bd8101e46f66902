"""Instances as they were written down, for the platform's own readers: no caller, no workspace, nothing left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from instances.projections.entries import Entry
from instances.search import store
from instances.search.conditions import HeldBack
from instances.search.executions import ExecutionReader
from instances.search.store import Row
from instances.store import WHOLE
from tenants.database import Database
from versions.document import Document


@dataclass(frozen=True, slots=True)
class Recorded:
    """The row of an instance as it is now, without payloads; of its journal (`instances.store.WHOLE`) what was asked
    for; its document."""

    row: Row
    entries: list[Entry]
    document: Document | None


class Recorder:
    """Reads journals."""

    def __init__(self, db: Database, reader: ExecutionReader) -> None:
        self._db = db
        self._reader = reader

    async def read(self, account_id: UUID, since: Mapping[UUID, int], read: Mapping[UUID, int]) -> list[Recorded]:
        """Instances with their journals; those that are gone are left out.

        `since`: by key, the seq from which on nothing may be missing, although it may be void by now. `read`: by key,
        the seq up to which the reader knows a journal, which then begins behind it; 0: not at all.
        """
        async with self._db.scope(account_id, transaction=True) as connection:
            rows = await store.rows(connection, account_id, list(since), HeldBack(), payloads=False)
            whole = [_beginning(row, since[row.facts.key], read.get(row.facts.key, 0)) for row in rows]
            journals = await store.entries(connection, account_id, whole, WHOLE.kinds, None)
        return [
            Recorded(row, journals[row.facts.key], await self._reader.document(account_id, row.facts.version_key))
            for row in rows
        ]


def _beginning(row: Row, since: int, read: int) -> Row:
    """The row with the seq its journal is to be read from as `live_from`."""
    if read:
        return replace(row, live_from=read + 1)
    return row if row.live_from <= since else replace(row, live_from=1)
