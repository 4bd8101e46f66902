"""Figures for callers: metrics over time, and the numbers that go with a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.errors import InvalidRequest
from instances.figures import store
from instances.figures.store import Bucket, Metrics
from instances.figures.windows import Granularity, Window, window
from instances.lifecycle import Status
from instances.search.query import Facet
from instances.search.store import held_back, workflows
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database

READ = "executions:read"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Metrics of a window; `buckets` are all there are, empty ones included, in order."""

    window: Window
    total: Metrics
    buckets: list[Bucket]


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many instances are in which facet (none of a rollback's outcome: ended ones are in the first of their
    status, rolling back counts as compensating), and the mean duration of those that ended well or by a failure.
    """

    by_facet: Counter[Facet]
    mean_ms: float

    @property
    def total(self) -> int:
        return self.by_facet.total()

    def of(self, *facets: Facet) -> int:
        return sum(self.by_facet[facet] for facet in facets)


class Figures:
    """Counts and times instances. `workflows` None: all that the caller sees."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def timeline(
        self,
        caller: Caller,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        granularity: Granularity = Granularity.DAY,
        workflows: Sequence[UUID] | None = None,
    ) -> Timeline:
        """Metrics of executions that started in the window and ended well or by a failure.

        Raises `NotAllowed`, and :class:`InvalidRequest` for a window that is empty, has too many buckets, or holds too
        many executions to be read.
        """
        caller.require(READ)
        asked = window(since, until, granularity, self._clock.now())
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            try:
                await connection.execute(store.CONFINE)
                among = await _among(connection, caller, workflows)
                times = asked.since, asked.until
                length = granularity.length
                total = await store.metrics(connection, caller.account_id, among, times, length, asked.first)
            except asyncpg.QueryCanceledError:
                raise InvalidRequest("too many executions in the window; shorten it") from None
        known = {bucket.started_at: bucket for bucket in total.buckets}
        buckets = [known.get(start) or Bucket(start, 0, 0, 0.0) for start in asked.buckets]
        return Timeline(asked, total, buckets)

    async def statistics(
        self,
        caller: Caller,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        workflows: Sequence[UUID] | None = None,
    ) -> Statistics:
        """Numbers of instances that started (while they have not: were created) in a time. Raises as `timeline`."""
        caller.require(READ)
        times = store.times_between(since, until)
        account = caller.account_id
        async with self._db.scope(account, transaction=True) as connection:
            try:
                await connection.execute(store.CONFINE)
                among = await _among(connection, caller, workflows)
                held = await held_back(connection, account)
                stuck = [key for key in among if held.holds(key)]
                ended = await store.ended(connection, account, among, times)
                going = await store.unfinished(connection, account, among, times, stuck)
            except asyncpg.QueryCanceledError:
                raise InvalidRequest("too many executions in the time asked for; shorten it") from None
        counts = Counter({_FACETS[Status(status)]: n for status, (n, _) in ended.items()})
        for (status, workflow, fresh), n in going.items():
            counts[Facet.HELD_BACK if fresh and held.holds(workflow) else _FACETS[Status(status)]] += n
        timed = [ended.get(int(status), (0, 0.0)) for status in (Status.COMPLETE, Status.ERRORED)]
        number = sum(n for n, _ in timed)
        return Statistics(counts, sum(ms for _, ms in timed) / number if number else 0.0)


_FACETS = {
    Status.QUEUED: Facet.ADMITTED,
    Status.RUNNING: Facet.RUNNING,
    Status.WAITING: Facet.WAITING,
    Status.PAUSED: Facet.PAUSED,
    Status.WAITING_FOR_PAUSE: Facet.WAITING_FOR_PAUSE,
    Status.ROLLING_BACK: Facet.COMPENSATING,
    Status.COMPLETE: Facet.COMPLETE,
    Status.ERRORED: Facet.ERRORED,
    Status.TERMINATED: Facet.TERMINATED,
}


async def _among(connection: asyncpg.Connection, caller: Caller, wanted: Sequence[UUID] | None) -> list[UUID]:
    """The workflows counted: those wanted that the caller may see, or all of them."""
    if wanted is not None and caller.workspace_id is None:
        return sorted(set(wanted))
    mine = await workflows(connection, caller.account_id, caller.workspace_id)
    return mine if wanted is None else sorted(set(mine) & set(wanted))
