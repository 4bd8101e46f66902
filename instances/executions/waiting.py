"""Waiting for what becomes of an instance. Whoever waits holds nothing of it: when he leaves, it goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

import asyncpg

from instances import store as instances
from instances.errors import InstanceNotFound
from instances.executions import store
from instances.lifecycle import Status
from instances.live_feed import LOOK_AGAIN, LiveFeed
from instances.projections.fold import fold
from instances.runtimes.protocol import StepKind
from tenants.database import Database


class Until(Enum):
    """What is waited for."""

    END = "end"
    REST = "rest"
    """Its end, or that it waits for somebody outside, for an event, or for a time: nothing happens by itself soon."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How an instance stood when the waiting was over. Neither `ended` nor `rests`: the time was up."""

    status: Status
    rests: bool

    @property
    def ended(self) -> bool:
        return self.status.finished


_MAY_REST = frozenset({Status.WAITING, Status.ROLLING_BACK})
"""A rollback waits for somebody outside without another status."""


async def wait_for(db: Database, feed: LiveFeed, account_id: UUID, key: UUID, until: Until, seconds: float) -> Waited:
    """Wait up to `seconds` (0: look once). Raises :class:`InstanceNotFound` when it is gone."""
    now = asyncio.get_running_loop().time
    end = now() + seconds
    seen = -1
    rests = False
    async with feed.follow(account_id, key) as follower:
        while True:
            async with db.scope(account_id) as connection:
                found = await store.standing(connection, account_id, key)
                if found is None:
                    raise InstanceNotFound()
                status, seq = found
                if until is Until.REST and status in _MAY_REST and seq != seen:
                    rests = await _rests(connection, account_id, key)
                    seen = seq
            resting = rests and status in _MAY_REST
            left = end - now()
            if status.finished or resting or left <= 0:
                return Waited(status, resting)
            await follower.grown(min(left, LOOK_AGAIN))


async def _rests(connection: asyncpg.Connection, account_id: UUID, key: UUID) -> bool:
    """Whether an instance waits for more than a retry or a child of its own."""
    record = await instances.read_by_key(connection, account_id, key, instances.SHOWN)
    if record is None:
        return False
    steps = fold(record.entries).steps.values()
    return any(step.open and (step.outside or step.family in (StepKind.SLEEP, StepKind.WAIT)) for step in steps)
