"""Firing schedules: `schedule.next_at` is the truth, the instance's id and key are the second guard.

A firing first creates its instance, whose key and id follow from the schedule and the scheduled time, then moves
`next_at` on if it still is what was read. A crash in between, or two workers at once, create the same instance again,
which is harmless; so every firing happens exactly once.

Firings missed while no worker ran are caught up, oldest first, but only the latest ten; older ones are left out. When
firings may not overlap, one whose predecessor is unfinished is left out. A firing the account has no room for (queue
limit) is left out, too. Disabled accounts miss their firings; a deleted workflow's schedules end.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID
from zoneinfo import ZoneInfoNotFoundError

import msgspec
import structlog

from instances.engine.client import Create, Created, NewInstance
from jobs import store
from jobs.metrics import SCHEDULES_FIRED
from jobs.store import DueSchedule, ScheduleMove
from tenants.clock import Clock
from tenants.database import Database
from versions.cron import next_after

log = structlog.get_logger(__name__)

BATCH = 200
CATCH_UP = 10
"""Missed firings that are caught up."""
TRIGGER_CRON = 4


class Creator(Protocol):
    """The part of the engine's client that schedules need."""

    async def create(self, items: Sequence[NewInstance]) -> list[Created]: ...


class FireSchedules:
    """Creates the instances of schedules that are due. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock, engine: Creator) -> None:
        self._db = db
        self._clock = clock
        self._engine = engine

    async def tick(self) -> bool:
        """Fire what is due, once per schedule; whether more is due."""
        now = self._clock.now()
        due = await store.due_schedules(self._db, now, BATCH)
        if not due:
            return False
        firings = [firing for schedule in due if (firing := _decide(schedule, now)) is not None]
        outcomes = await self._create([firing for firing in firings if firing.instance is not None])
        moved = await store.move_schedules(self._db, [firing.move(outcomes.get(firing.id)) for firing in firings])
        return moved > 0

    async def _create(self, firings: list[Firing]) -> dict[UUID, Create]:
        """Create the firings' instances; the outcome by schedule id."""
        if not firings:
            return {}
        created = await self._engine.create([firing.instance for firing in firings if firing.instance is not None])
        outcomes = {firing.id: answer.outcome for firing, answer in zip(firings, created, strict=True)}
        for outcome, n in Counter(outcomes.values()).items():
            SCHEDULES_FIRED.labels(Create(outcome).name.lower()).inc(n)
        return outcomes


@dataclass(frozen=True, slots=True)
class Firing:
    """What to do about one due schedule."""

    schedule: DueSchedule
    instance: NewInstance | None
    """To create; None: this firing is left out."""
    following: datetime | None
    """The next scheduled time, None: never again."""

    @property
    def id(self) -> UUID:
        return self.schedule.id

    def move(self, outcome: Create | None) -> ScheduleMove:
        """Where the schedule stands after the firing."""
        schedule, following = self.schedule, self.following
        fired = self.instance.key if self.instance is not None and outcome in (Create.CREATED, Create.EXISTS) else None
        last = schedule.max_runs is not None and schedule.runs + (fired is not None) >= schedule.max_runs
        if last or outcome is Create.NO_WORKFLOW:
            following = None
        return ScheduleMove(schedule.account_id, schedule.id, schedule.next_at, following, fired)


def _decide(schedule: DueSchedule, now: datetime) -> Firing | None:
    """The firing that is due; None when the schedule cannot be worked out (it stays as it is and is logged)."""
    try:
        at = catch_up(schedule, now)
        following = _following(schedule, at)
    except (ValueError, ZoneInfoNotFoundError, OverflowError) as error:
        log.error("schedule_invalid", account=schedule.account_id.hex, schedule=str(schedule.id), error=str(error))
        return Firing(schedule, None, None)
    if schedule.handle is None:
        return Firing(schedule, None, None)
    if not schedule.enabled or schedule.busy:
        SCHEDULES_FIRED.labels("busy" if schedule.enabled else "disabled").inc()
        return Firing(schedule, None, following)
    return Firing(schedule, _instance(schedule, schedule.handle, at), following)


def catch_up(schedule: DueSchedule, now: datetime) -> datetime:
    """The scheduled time to fire: the one that is due, or, when more than `CATCH_UP` are, the tenth from the last."""
    if schedule.interval_ms is not None:
        interval = timedelta(milliseconds=schedule.interval_ms)
        missed = (now - schedule.next_at) // interval
        return schedule.next_at + max(missed - CATCH_UP + 1, 0) * interval
    span = timedelta(minutes=CATCH_UP)
    while span < now - schedule.next_at:
        latest = deque(_between(schedule, now - span, now), maxlen=CATCH_UP)
        if len(latest) == CATCH_UP:
            return latest[0]
        span *= 2
    latest = deque((schedule.next_at, *_between(schedule, schedule.next_at, now)), maxlen=CATCH_UP)
    return latest[0]


def _between(schedule: DueSchedule, after: datetime, until: datetime) -> Iterator[datetime]:
    moment = _following(schedule, after)
    while moment is not None and moment <= until:
        yield moment
        moment = _following(schedule, moment)


def _following(schedule: DueSchedule, moment: datetime) -> datetime | None:
    if schedule.interval_ms is not None:
        return moment + timedelta(milliseconds=schedule.interval_ms)
    return next_after(schedule.cron or "", moment, schedule.timezone)


def _instance(schedule: DueSchedule, handle: str, at: datetime) -> NewInstance:
    """The instance of a firing. All of it follows from the schedule and the scheduled time."""
    milliseconds = round(at.timestamp() * 1000)
    detail: dict[str, object] = {"scheduledTime": milliseconds}
    if schedule.cron is not None:
        detail["cron"] = schedule.cron
    return NewInstance(
        account_id=schedule.account_id,
        key=firing_key(schedule.id, milliseconds),
        instance_id=f"{schedule.cron or schedule.id}-{milliseconds}",
        input=schedule.input,
        handle=handle,
        trigger_source=TRIGGER_CRON,
        trigger_detail=msgspec.json.encode(detail).decode(),
    )


def firing_key(schedule_id: UUID, milliseconds: int) -> UUID:
    """The instance key of a firing: a UUIDv7 of the scheduled time whose other bits follow from the schedule.

    Lists are ordered by key, so a random-looking one (uuid5) would put the instance anywhere.
    """
    digest = hashlib.sha256(schedule_id.bytes + milliseconds.to_bytes(8, "big")).digest()
    tail = int.from_bytes(digest[:10], "big")
    return UUID(
        int=(milliseconds << 80) | (0x7 << 76) | ((tail >> 62 & 0xFFF) << 64) | (0b10 << 62) | (tail & ((1 << 62) - 1))
    )
