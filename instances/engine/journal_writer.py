"""The journal writer of a worker: every change of every run goes through one group commit.

A :class:`Flush` is one run's change: entries, consumed inbox rows and a transition it asks for. At most one flush of a
run is under way; SQL decides about the transition on the locked row and answers with what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from instances.engine import faults, store
from instances.engine.group_commit import GroupCommit
from tenants import metrics
from tenants.clock import Clock

Entry = tuple[int, str | None, int | None, int | None, datetime, str | None]
"""kind, name, count, attempt, at, payload (JSON text)."""

_ENDED = {
    8: metrics.INSTANCES_ENDED.labels("terminated"),
    7: metrics.INSTANCES_ENDED.labels("errored"),
    6: metrics.INSTANCES_ENDED.labels("complete"),
}

MAX_ENTRIES = 1000
BYTES_PER_ENTRY = 4096
"""Payload bytes that weigh as much as one entry, so that a batch stays below about 4 MiB."""


class Next(IntEnum):
    """The transition a flush asks for."""

    KEEP = 0
    PARK = 1
    SETTLE_PAUSE = 2
    ROLL_BACK = 3
    RELEASE = 4
    COMPLETE = 6
    ERRORED = 7
    TERMINATED = 8


@dataclass(slots=True)
class Flush:
    """One run's change."""

    account_id: UUID
    key: UUID
    epoch: int
    ordinal: int
    """Grows by one with each flush of the run within its epoch."""
    at: datetime
    entries: Sequence[Entry] = ()
    consumed: Sequence[int] = ()
    next: Next = Next.KEEP
    due: datetime | None = None
    seen: int = 0
    """The last `signal` the run knows; a park is refused when there is a newer one."""
    body: str | None = None
    """Output (complete) or error (errored) as JSON text."""
    rollback: str | None = None
    awaits: Sequence[str] = field(default_factory=tuple)
    parent_key: UUID | None = None
    given_up: Sequence[tuple[UUID, bool]] = ()
    """Children the run waits for no more: their keys, and whether they roll back before they end."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Answer to a flush. Not `accepted`: the run belongs to somebody else now. `done`: the transition took place."""

    accepted: bool
    done: bool
    want: int
    signal: int


class JournalWriter:
    """Group commit of flushes. `on_flushed` hears of (account, key) pairs whose journal grew, after the commit;
    `on_child_ended` of account and parent when a run with a parent has ended.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        clock: Clock,
        on_flushed: Callable[[list[tuple[UUID, UUID]]], None] | None = None,
        on_child_ended: Callable[[UUID, UUID], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_flushed = on_flushed
        self._on_child_ended = on_child_ended
        self._commit: GroupCommit[Flush, Flushed] = GroupCommit(
            "journal", connect, self._write, _weigh, max_weight=MAX_ENTRIES, on_committed=self._committed
        )
        self.backlog = 0
        """Flushes queued or in flight; claims stop when it is high."""

    async def start(self) -> None:
        await self._commit.start()

    async def stop(self) -> None:
        await self._commit.stop()

    def submit(self, flush: Flush) -> asyncio.Future[Flushed]:
        """Queue a flush. The future fails with :class:`~instances.engine.group_commit.Unstorable` for its data."""
        self.backlog += 1
        future = self._commit.submit(flush)
        future.add_done_callback(self._settled)
        return future

    def _settled(self, _: asyncio.Future[Flushed]) -> None:
        self.backlog -= 1

    def _committed(self, committed: list[tuple[Flush, Flushed]]) -> None:
        for flush, answer in committed:
            if not answer.accepted:
                metrics.FENCED_FLUSHES.inc()
            elif answer.done and flush.next >= Next.COMPLETE:
                _ENDED[flush.next].inc()
                if flush.parent_key is not None and self._on_child_ended is not None:
                    self._on_child_ended(flush.account_id, flush.parent_key)
        if self._on_flushed is not None:
            grown = [(f.account_id, f.key) for f, answer in committed if answer.accepted and (f.entries or f.next > 1)]
            if grown:
                self._on_flushed(grown)

    async def _write(self, connection: Any, flushes: list[Flush], _resent: list[bool]) -> list[Flushed]:
        rows = [*flushes, *_parents(flushes)]
        order = [(flush.account_id.bytes, flush.key.bytes, place) for place, flush in enumerate(rows)]
        order.sort()
        faults.point("before-flush")
        answers = await connection.fetch(store.FLUSH, *_columns([rows[place] for _, _, place in order]))
        faults.point("after-flush")
        if answers:
            self._clock.observe(answers[0]["now"])
        told: list[Any] = [None] * len(rows)
        for (_, _, place), row in zip(order, answers, strict=True):
            told[place] = Flushed(row["accepted"], row["done"], row["want"], row["signal"])
        return told[: len(flushes)]


def _weigh(flush: Flush) -> int:
    payloads = sum(len(entry[5]) for entry in flush.entries if entry[5] is not None)
    return 1 + len(flush.entries) + (payloads + len(flush.body or "")) // BYTES_PER_ENTRY


def _parents(flushes: list[Flush]) -> list[Flush]:
    """Lock-only rows for the parents of ended runs, so that one statement locks everything in one order."""
    ended = [f for f in flushes if f.next >= Next.COMPLETE and f.parent_key is not None]
    if not ended:
        return []
    own = {(f.account_id, f.key) for f in flushes}
    parents = {(f.account_id, f.parent_key) for f in ended if f.parent_key is not None} - own
    return [Flush(account, key, 0, 0, ended[0].at) for account, key in parents if key is not None]


def _columns(rows: list[Flush]) -> list[list[Any]]:
    entries: list[tuple[int, int, int, str | None, int | None, int | None, datetime, str | None]] = []
    consumed: list[tuple[int, int]] = []
    given_up: list[tuple[int, UUID, bool]] = []
    for i, flush in enumerate(rows, 1):
        for offset, entry in enumerate(flush.entries, 1):
            entries.append((i, offset, *entry))
        for no in flush.consumed:
            consumed.append((i, no))
        for child, undo in flush.given_up:
            given_up.append((i, child, undo))
    return [
        [f.account_id for f in rows],
        [f.key for f in rows],
        [f.epoch for f in rows],
        [f.ordinal for f in rows],
        [len(f.entries) for f in rows],
        [f.next for f in rows],
        [f.due for f in rows],
        [f.seen for f in rows],
        [f.body for f in rows],
        [f.rollback for f in rows],
        [",".join(f.awaits) if f.awaits else None for f in rows],
        [f.at for f in rows],
        *([list(column) for column in zip(*entries, strict=True)] if entries else [[]] * 8),
        *([list(column) for column in zip(*consumed, strict=True)] if consumed else [[]] * 2),
        *([list(column) for column in zip(*given_up, strict=True)] if given_up else [[]] * 3),
    ]
