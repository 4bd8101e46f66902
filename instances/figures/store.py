"""Every SQL statement with which instances are counted and timed. Finished ones are read from `instance_started` alone,
or, when no time is asked for, not at all: counters know them.

$1 account, $2 workflows, $3 and $4 the window on the start, its end not included; for what never started the window is
one of keys. Dry runs are left out; deleted instances count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from instances.listing import FIRST_KEY, LAST_KEY
from instances.search.conditions import key_bounds
from instances.search.query import Compare, Field, Op

STATEMENT_TIMEOUT_MS = 10_000
WORK_MEM_KB = 16_384
"""Holds 100,000 executions without files."""

# For the transaction. A large part of the table may be asked for, yet the index has it in a tenth of the pages, and the
# table holds other accounts, too.
CONFINE = f"""
select set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('work_mem', '{WORK_MEM_KB}', true)"""

_OF = "account_id = $1 and {a}.workflow_key = e.workflow_key"
_OF_INSTANCE, _OF_LIVE = f"i.{_OF.format(a='i')}", f"l.{_OF.format(a='l')}"
_MS = 10_000
WORK_MEM_KB = 16_384
"""Holds 100,000 executions without files."""

# For the transaction. A large part of the table may be asked for, yet the index has it in a tenth of the pages, and the
# table holds other accounts, too.
CONFINE = f"""
select set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('work_mem', '{WORK_MEM_KB}', true)"""

_OF = "account_id = $1 and {a}.workflow_key = e.workflow_key"
_OF_INSTANCE, _OF_LIVE = f"i.{_OF.format(a='i')}", f"l.{_OF.format(a='l')}"
_MS = "date_part('epoch', i.ended_at - i.started_at) * 1000"  # a float; `extract` computes with numerics

# One row for the whole window (bucket null), one per bucket that is not empty. $5 length of a bucket, $6 the first.
METRICS = f"""
with ended as materialized (
  select date_bin($5::interval, i.started_at, $6::timestamptz) as bucket, i.status = 6 as good,
         greatest({_MS}, 0)::float8 as ms
  from unnest($2::uuid[]) e(workflow_key) cross join unnest('{{6,7}}'::smallint[]) s(status) cross join lateral (
    select i.status, i.started_at, i.ended_at from instance i
    where {_OF_INSTANCE} and i.status = s.status and i.status >= 6 and i.dry_run is null
      and i.started_at >= $3 and i.started_at < $4) i)
select null::timestamptz as bucket, count(*) as n, count(*) filter (where good) as good, avg(ms) as mean,
       percentile_cont(array[0.5, 0.95, 0.99]) within group (order by ms) as percentiles from ended
union all
select bucket, count(*), count(*) filter (where good), avg(ms), null from ended group by 1"""

# Summed up range by range, which is half the work of joining rows first.
ENDED = f"""
select s.status, sum(i.n)::bigint as n, coalesce(sum(i.ms), 0)::float8 as ms
from unnest($2::uuid[]) e(workflow_key) cross join unnest('{{6,7,8}}'::smallint[]) s(status) cross join lateral (
  select count(*) as n, sum(greatest({_MS}, 0)) as ms from instance i
  where {_OF_INSTANCE} and i.status = s.status and i.status >= 6 and i.dry_run is null
    and i.started_at >= $3 and i.started_at < $4) i
where i.n > 0 group by 1"""

# Ended without a start: they count by their creation. $3 and $4 lowest and highest key.
NEVER_STARTED = f"""
select s.status, sum(i.n)::bigint as n
from unnest($2::uuid[]) e(workflow_key) cross join unnest('{{6,7,8}}'::smallint[]) s(status) cross join lateral (
  select count(*) as n from instance i
  where {_OF_INSTANCE} and i.status = s.status and i.status >= 6 and i.dry_run is null and i.started_at is null
    and i.key >= $3 and i.key <= $4) i group by 1"""

# All there ever were. Counters have dry runs, too.
ENDED_EVER = f"""
with dry as materialized (
  select i.status, count(*) as n, sum(took_us(i.started_at, i.ended_at)) as us
  from unnest($2::uuid[]) e(workflow_key) cross join lateral (
    select i.status, i.started_at, i.ended_at from instance i where {_OF_INSTANCE} and i.dry_run and i.status >= 6) i
  group by 1)
select c.status, (c.n - coalesce(d.n, 0))::bigint as n, ((c.us - coalesce(d.us, 0)) / 1000)::float8 as ms
from (select c.status, sum(c.n) as n, sum(c.us) as us from counter c
      where c.account_id = $1 and c.workflow_key = any ($2::uuid[]) group by 1) c
