"""Executions of pages, kept until there is news of them: lists are asked for again and again, and most of what they
show has ended or waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from instances.projections.entries import Entry
from instances.projections.execution import Execution, situation_of
from instances.search.store import Row
from instances.store import Detail

HELD_BYTES = 64 * 1024 * 1024
"""What the executions kept in a process may take together, about."""
_PER_ENTRY = 1_000
"""Bytes that an entry of a journal takes as part of an execution and of what faces made of it, besides its payload."""
_COPIES = 3
"""How often its payload is there: in the execution, and in what two faces made of it."""


@dataclass(frozen=True, slots=True)
class _Kept:
    execution: Execution
    last_seq: int
    detail: Detail
    size: int


class RememberedExecutions:
    """The executions shown last, by account and key. A journal only grows, and its last `seq` is part of the row: as
    long as that is the same, so is what was made of it. They are shared: nobody may change them.
    """

    def __init__(self, most: int = HELD_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[UUID, UUID], _Kept] = OrderedDict()
        self._size = 0

    def find(self, account_id: UUID, row: Row, detail: Detail) -> Execution | None:
        """The execution of the row, if it was kept with its journal read in that detail and up to the same entry."""
        known = (account_id, row.facts.key)
        kept = self._kept.get(known)
        if kept is None or kept.last_seq != row.last_seq or kept.detail is not detail:
            return None
        told = kept.execution
        if situation_of(row.facet, told.history) is not told.situation:
            return None
        self._kept.move_to_end(known)
        return replace(told, facts=row.facts, facet=row.facet)

    def keep(self, account_id: UUID, row: Row, detail: Detail, entries: Sequence[Entry], execution: Execution) -> None:
        """Keep what was made of these entries; of others as few as that takes are dropped, the longest unseen first."""
        known = (account_id, row.facts.key)
        before = self._kept.pop(known, None)
        if before is not None:
            self._size -= before.size
        size = sum(_PER_ENTRY + _COPIES * len(entry.payload or "") for entry in entries)
        if size > self._most:
            return
        self._kept[known] = _Kept(execution, row.last_seq, detail, size)
        self._size += size
        while self._size > self._most:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size
