"""Following for callers: entries in order, none twice, none left out.

A generator holds no database connection while it waits. Close it (`contextlib.aclosing`) when its reader leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

from instances import store as instance_store
from instances.errors import InstanceNotFound
from instances.following import store
from instances.following.store import Mark, Told
from instances.following.watcher import Watcher
from instances.lifecycle import Kind
from instances.live_feed import LiveFeed
from instances.projections.entries import Entry
from instances.search.store import BY_KEY, locate, workflows
from tenants.auth import Caller
from tenants.database import Database
from versions.errors import WorkflowNotFound

READ = "executions:read"
CHUNK = 200
"""Entries, or rows of a feed, read at once."""
SETTLE = (0.01, 0.03, 0.1, 0.3)
"""Seconds between looks at a feed after news of it: a transaction that began before may hold its rows back."""
KINDS = tuple(int(kind) for kind in Kind)


class Follow:
    """Follows instances for callers. One per process."""

    def __init__(self, db: Database, feed: LiveFeed) -> None:
        self._db = db
        self._watcher = Watcher(db, feed)

    async def stop(self) -> None:
        """Followers still there are woken by news only."""
        await self._watcher.stop()

    async def instance(self, caller: Caller, key: UUID, after: int = 0) -> AsyncGenerator[list[Entry]]:
        """Entries of an instance after seq `after`, then what comes, until it has ended or is deleted.

        Entries that a restart has made void come, too, and the restart itself. Raises `NotAllowed`,
        :class:`InstanceNotFound`.
        """
        caller.require(READ)
        account = caller.account_id
        async with self._db.scope(account) as connection:
            if await locate(connection, BY_KEY, account, caller.workspace_id, False, key) is None:
                raise InstanceNotFound()
        async with self._watcher.watch(account, key, after) as watched:
            while True:
                async with self._db.scope(account) as connection:
                    state = await instance_store.log_state(connection, account, key)
                    entries = await instance_store.log_entries(connection, account, key, after, KINDS, CHUNK)
                if entries:
                    watched.read = after = entries[-1].seq
                    yield entries
                if state is None or (state.status.finished and state.seq <= after):
                    return
                if len(entries) < CHUNK and state.seq <= after:
                    await watched.grown()

    async def mark(self, caller: Caller) -> Mark:
        """Where all feeds of the account end now: for a stream that is to begin before somebody reads it."""
        caller.require(READ)
        async with self._db.scope(caller.account_id) as connection:
            return await store.now(connection)

    async def workflow(
        self, caller: Caller, workflow_key: UUID, since: Mark | None = None
    ) -> AsyncGenerator[list[Told]]:
        """Entries of all instances of a workflow, from `since` or now on; it never ends by itself.

        In the order of commits; of each instance in the order of its journal. Raises `NotAllowed`,
        :class:`WorkflowNotFound`.
        """
        caller.require(READ)
        account = caller.account_id
        async with self._db.scope(account) as connection:
            if workflow_key not in await workflows(connection, account, caller.workspace_id):
                raise WorkflowNotFound()
            mark = since or await store.now(connection)
        async with self._watcher.watch(account, workflow_key, mark) as watched:
            while True:
                told, more = [], False
                for pause in (0.0, *SETTLE):
                    await asyncio.sleep(pause)
                    async with self._db.scope(account) as connection:
                        told, mark, more = await store.feed(connection, account, workflow_key, mark, CHUNK)
                    if more:
                        break
                watched.read = mark
                if told:
                    yield told
                if not more:
                    await watched.grown()
