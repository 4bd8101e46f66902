"""The log of an instance: pages of it, and following it live.

A stream holds no database connection while it waits. It ends when the instance has, when the credential is revoked,
when the instance is gone, and after an hour (clients come back with `Last-Event-ID`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec

from app.errors import MillraceError
from instances import store
from instances.lifecycle import Status
from instances.live_feed import LiveFeed
from instances.projections.log_lines import LogLine, kinds_of_level, log_lines
from instances.projections.restarts import living
from tenants.clock import Clock
from tenants.database import Database

CHUNK = 500
"""Entries read at once."""
CHUNKS_PER_PAGE = 20
"""Chunks one page may cost when most lines are below the level asked for; the page is then shorter than asked."""
HEARTBEAT = timedelta(seconds=15)
LONGEST = timedelta(minutes=60)
RETRY = b"retry: 3000\n\n"
PING = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class LogPage:
    """Log lines, oldest first. `cursor` begins the next page, None when there is none; `status` is the instance's as
    of before the lines were read, so nothing follows the last line of one that had ended. `seen`: the last entry there
    was then, whether it gave a line or not.
    """

    lines: list[LogLine]
    cursor: int | None
    status: Status
    seen: int


Voids = dict[int, frozenset[int]]
"""Seqs of the entries that restarts have made void, by run: what one restart made void does not change any more."""


class LogReader:
    """Reads logs of instances by key; whoever calls has checked that the caller may."""

    def __init__(self, db: Database, clock: Clock, feed: LiveFeed) -> None:
        self._db = db
        self._clock = clock
        self._feed = feed

    async def page(
        self, account_id: UUID, key: UUID, *, after: int, level: str, per_page: int, voids: Voids | None = None
    ) -> LogPage | None:
        """Lines after seq `after`, of `level` and above. None when the instance is gone. Who asks for page after page
        passes the same `voids`.
        """
        async with self._db.scope(account_id) as connection:
            state = await store.log_state(connection, account_id, key)
            if state is None:
                return None
            after = max(after, state.live_from - 1)
            if state.seq <= after:
                return LogPage([], None, state.status, state.seq)
            void = await void_entries(connection, account_id, key, state, {} if voids is None else voids)
            lines: list[LogLine] = []
            for _ in range(CHUNKS_PER_PAGE):
                entries = await store.log_entries(connection, account_id, key, after, kinds_of_level(level), CHUNK)
                lines += log_lines((entry for entry in entries if entry.seq not in void), level)
                if len(lines) > per_page:
                    return LogPage(lines[:per_page], lines[per_page - 1].id, state.status, state.seq)
                if len(entries) < CHUNK:
                    return LogPage(lines, None, state.status, state.seq)
                after = entries[-1].seq
        return LogPage(lines, after, state.status, state.seq)

    async def stream(
        self,
        account_id: UUID,
        key: UUID,
        *,
        after: int,
        level: str,
        still_allowed: Callable[[], Awaitable[object]],
    ) -> AsyncGenerator[bytes]:
        """Server-sent events: `log`, one per line, its id the seq; then, once the instance has ended, `end`.

        `still_allowed` raises a :class:`MillraceError` once the credential no longer holds.
        """
        begun = last_sent = self._clock.now()
        voids: Voids = {}
        yield RETRY
        async with self._feed.follow(account_id, key) as follower:
            while True:
                page = await self.page(account_id, key, after=after, level=level, per_page=CHUNK, voids=voids)
                if page is None:
                    return
                now = self._clock.now()
                if page.lines:
                    yield b"".join(_frame(line) for line in page.lines)
                    last_sent, after = now, page.lines[-1].id
                elif now - last_sent >= HEARTBEAT:
                    yield PING
                    last_sent = now
                if page.cursor is not None:
                    after = page.cursor
                    continue
                after = max(after, page.seen)
                if page.status.finished:
                    yield b'event: end\ndata: {"status":"%b"}\n\n' % page.status.wire.encode()
                    return
                if now - begun >= LONGEST:
                    return
                await follower.grown()
                try:
                    await still_allowed()
                except MillraceError:
                    return


async def void_entries(
    connection: asyncpg.Connection, account_id: UUID, key: UUID, state: store.LogState, known: Voids
) -> frozenset[int]:
    """Seqs of the entries that restarts have made void."""
    if state.run == 1:
        return frozenset()
    if state.run not in known:
        heads = await store.entry_heads(connection, account_id, key, state.live_from)
        known[state.run] = frozenset(entry.seq for entry in heads) - frozenset(entry.seq for entry in living(heads))
    return known[state.run]


def _frame(line: LogLine) -> bytes:
    return b"id: %d\nevent: log\ndata: %b\n\n" % (line.id, msgspec.json.encode(line))
