"""Every SQL statement with which instances are counted and timed. Finished ones are read from `instance_started` alone.

$1 account, $2 workflows, $3 and $4 the window on the start, its end not included. Dry runs are left out; deleted
instances count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

STATEMENT_TIMEOUT_MS = 10_000
WORK_MEM_KB = 16_384
"""Holds 100,000 executions without files."""

# For the transaction. A large part of the table may be asked for, yet the index has it in a tenth of the pages, and the
# table holds other accounts, too.
CONFINE = f"""
select set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('work_mem', '{WORK_MEM_KB}', true)"""

_STARTED = """
from unnest($2::uuid[]) e(workflow_key) cross join lateral (
  select i.status, i.started_at, i.ended_at from instance i
  where i.account_id = $1 and i.workflow_key = e.workflow_key and i.status >= 6 and i.dry_run is null
    and i.started_at >= $3 and i.started_at < $4) i"""
_MS = "date_part('epoch', i.ended_at - i.started_at) * 1000"  # a float; `extract` computes with numerics

# One row for the whole window (bucket null), one per bucket that is not empty. $5 length of a bucket, $6 the first.
METRICS = f"""
with ended as materialized (
  select date_bin($5::interval, i.started_at, $6::timestamptz) as bucket, i.status = 6 as good,
         greatest({_MS}, 0)::float8 as ms {_STARTED} where i.status in (6, 7))
select null::timestamptz as bucket, count(*) as n, count(*) filter (where good) as good, avg(ms) as mean,
       percentile_cont(array[0.5, 0.95, 0.99]) within group (order by ms) as percentiles from ended
union all
select bucket, count(*), count(*) filter (where good), avg(ms), null from ended group by 1"""

ENDED = f"""
select i.status, count(*) as n, coalesce(sum(greatest({_MS}, 0)), 0)::float8 as ms {_STARTED} group by 1"""

# Ended without a start: they count by their creation. Few, at all times.
NEVER_STARTED = """
select i.status, count(*) as n from unnest($2::uuid[]) e(workflow_key) cross join lateral (
  select i.status from instance i where i.account_id = $1 and i.workflow_key = e.workflow_key and i.status >= 6
    and i.dry_run is null and i.started_at is null and i.created_at >= $3 and i.created_at < $4) i group by 1"""

# By status; of the queued ones those apart that were never started.
UNFINISHED = """
select l.status, l.workflow_key, l.started_at is null as fresh, count(*) as n
from unnest($2::uuid[]) e(workflow_key) cross join lateral (
  select v.status, v.workflow_key, v.started_at, v.key from live v
  where v.account_id = $1 and v.workflow_key = e.workflow_key) l
join instance i on i.account_id = $1 and i.key = l.key and i.dry_run is null
where coalesce(l.started_at, i.created_at) >= $3 and coalesce(l.started_at, i.created_at) < $4 group by 1, 2, 3"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Executions that ended well or by a failure. Times in milliseconds, 0 of none."""

    started_at: datetime
    count: int
    successful: int
    mean_ms: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """The same of a whole window, with percentiles; `buckets` are those that are not empty."""

    count: int
    successful: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    buckets: list[Bucket]


async def metrics(
    connection: asyncpg.Connection,
    account_id: UUID,
    workflows: Sequence[UUID],
    window: tuple[datetime, datetime],
    length: timedelta,
    first: datetime,
) -> Metrics:
    """Of the executions that started in the window and have ended well or by a failure."""
    rows = await connection.fetch(METRICS, account_id, workflows, *window, length, first)
    whole = next(row for row in rows if row["bucket"] is None)
    p50, p95, p99 = whole["percentiles"] or (0.0, 0.0, 0.0)
    buckets = [
        Bucket(row["bucket"], row["n"], row["good"], row["mean"] or 0.0) for row in rows if row["bucket"] is not None
    ]
    return Metrics(whole["n"], whole["good"], whole["mean"] or 0.0, p50, p95, p99, buckets)


async def ended(connection: asyncpg.Connection, account_id: UUID, *asked: Any) -> dict[int, tuple[int, float]]:
    """By status: how many ended so, and milliseconds in all."""
    found = {row["status"]: (row["n"], row["ms"]) for row in await connection.fetch(ENDED, account_id, *asked)}
    for row in await connection.fetch(NEVER_STARTED, account_id, *asked):
        n, ms = found.get(row["status"], (0, 0.0))
        found[row["status"]] = n + row["n"], ms
    return found


async def unfinished(
    connection: asyncpg.Connection, account_id: UUID, *asked: Any
) -> list[tuple[int, UUID, bool, int]]:
    """Status, workflow, whether they never started, how many."""
    return [tuple(row) for row in await connection.fetch(UNFINISHED, account_id, *asked)]
