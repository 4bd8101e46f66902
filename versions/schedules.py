"""Schedules of a workflow: what a document or a request asks for, and when each fires next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from app.errors import InvalidRequest
from tenants.limits import SCHEDULES_PER_WORKFLOW
from versions.cron import CronError, next_after, parse_cron
from versions.document import Document
from versions.schemas import CronSchedule, ScheduleRow

_IDENTITY = ("cron", "interval_ms", "timezone", "overlap", "max_runs", "input")
NOBODY = UUID(int=0)
"""Id of a schedule that is not stored yet."""


def next_occurrence(schedule: ScheduleRow, after: datetime) -> datetime | None:
    """When `schedule` fires next, strictly after `after`; None when it never does again."""
    if schedule.max_runs is not None and schedule.runs >= schedule.max_runs:
        return None
    if schedule.interval_ms is not None:
        return after + timedelta(milliseconds=schedule.interval_ms)
    return next_after(schedule.cron or "", after, schedule.timezone)


def of_request(schedules: Sequence[CronSchedule], now: datetime) -> list[ScheduleRow]:
    """Schedules as a request lists them: in UTC, firing whether or not the last instance is done.

    Raises :class:`InvalidRequest` naming the expression that is wrong.
    """
    if len(schedules) > SCHEDULES_PER_WORKFLOW:
        raise InvalidRequest(f"schedules must have at most {SCHEDULES_PER_WORKFLOW} elements", pointer="/schedules")
    for position, schedule in enumerate(schedules):
        try:
            parse_cron(schedule.cron)
        except CronError as error:
            raise InvalidRequest(f"schedules: {error}", pointer=f"/schedules/{position}/cron") from None
    return [_row(now, cron=cron) for cron in dict.fromkeys(schedule.cron for schedule in schedules)]


def of_document(document: Document, now: datetime) -> list[ScheduleRow]:
    """Schedules as a document's triggers list them."""
    return [
        _row(
            now,
            cron=trigger.cron,
            interval_ms=trigger.interval,
            timezone=trigger.timezone,
            overlap=trigger.concurrency == "allow",
            max_runs=trigger.max_runs,
            input=None if trigger.input is None else msgspec.json.encode(trigger.input).decode(),
        )
        for trigger in document.triggers
        if trigger.type == "schedule"
    ]


def _row(now: datetime, **values: Any) -> ScheduleRow:
    standard: dict[str, Any] = {
        "id": NOBODY,
        "cron": None,
        "interval_ms": None,
        "timezone": "UTC",
        "overlap": True,
        "max_runs": None,
        "runs": 0,
        "input": None,
        "next_at": None,
        "created_at": now,
    }
    row = ScheduleRow(**{**standard, **values})
    return msgspec.structs.replace(row, next_at=next_occurrence(row, now))


def changes(
    stored: Iterable[ScheduleRow], wanted: Iterable[ScheduleRow]
) -> tuple[list[ScheduleRow], list[ScheduleRow]]:
    """What to delete and what to insert so that `stored` becomes `wanted`.

    A schedule that stays the same is left alone: it keeps its next firing and its count of runs.
    """
    left = list(stored)
    new: list[ScheduleRow] = []
    for row in wanted:
        same = next((old for old in left if _same(old, row)), None)
        if same is None:
            new.append(row)
        else:
            left.remove(same)
    return left, new


def _same(one: ScheduleRow, other: ScheduleRow) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _IDENTITY)
