"""Who follows what, and one look per second for all of them together.

News come over Redis (`instances.live_feed`); the look makes up for lost ones. An idle follower costs its place in one
query, no timer and no query of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from instances.following import store
from instances.following.store import Mark
from instances.live_feed import Follower, LiveFeed
from tenants.database import Database

LOOK = 1.0
"""Seconds between two looks at everything followed."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Watched:
    """One follower's subject, and how far it has read: a seq of an instance, or a mark in a workflow's feed."""

    account_id: UUID
    subject: UUID
    read: int | Mark
    follower: Follower

    async def grown(self) -> None:
        """Return when there may be more to read."""
        await self.follower.grown(None)


class Watcher:
    """Wakes followers. One per process; `stop` it at the end."""

    def __init__(self, db: Database, feed: LiveFeed) -> None:
        self._db = db
        self._feed = feed
        self._watched: set[Watched] = set()
        self._looking: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None

    @asynccontextmanager
    async def watch(self, account_id: UUID, subject: UUID, read: int | Mark) -> AsyncIterator[Watched]:
        """Watch an instance (`read` a seq) or a workflow (`read` a mark): enter, read, then wait for `grown`."""
        every = None if isinstance(read, Mark) else subject
        async with self._feed.follow(account_id, every) as follower:
            watched = Watched(account_id, subject, read, follower)
            self._watched.add(watched)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_on())
            try:
                yield watched
            finally:
                self._watched.discard(watched)

    async def _look_on(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK)
            try:
                await self.look()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("following_look_failed", error=type(error).__name__)

    async def look(self) -> None:
        """Wake everybody for whom there is something to read."""
        instances = [(one, one.read) for one in self._watched if isinstance(one.read, int)]
        workflows = [(one, one.read) for one in self._watched if isinstance(one.read, Mark)]
        if instances:
            accounts, keys = [one.account_id for one, _ in instances], [one.subject for one, _ in instances]
            for place in await store.grown(self._db, accounts, keys, [seq for _, seq in instances]):
                instances[place][0].follower.wake()
        if workflows:
            accounts, keys = [one.account_id for one, _ in workflows], [one.subject for one, _ in workflows]
            for place in await store.fed(self._db, accounts, keys, [mark for _, mark in workflows]):
                workflows[place][0].follower.wake()
