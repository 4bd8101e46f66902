"""Claiming: how many runs to take, from whose queue on, and of which accounts none."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from instances.engine import faults, store
from instances.engine.connections import OwnConnection
from instances.engine.held_runs import HeldRuns
from tenants import metrics
from tenants.clock import Clock
from tenants.database import Database

BATCH = 200
RESERVED = 0.1
"""Share of the slots that is kept for accounts that hold less than their part of the others."""
ZERO = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Room:
    """How many runs to claim, and of which accounts none: the last slots are for accounts that hold little."""

    runs: int
    shunned: Sequence[UUID] = ()


def room_of(slots: int, held: HeldRuns) -> Room:
    """The room of a worker with so many slots that holds these runs."""
    common = slots - int(slots * RESERVED)
    if len(held) < common:
        return Room(min(common - len(held), BATCH))
    by_account = held.by_account()
    share = common / max(1, len(by_account))
    return Room(min(slots - len(held), BATCH), [account for account, n in by_account.items() if n >= share])


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim."""

    rows: list[Any]
    """A row per run; `store.CLAIM` says of what."""
    more: bool
    """Ready runs were left behind."""
    next_due: datetime | None
    """When the next timer of a parked run is due."""


class Claims:
    """The claims of one worker, on a connection of their own."""

    def __init__(self, db: Database, clock: Clock, runtimes: Collection[int]) -> None:
        self._connection = OwnConnection(lambda: db.dedicated("millrace-claim"))
        self._clock = clock
        self._runtimes = runtimes
        """Numbers of those it can run; there may be more of them later."""
        self._after = ZERO
        """The account the next claim begins after, so that all have their turn."""
        self._next_due: datetime | None = None
        """As the last answer said."""

    async def claim(self, worker_id: int, room: Room) -> Claimed:
        """Claim ready runs for a worker, no more than it has room for."""
        now, began = self._clock.now(), time.perf_counter()
        if self._next_due is not None and self._next_due <= now:
            faults.point("timer-due")
        connection = await self._connection.get()
        runtimes = list(self._runtimes)
        rows = await store.claim(connection, worker_id, runtimes, room.runs, self._after, room.shunned, now)
        tail = rows.pop()
        if rows:
            faults.point("after-claim")
        self._clock.observe(tail["now"])
        metrics.CLAIM_SECONDS.observe(time.perf_counter() - began)
        metrics.CLAIMED_RUNS.inc(len(rows))
        self._next_due = tail["next_due"]
        self._move_on(rows, tail["account_id"], full=len(rows) == room.runs)
        return Claimed(rows, tail["more"], tail["next_due"])

    def close(self) -> None:
        self._connection.drop()

    def _move_on(self, rows: list[Any], last_looked: UUID | None, *, full: bool) -> None:
        """The next claim begins after the last account served, or looked at when there was room for all of them."""
        if full:
            # Accounts up to the beginning of this round came after all others.
            self._after = max((row["account_id"] <= self._after, row["account_id"]) for row in rows)[1]
        elif last_looked is not None:
            self._after = last_looked
