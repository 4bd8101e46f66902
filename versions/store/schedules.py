"""Schedules of workflows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from versions.schemas import (
    ScheduleRow,
)

Connection = asyncpg.Connection

_SCHEDULE = "id, cron, interval_ms, timezone, overlap, max_runs, runs, input, next_at, created_at"

SCHEDULES = f"select {_SCHEDULE} from schedule where account_id = $1 and workflow_key = $2 order by created_at, id"

COUNT_OTHER_SCHEDULES = "select count(*) from schedule where account_id = $1 and workflow_key <> $2"

INSERT_SCHEDULES = """
insert into schedule (account_id, id, workflow_key, cron, interval_ms, timezone, overlap, max_runs, input, next_at,
                      created_at)
select $1, s.id, $2, s.cron, s.interval_ms, s.timezone, s.overlap, s.max_runs, s.input, s.next_at, $3
from unnest($4::uuid[], $5::text[], $6::bigint[], $7::text[], $8::boolean[], $9::int[], $10::text[],
            $11::timestamptz[]) as s(id, cron, interval_ms, timezone, overlap, max_runs, input, next_at)
"""

DELETE_SCHEDULES = "delete from schedule where account_id = $1 and id = any($2::uuid[])"

# Of a workflow that is not to be started; the worker that is about to fire one finds that it has moved.
PARK_SCHEDULES = "update schedule set next_at = null where account_id = $1 and workflow_key = $2"

SET_NEXT = """
update schedule s set next_at = n.next_at from unnest($2::uuid[], $3::timestamptz[]) as n(id, next_at)
where s.account_id = $1 and s.id = n.id
"""


async def schedules(connection: Connection, account_id: UUID, workflow_key: UUID) -> list[ScheduleRow]:
    rows = await connection.fetch(SCHEDULES, account_id, workflow_key)
    return [msgspec.convert(dict(row), ScheduleRow) for row in rows]


async def count_other_schedules(connection: Connection, account_id: UUID, workflow_key: UUID) -> int:
    """Schedules of the account's other workflows."""
    return int(await connection.fetchval(COUNT_OTHER_SCHEDULES, account_id, workflow_key) or 0)


async def insert_schedules(
    connection: Connection, account_id: UUID, workflow_key: UUID, rows: Sequence[ScheduleRow], now: datetime
) -> None:
    columns = [
        [getattr(row, name) for row in rows]
        for name in ("id", "cron", "interval_ms", "timezone", "overlap", "max_runs", "input", "next_at")
    ]
    await connection.execute(INSERT_SCHEDULES, account_id, workflow_key, now, *columns)


async def park_schedules(connection: Connection, account_id: UUID, workflow_key: UUID) -> None:
    """Let none of a workflow's schedules fire any more."""
    await connection.execute(PARK_SCHEDULES, account_id, workflow_key)


async def set_next(connection: Connection, account_id: UUID, rows: Sequence[ScheduleRow]) -> None:
    """Let each schedule fire when its row says."""
    moments = [row.id for row in rows], [row.next_at for row in rows]
    await connection.execute(SET_NEXT, account_id, *moments)


async def delete_schedules(connection: Connection, account_id: UUID, ids: Sequence[UUID]) -> None:
    await connection.execute(DELETE_SCHEDULES, account_id, list(ids))
