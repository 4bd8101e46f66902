"""Journals that grow while they are told of: what was read once is remembered, and only the rest is read.

Otherwise a long journal would be read from its beginning each time it has grown a little. A process that remembers
nothing of an instance, because another one read for its account, begins anew; that costs time and changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from instances.projections.entries import Entry
from instances.search.recorded import Recorder
from instances.search.store import Row
from jobs.webhooks.changes import ENTRY_WEIGHT, Changes
from tenants.limits import MIB

HELD_BYTES = 64 * MIB
"""All journals together."""
HELD_BYTES_EACH = 16 * MIB
"""Those that come to more are not remembered."""
SHORT = 50 * ENTRY_WEIGHT
"""Nor are those that come to less: they are soon read."""


@dataclass(frozen=True, slots=True)
class Grown:
    """An instance as it is now, what its journal holds beyond what `changes` has read, and `changes`."""

    row: Row
    entries: Sequence[Entry]
    changes: Changes


class Journals:
    """What is remembered by one process."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._held: OrderedDict[tuple[UUID, UUID], Changes] = OrderedDict()
        self._bytes = 0

    async def read(self, account_id: UUID, since: Mapping[UUID, int]) -> list[Grown]:
        """Instances with their journals; those that are gone are left out.

        `since`: by key, the seq from which on events are to be told. What is read is forgotten until :meth:`keep`.
        """
        known = {key: self._take(account_id, key, first) for key, first in since.items()}
        read = {key: 0 if changes is None else changes.read for key, changes in known.items()}
        return [
            Grown(one.row, one.entries, known[one.row.facts.key] or Changes(one.row, one.document))
            for one in await self._recorder.read(account_id, since, read)
        ]

    def keep(self, account_id: UUID, grown: Grown) -> None:
        """Remember a journal that was told of, if it is likely to grow on."""
        changes = grown.changes
        if grown.row.facts.status.finished or not SHORT <= changes.weight <= HELD_BYTES_EACH:
            return
        self._held[account_id, grown.row.facts.key] = changes
        self._bytes += changes.weight
        while self._bytes > HELD_BYTES:
            self._bytes -= self._held.popitem(last=False)[1].weight

    def _take(self, account_id: UUID, key: UUID, first: int) -> Changes | None:
        """What is remembered of a journal; None as well when that has come further than `first`."""
        changes = self._held.pop((account_id, key), None)
        if changes is None:
            return None
        self._bytes -= changes.weight
        return changes if changes.read < first else None