left join dry d on d.status = c.status"""

# By status; of the queued ones those apart that were never started.
_UNFINISHED = """
select l.status, l.workflow_key, l.status = 0 and l.started_at is null as fresh, count(*) as n
from unnest($2::uuid[]) e(workflow_key) cross join lateral ({rows}) l group by 1, 2, 3"""
_SHOWN = "select l.status, l.workflow_key, l.started_at, l.key from live l"
_BEGUN = f"{_SHOWN} where {_OF_LIVE} and l.started_at >= $3 and l.started_at < $4"
# Only these two statuses are shown of what no worker has had. $3 and $4 lowest and highest key.
_FRESH = f"""{_SHOWN} where {_OF_LIVE} and l.status = any ('{{0,3}}'::smallint[]) and l.started_at is null
    and l.key >= $3 and l.key <= $4"""
_DRY = f"""select r.* from instance i cross join lateral ({{rows}} and l.key = i.key) r
  where {_OF_INSTANCE} and i.dry_run and i.status = 0"""
UNFINISHED_BEGUN = _UNFINISHED.format(rows=_BEGUN)
UNFINISHED_FRESH = _UNFINISHED.format(rows=_FRESH)
DRY_BEGUN = _UNFINISHED.format(rows=_DRY.format(rows=_BEGUN))
DRY_FRESH = _UNFINISHED.format(rows=_DRY.format(rows=_FRESH))

# All there are now; the index alone is read.
UNFINISHED_EVER = f"""
select s.status, e.workflow_key, false as fresh, l.n
from unnest($2::uuid[]) e(workflow_key) cross join unnest('{{0,1,2,3,4,5}}'::smallint[]) s(status) cross join lateral (
  select count(*) as n from live l where {_OF_LIVE} and l.status = s.status) l where l.n > 0"""


_EVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Times:
    """A time of starts, its end not included, and the lowest and highest key of what was created in it."""

    since: datetime
    until: datetime
    keys: tuple[UUID, UUID]


def times_between(since: datetime | None, until: datetime | None) -> Times | None:
    """None for all times."""
    if since is None and until is None:
        return None
    begin, end = since or _EVER[0], until or _EVER[1]
    low, _ = key_bounds(Compare(Field.CREATED_AT, Op.GTE, begin))
    _, high = key_bounds(Compare(Field.CREATED_AT, Op.LT, end))
    return Times(begin, end, (low, high))


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


Tally = Counter[tuple[int, UUID, bool]]
"""How many are unfinished: by status, workflow, and whether they are queued and never started."""


async def ended(
    connection: asyncpg.Connection, account_id: UUID, workflows: Sequence[UUID], times: Times | None
) -> dict[int, tuple[int, float]]:
    """By status: how many ended so, and milliseconds in all; of those that started in a time, or ever."""
    if times is None:
        rows = await connection.fetch(ENDED_EVER, account_id, workflows)
        return {row["status"]: (row["n"], row["ms"]) for row in rows}
    rows = await connection.fetch(ENDED, account_id, workflows, times.since, times.until)
    found = {row["status"]: (row["n"], row["ms"]) for row in rows}
    for row in await connection.fetch(NEVER_STARTED, account_id, workflows, *times.keys):
        n, ms = found.get(row["status"], (0, 0.0))
        found[row["status"]] = n + row["n"], ms
    return found


async def unfinished(
    connection: asyncpg.Connection,
    account_id: UUID,
    workflows: Sequence[UUID],
    times: Times | None,
    held: Sequence[UUID],
) -> Tally:
    """How many started in a time, or ever. Without a time, those that never started are told apart only in workflows
    that are `held` back.
    """
    begun, fresh = ((times.since, times.until), times.keys) if times else (_EVER, (FIRST_KEY, LAST_KEY))
    tally: Tally = Counter()

    async def count(sign: int, statement: str, among: Sequence[UUID], *bounds: Any) -> None:
        for status, workflow, is_fresh, n in await connection.fetch(statement, account_id, among, *bounds):
            tally[status, workflow, is_fresh] += sign * n

    if times is not None:
        await count(1, UNFINISHED_BEGUN, workflows, *begun)
        await count(1, UNFINISHED_FRESH, workflows, *fresh)
    else:
        await count(1, UNFINISHED_EVER, workflows)
        if held:
            for status, workflow, is_fresh, n in await connection.fetch(UNFINISHED_FRESH, account_id, held, *fresh):
                if is_fresh:
                    tally[status, workflow, True] += n
                    tally[status, workflow, False] -= n
    await count(-1, DRY_BEGUN, workflows, *begun)
    await count(-1, DRY_FRESH, workflows, *fresh)
    return tally
