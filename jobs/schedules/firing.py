"""Firing schedules: `schedule.next_at` is the truth, the instance's id and key are the second guard.

One statement moves `next_at` on, if it still is what was read, and creates the instance, whose key and id follow from
the schedule and the scheduled time. So every firing happens exactly once, however many workers look at the same time,
crash or freeze, and whatever became of the instance meanwhile.

Firings missed while no worker ran are caught up, oldest first, but only the latest ten; older ones are left out. When
firings may not overlap, one whose predecessor is unfinished is left out. A firing the account has no room for (queue
limit) is left out, too. Disabled accounts miss their firings; a deleted workflow's schedules end.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID
from zoneinfo import ZoneInfoNotFoundError

import msgspec
import structlog

from instances.engine.requests import Create, NewInstance
from instances.lifecycle import TriggerSource
from instances.payloads import EMPTY
from jobs.metrics import SCHEDULES_FIRED
from jobs.schedules import store
from jobs.schedules.store import DueSchedule, ScheduleMove
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AccountNotFound
from tenants.ids import derived_uuid7
from tenants.limits import Limits
from versions.cron import next_after

log = structlog.get_logger(__name__)

BATCH = 200
CATCH_UP = 10
"""Missed firings that are caught up."""


class Announcer(Protocol):
    """The part of the engine's client that schedules need."""

    def announce(self, created: Sequence[NewInstance]) -> None: ...


class FireSchedules:
    """Creates the instances of schedules that are due. Safe on any number of workers at once.

    `limits` tells what an account may use.
    """

    def __init__(
        self, db: Database, clock: Clock, engine: Announcer, limits: Callable[[UUID], Awaitable[Limits]]
    ) -> None:
        self._db = db
        self._clock = clock
        self._engine = engine
        self._limits = limits

    async def tick(self) -> bool:
        """Fire what is due, once per schedule; whether more is due."""
        now = self._clock.now()
        due = await store.due_schedules(self._db, now, BATCH)
        if not due:
            return False
        room = {account: await self._room(account) for account in {schedule.account_id for schedule in due}}
        moves = [_decide(schedule, now, room[schedule.account_id]) for schedule in due]
        outcomes = await store.fire_schedules(self._db, moves, now)
        fired = [outcome for outcome in outcomes.values() if outcome is not None]
        for outcome, n in Counter(fired).items():
            SCHEDULES_FIRED.labels(outcome.name.lower()).inc(n)
        self._engine.announce([m.instance for m in moves if m.instance and outcomes.get(m.id) is Create.CREATED])
        return bool(outcomes)

    async def _room(self, account_id: UUID) -> int | None:
        """How many instances each workflow of the account may have queued; none if the account is gone."""
        try:
            return (await self._limits(account_id)).queued
        except AccountNotFound:
            return 0


def _decide(schedule: DueSchedule, now: datetime, room: int | None) -> ScheduleMove:
    """What to do about a schedule that is due. One that cannot be worked out is logged, and fires no more."""
    try:
        at = catch_up(schedule, now)
        following = _following(schedule, at)
    except (ValueError, ZoneInfoNotFoundError, OverflowError) as error:
        log.error("schedule_invalid", account=schedule.account_id.hex, schedule=str(schedule.id), error=str(error))
        return _move(schedule, None, None)
    if schedule.handle is None:
        return _move(schedule, None, None)
    if not schedule.enabled or schedule.busy:
        SCHEDULES_FIRED.labels("busy" if schedule.enabled else "disabled").inc()
        return _move(schedule, following, None)
    return _move(schedule, following, _instance(schedule, schedule.handle, at, room))


def _move(schedule: DueSchedule, following: datetime | None, instance: NewInstance | None) -> ScheduleMove:
    return ScheduleMove(schedule.account_id, schedule.id, schedule.next_at, following, instance)


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


def _instance(schedule: DueSchedule, handle: str, at: datetime, room: int | None) -> NewInstance:
    """The instance of a firing. All of it follows from the schedule and the scheduled time, but for the `room` there
    is in the workflow's queue.
    """
    milliseconds = round(at.timestamp() * 1000)
    detail: dict[str, object] = {"scheduledTime": milliseconds}
    if schedule.cron is not None:
        detail["cron"] = schedule.cron
    return NewInstance(
        account_id=schedule.account_id,
        key=firing_key(schedule.id, milliseconds),
        instance_id=f"{schedule.id if schedule.cron is None or schedule.shadowed else schedule.cron}-{milliseconds}",
        input=EMPTY if schedule.input is None else schedule.input,
        handle=handle,
        trigger_source=TriggerSource.CRON,
        trigger_detail=msgspec.json.encode(detail).decode(),
        max_queued=room,
    )


def firing_key(schedule_id: UUID, milliseconds: int) -> UUID:
    """The instance key of a firing: it follows from the schedule and the scheduled time."""
    return derived_uuid7(milliseconds, schedule_id.bytes + milliseconds.to_bytes(8, "big"))
