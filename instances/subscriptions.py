"""Following an instance's events: what happened so far, then what comes, until the instance has ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any
from uuid import UUID

import msgspec

from instances import store
from instances.live_feed import LiveFeed
from instances.logs import void_entries
from instances.projections.entries import Entry
from instances.projections.instance_events import KINDS, LAST, Event, InstanceEvents
from instances.projections.values import is_tagged
from tenants.database import Database

CHUNK = 200
"""Entries read at once."""


class Subscription:
    """One subscriber of one instance. Holds no connection and follows nothing between two calls of :meth:`next`."""

    def __init__(
        self,
        db: Database,
        feed: LiveFeed,
        account_id: UUID,
        key: UUID,
        instance_id: str,
        params: str | None,
        *,
        cursor: int,
        types: Collection[str] | None,
    ) -> None:
        self._db = db
        self._feed = feed
        self._account_id = account_id
        self._key = key
        self._instance_id = instance_id
        self._cursor = cursor
        self._types = types
        self._events = InstanceEvents(params)
        self._after = 0
        self._ready: deque[dict[str, Any]] = deque()
        self._over = False
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Nothing more is told."""
        self._over = True
        self._ready.clear()

    async def next(self) -> tuple[dict[str, Any], bool] | None:
        """The next event, and whether values in it are tagged; None after the last, or when the instance is gone."""
        async with self._turn:
            if not self._ready and not self._over:
                await self._read_on()
            if not self._ready:
                return None
            event = self._ready.popleft()
            output = event.get("output")
            return event, isinstance(output, msgspec.Raw) and is_tagged(bytes(output).decode())

    async def _read_on(self) -> None:
        """Read until there is something to tell, or nothing will come."""
        async with self._feed.follow(self._account_id, self._key) as follower:
            while not self._ready and not self._over:
                if not await self._read():
                    await follower.grown()

    async def _read(self) -> bool:
        """Read a chunk; whether there was one."""
        async with self._db.scope(self._account_id) as connection:
            state = await store.log_state(connection, self._account_id, self._key)
            if state is None:
                self._over = True
                return True
            after = max(self._after, state.live_from - 1)
            entries = await store.log_entries(connection, self._account_id, self._key, after, KINDS, CHUNK)
            void = await void_entries(connection, self._account_id, self._key, state, {}) if entries else frozenset()
        for entry in entries:
            self._after = entry.seq
            if entry.seq not in void:
                self._take(entry)
        if not entries and state.status.finished:
            self._over = True
            return True
        return bool(entries)

    def _take(self, entry: Entry) -> None:
        for number, event in self._events.of(entry):
            if number > self._cursor and (self._types is None or event[0] in self._types):
                self._ready.append(self._told(number, entry, event))
            if event[0] in LAST:
                self._over = True

    def _told(self, number: int, entry: Entry, event: Event) -> dict[str, Any]:
        kind, fields, output = event
        told = {"type": kind, "instanceId": self._instance_id, "eventId": number}
        told |= {"timestamp": int(entry.at.timestamp() * 1000)} | fields
        if output is not None:
            told["output"] = msgspec.Raw(output.encode())
        return told
