"""Every statement of the background: termination jobs, due schedules, retention, roll-ups.

Starting and asking about a termination job is a tenant's business and goes through a scoped connection. The loops work
for all accounts on the engine role; each of their statements is one round trip and carries `(account_id, key)` in every
join, so that a process that freezes leaves no transaction open behind it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from instances.engine.client import Create, NewInstance
from instances.lifecycle import TriggerSource
from tenants.database import Database


@asynccontextmanager
async def _fresh_plans(db: Database) -> AsyncIterator[Any]:
    """A connection that plans for the tables as they are. Kept plans, made when they were empty, may read a whole
    table for a few rows; what runs here takes far longer than planning it, or runs seldom."""
    async with db.engine.acquire() as connection:
        await connection.execute("set plan_cache_mode = force_custom_plan")
        try:
            yield connection
        finally:
            if not connection.is_closed():
                await connection.execute("reset plan_cache_mode")


# --- what there is to do -----------------------------------------------------------------------------------------

Duty = Literal["termination", "schedules", "retention"]
"""What has to be done about when it is due."""

# The order makes the planner take the index on `retain_until` even while it knows nothing about the table.
_DUTIES_DUE = """
select array_remove(array[
  case when exists (select from termination_job where finished_at is null) then 'termination' end,
  case when exists (select from schedule where next_at <= $1) then 'schedules' end,
  case when (select true from instance where retain_until <= $1 order by retain_until limit 1) then 'retention' end
], null)
"""


async def duties_due(db: Database, now: datetime) -> Sequence[Duty]:
    """Which duties have something to do at `now`."""
    return await db.engine.fetchval(_DUTIES_DUE, now)


# --- termination jobs: what the API asks --------------------------------------------------------------------------

# A job under way that ends everything takes on what is asked now: it begins again from the first key, for whatever is
# unfinished now, in the statuses of both.
_START_JOB = """
insert into termination_job as j
  (account_id, id, workflow_key, kind, statuses, instance_keys, created_before, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $7)
on conflict (account_id, workflow_key, kind) where finished_at is null and kind in ('terminate_all', 'delete_workflow')
do update set position = null, created_before = excluded.created_before,
  statuses = case when j.statuses is not null and excluded.statuses is not null
             then array(select distinct s from unnest(j.statuses || excluded.statuses) s order by 1) end
returning id
"""

_IS_RUNNING = """
select exists (select from termination_job where account_id = $1 and workflow_key = $2 and finished_at is null
               and kind in ('terminate_all', 'delete_workflow'))
"""


async def start_job(
    connection: asyncpg.Connection,
    account_id: UUID,
    job_id: UUID,
    workflow_key: UUID,
    kind: str,
    statuses: Sequence[int] | None,
    keys: Sequence[UUID] | None,
    now: datetime,
) -> UUID:
    """Insert a job, or widen the open one of this kind where a workflow may have only one; the id of the job."""
    started = await connection.fetchval(_START_JOB, account_id, job_id, workflow_key, kind, statuses, keys, now)
    assert isinstance(started, UUID)
    return started


async def is_terminating(connection: asyncpg.Connection, account_id: UUID, workflow_key: UUID) -> bool:
    """Whether a job is under way that ends all instances of the workflow."""
    return bool(await connection.fetchval(_IS_RUNNING, account_id, workflow_key))


# --- termination jobs: what the worker does -----------------------------------------------------------------------

_OPEN_JOBS = """
select account_id, id, kind from termination_job where finished_at is null
order by worked_at nulls first, created_at limit $1
"""

# One statement takes the job (or skips it when another worker has it), ends a chunk and writes how far it came.
# A chunk is what is unfinished now, oldest key first over all statuses at once, so that no instance slips through by
# changing its status between two chunks. `terminate_runs` and `delete_instances` are the engine's.
_CHUNK = """
with job as materialized (
  select * from termination_job
  where account_id = $1 and id = $2 and finished_at is null for update skip locked
), found as materialized (
  {found}
), ended as materialized (
  {ended}
), moved as (
  update termination_job j
  set position = coalesce((select f.key from found f order by f.key desc limit 1), job.position),
      done = j.done + (select count(*) from ended where ended), worked_at = $4,
      finished_at = case when {finished} then $4 end
  from job where j.account_id = job.account_id and j.id = job.id
  returning j.finished_at
)
select (select count(*) from job) as taken, (select count(*) from found) as looked_at,
       (select count(*) from ended where ended) as ended, (select finished_at is not null from moved) as finished,
       array(select key from ended where owner is not null order by key) as held,
       array(select owner from ended where owner is not null order by key) as owners
"""

_ALL_UNFINISHED = """
  select q.key, q.created_at <= job.created_before as due from job cross join lateral (
    select c.key, i.created_at from unnest(coalesce(job.statuses, '{0,1,2,3,4,5}')) s(status)
    cross join lateral (
      select l.key from live l
      where l.account_id = job.account_id and l.workflow_key = job.workflow_key and l.status = s.status
        and l.key > coalesce(job.position, '00000000-0000-0000-0000-000000000000')
      order by l.key limit $3) c
    join instance i on i.account_id = job.account_id and i.key = c.key
    order by c.key limit $3) q
"""

_LISTED = """
  select q.key, true as due from job cross join lateral (
    select i.key from unnest(job.instance_keys) k(key)
    join instance i on i.account_id = job.account_id and i.key = k.key and i.workflow_key = job.workflow_key
    where k.key > coalesce(job.position, '00000000-0000-0000-0000-000000000000')
    order by k.key limit $3) q
"""

# Everything a workflow has, finished or not, but no more than `$5` journal entries at once: one giant alone. By id, as
# only an index that begins with the workflow has that order: by key, other workflows' instances would be read, too.
_EVERYTHING = """
  select q.key, true as due from job cross join lateral (
    select i.key, i.size, sum(i.size) over (order by i.key) as total from (
      select i.key, greatest(i.seq, coalesce(l.seq, 0)) as size
      from (select x.key, x.seq from instance x
            where x.account_id = job.account_id and x.workflow_key = job.workflow_key
            order by x.instance_id limit $3) i
      left join live l on l.account_id = job.account_id and l.key = i.key) i) q
  where q.total - q.size < $5
"""

_TERMINATE = """
  select t.key, t.ended, t.owner from job
  cross join lateral terminate_runs(job.account_id, array(select f.key from found f where f.due), false, $4) t
"""

_DELETE = """
  select d.key, true as ended, d.owner from job
  cross join lateral delete_instances(job.account_id, array(select f.key from found f), $4) d
"""

_SHORT_CHUNK = "(select count(*) from found) < $3"

_CHUNKS = {
    "terminate_all": _CHUNK.format(found=_ALL_UNFINISHED, ended=_TERMINATE, finished=_SHORT_CHUNK),
    "terminate_batch": _CHUNK.format(found=_LISTED, ended=_TERMINATE, finished=_SHORT_CHUNK),
    "delete_batch": _CHUNK.format(found=_LISTED, ended=_DELETE, finished=_SHORT_CHUNK),
    "delete_workflow": _CHUNK.format(found=_EVERYTHING, ended=_DELETE, finished="false"),
}

# The last act of `delete_workflow`: when nothing was left for a while longer than any create takes, the rest goes. The
# workflow's own row stays, marked deleted: its number and history lines may still be asked for.
_FINISH_DELETED = """
with job as materialized (
  select * from termination_job j
  where account_id = $1 and id = $2 and finished_at is null and created_at <= $4
    and not exists (select from instance i where i.account_id = j.account_id and i.workflow_key = j.workflow_key)
  for update skip locked
), s as (
  delete from schedule x using job where x.account_id = job.account_id and x.workflow_key = job.workflow_key
), n as (
  delete from node_statistics x using job where x.account_id = job.account_id and x.workflow_key = job.workflow_key
), c as (
  delete from counter x using job where x.account_id = job.account_id and x.workflow_key = job.workflow_key
), w as (
  update workflow x set current_version = null from job
  where x.account_id = job.account_id and x.workflow_key = job.workflow_key and x.deleted_at is not null
), v as (
  delete from version x using job where x.account_id = job.account_id and x.workflow_key = job.workflow_key
)
update termination_job j set finished_at = $3 from job where j.account_id = job.account_id and j.id = job.id
returning j.id
"""


@dataclass(frozen=True, slots=True)
class OpenJob:
    account_id: UUID
    id: UUID
    kind: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one chunk of a job did."""

    taken: bool
    """False: another worker has the job, or it is over."""
    looked_at: int
    ended: int
    finished: bool
    held: list[tuple[UUID, int]]
    """Runs that were in a worker's hands, and whose."""


async def open_jobs(db: Database, limit: int) -> list[OpenJob]:
    """Jobs that are not finished, the one that waited longest first."""
    return [OpenJob(row["account_id"], row["id"], row["kind"]) for row in await db.engine.fetch(_OPEN_JOBS, limit)]


async def work_chunk(db: Database, job: OpenJob, size: int, now: datetime, entries: int) -> Chunk:
    """End or delete the next `size` instances of `job` at most; deletes touch about `entries` journal entries."""
    arguments: list[Any] = [job.account_id, job.id, size, now]
    if job.kind == "delete_workflow":
        arguments.append(entries)
    async with _fresh_plans(db) as connection:
        row = await connection.fetchrow(_CHUNKS[job.kind], *arguments)
    assert row is not None
    held = list(zip(row["held"], row["owners"], strict=True))
    return Chunk(bool(row["taken"]), row["looked_at"], row["ended"], bool(row["finished"]), held)


async def finish_deleted(db: Database, job: OpenJob, now: datetime, started_before: datetime) -> bool:
    """Drop what a deleted workflow leaves once it has no instance; False while it is too early or one is left."""
    return await db.engine.fetchval(_FINISH_DELETED, job.account_id, job.id, now, started_before) is not None


# --- schedules ----------------------------------------------------------------------------------------------------

# `shadowed`: an older schedule of the workflow has the same expression, so instance ids made of it are that one's.
_DUE_SCHEDULES = """
select s.account_id, s.id, s.cron, s.interval_ms, s.timezone, s.overlap, s.max_runs, s.runs, s.input, s.next_at,
       w.handle, w.handle is not null and a.disabled_at is null as enabled,
       not s.overlap and exists (select from live l where l.account_id = s.account_id and l.key = s.last_key) as busy,
       s.cron is not null and exists (
         select from schedule x where x.account_id = s.account_id and x.workflow_key = s.workflow_key
           and x.cron = s.cron and (x.created_at, x.id) < (s.created_at, s.id)) as shadowed
from schedule s
left join workflow w on w.account_id = s.account_id and w.workflow_key = s.workflow_key and w.deleted_at is null
  and w.current_version is not null
left join account a on a.account_id = s.account_id
where s.next_at <= $1 order by s.next_at limit $2
"""

# One statement moves the schedules that still are where they were read and creates their instances: whoever comes too
# late creates nothing, even if the instance has ended and is gone by then. `create_instances` wants its arrays sorted.
_FIRE_SCHEDULES = """
with n as materialized (
  select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[],
                       $8::text[], $9::text[], $10::int[])
    as n(account_id, id, was, next_at, key, handle, instance_id, input, detail, queued) order by account_id, id
), held as materialized (
  select n.* from n cross join lateral (
    select from schedule s where s.account_id = n.account_id and s.id = n.id and s.next_at = n.was for update) s
), wanted as materialized (
  select *, row_number() over (order by account_id, handle collate "C", instance_id collate "C") as o
  from held where key is not null
), made as materialized (
  select c.o, c.outcome from (
    select count(*)::int as n, array_agg(account_id order by o) as accounts, array_agg(handle order by o) as handles,
           array_agg(key order by o) as keys, array_agg(instance_id order by o) as ids,
           array_agg(input order by o) as inputs, array_agg(detail order by o) as details,
           array_agg(queued order by o) as limits
    from wanted having count(*) > 0) w
  cross join lateral create_instances(
    w.accounts, w.handles, w.keys, w.ids, w.inputs, array_fill($12::smallint, array[w.n]), w.details,
    array_fill(null::text, array[w.n]), array_fill(null::bigint, array[w.n]), array_fill(null::bigint, array[w.n]),
    array_fill(null::uuid, array[w.n]), array_fill(null::text, array[w.n]), array_fill(0::smallint, array[w.n]),
    w.limits, $11) c
), done as materialized (
  select h.account_id, h.id, h.next_at, h.key, m.outcome, coalesce(m.outcome in (0, 1), false) as fired
  from held h left join wanted w on w.account_id = h.account_id and w.id = h.id left join made m on m.o = w.o
)
update schedule s
set next_at = case when d.outcome = 2 or s.runs + d.fired::int >= s.max_runs then null else d.next_at end,
    last_key = case when d.fired then d.key else s.last_key end, runs = s.runs + d.fired::int
from done d where s.account_id = d.account_id and s.id = d.id
returning s.id, d.outcome
"""


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule whose time has come."""

    account_id: UUID
    id: UUID
    cron: str | None
    interval_ms: int | None
    timezone: str
    overlap: bool
    max_runs: int | None
    runs: int
    input: str | None
    next_at: datetime
    handle: str | None
    """The workflow, by handle; None when it is deleted or has no version."""
    enabled: bool
    """False: the workflow is gone or the account disabled."""
    busy: bool
    """Firings may not overlap and the last one's instance is unfinished."""
    shadowed: bool
    """An older schedule of the workflow has the same cron expression."""


@dataclass(frozen=True, slots=True)
class ScheduleMove:
    """`was` -> `next_at` (None: never again), creating `instance`; None: this firing is left out."""

    account_id: UUID
    id: UUID
    was: datetime
    next_at: datetime | None
    instance: NewInstance | None


async def due_schedules(db: Database, now: datetime, limit: int) -> list[DueSchedule]:
    """Schedules due at `now`, the longest overdue first."""
    return [DueSchedule(**dict(row)) for row in await db.engine.fetch(_DUE_SCHEDULES, now, limit)]


async def fire_schedules(db: Database, moves: Sequence[ScheduleMove], now: datetime) -> dict[UUID, Create | None]:
    """Move each schedule on, unless somebody else has, and create its instance: all or nothing.

    What became of the instances of those that were moved here, by schedule; None where there was none to create.
    """
    wanted = [m.instance for m in moves]
    rows = await db.engine.fetch(
        _FIRE_SCHEDULES,
        [m.account_id for m in moves],
        [m.id for m in moves],
        [m.was for m in moves],
        [m.next_at for m in moves],
        [i and i.key for i in wanted],
        [i and i.handle for i in wanted],
        [i and i.instance_id for i in wanted],
        [i and i.input for i in wanted],
        [i and i.trigger_detail for i in wanted],
        [i and i.max_queued for i in wanted],
        now,
        TriggerSource.CRON,
    )
    return {row["id"]: None if row["outcome"] is None else Create(row["outcome"]) for row in rows}


# --- retention ----------------------------------------------------------------------------------------------------

# All of an instance goes in one statement, so a reader sees the whole instance or none of it, and a crash leaves no
# orphans. `before` bounds the journal entries of one transaction. What is being restarted is locked and skipped. The
# cast keeps the planner from the index of finished instances, which it takes for small while its statistics are old.
_RETIRE = """
with due as materialized (
  select i.account_id, i.key, i.workflow_key, i.status, i.seq from instance i
  where i.retain_until <= $1 and i.status::int >= 6
  order by i.retain_until limit $2 for update skip locked
), fit as materialized (
  select * from (select due.*, sum(seq) over (order by account_id, key) - seq as before from due) q where before < $3
), gone as (
  delete from instance i using fit where i.account_id = fit.account_id and i.key = fit.key
), counted as (
  insert into counter (account_id, workflow_key, slot, status, n)
  select account_id, workflow_key, 0, status, -count(*) from fit group by 1, 2, 4 order by 1, 2, 4
  on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n
), entries as (
  delete from journal j using fit where j.account_id = fit.account_id and j.key = fit.key
), unread as (
  delete from inbox q using fit where q.account_id = fit.account_id and q.key = fit.key
), notices as (
  delete from notification n using fit where n.account_id = fit.account_id and n.instance_key = fit.key
), tasks as (
  delete from task t using fit where t.account_id = fit.account_id and t.instance_key = fit.key
)
select (select count(*) from fit) as retired, (select count(*) from due) as due
"""

# Rows of short-lived kinds: table, and when a row is old ($1: now). Those of `tenants` are its own service's.
_EXPIRED = {
    "feed": "at < $1::timestamptz - interval '1 day'",
    "termination_job": "finished_at < $1::timestamptz - interval '7 days'",
}

_DELETE_EXPIRED = """
delete from {table} where ctid = any (array(select ctid from {table} where {condition} limit $2 for update skip locked))
"""

_EXPIRE = {table: _DELETE_EXPIRED.format(table=table, condition=condition) for table, condition in _EXPIRED.items()}


async def retire_instances(db: Database, now: datetime, limit: int, entries: int) -> tuple[int, bool]:
    """Delete up to `limit` instances whose retention is over, with about `entries` journal entries at most.

    Returns how many went and whether more may be waiting.
    """
    async with _fresh_plans(db) as connection:
        row = await connection.fetchrow(_RETIRE, now, limit, entries)
    return row["retired"], row["due"] == limit or row["retired"] < row["due"]


async def expire(db: Database, now: datetime, limit: int) -> dict[str, int]:
    """Delete up to `limit` outlived rows of each short-lived kind; how many went, by table."""
    gone: dict[str, int] = {}
    for table, statement in _EXPIRE.items():
        answer = await db.engine.execute(statement, now, limit)
        gone[table] = int(answer.rsplit(" ", 1)[-1])
    return gone


# --- roll-ups -----------------------------------------------------------------------------------------------------

# Counters of finished instances have a row per writer slot; many are folded into slot 0, which belongs to background
# work. Writers hold one row at most while they wait for none of ours (skip locked), so nobody waits in a circle.
_FOLD_COUNTERS = """
with crowded as materialized (
  select account_id, workflow_key, status from counter where slot > 0
  group by 1, 2, 3 having count(*) >= $1 order by 1, 2, 3 limit $2
), locked as materialized (
  select c.account_id, c.workflow_key, c.status, c.slot from crowded g
  cross join lateral (
    select x.account_id, x.workflow_key, x.status, x.slot from counter x
    where x.account_id = g.account_id and x.workflow_key = g.workflow_key and x.status = g.status and x.slot > 0
    for update skip locked) c
), gone as (
  delete from counter c using locked k
  where c.account_id = k.account_id and c.workflow_key = k.workflow_key and c.status = k.status and c.slot = k.slot
  returning c.account_id, c.workflow_key, c.status, c.n
), summed as (
  insert into counter (account_id, workflow_key, slot, status, n)
  select account_id, workflow_key, 0, status, sum(n) from gone group by 1, 2, 4 order by 1, 2, 4
  on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + excluded.n
  returning 1
)
select count(*) from summed
"""

_FIRST_CURSOR = """
insert into feed_cursor (name, xid, no) values ($1, pg_snapshot_xmin(pg_current_snapshot()), 0)
on conflict (name) do nothing
"""

_ANYTHING_NEW = """
select 1 from feed_cursor c cross join lateral (
  select from feed f where (f.xid, f.no) > (c.xid, c.no) and f.xid < pg_snapshot_xmin(pg_current_snapshot())
  order by f.xid, f.no limit 1) f
where c.name = $1
"""

# Mean duration of a document's nodes, an exponential mean over about `$3` runs. A sample is enough: when the feed ran
# ahead, the oldest part is passed over. One worker at a time (the cursor's row is locked or skipped).
_MEASURE_NODES = """
with mark as materialized (
  select name, xid, no from feed_cursor where name = $1 for update skip locked
), grown as materialized (
  select f.* from mark cross join lateral (
    select f.account_id, f.workflow_key, f.xid, f.no, f.keys, f.first_seqs, f.last_seqs from feed f
    where (f.xid, f.no) > (mark.xid, mark.no) and f.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by f.xid desc, f.no desc limit $2) f
), runs as materialized (
  select g.account_id, g.workflow_key, k.key, k.first, k.last from grown g
  cross join lateral (select v.runtime from workflow w join version v on v.account_id = w.account_id
                      and v.version_key = w.current_version
                      where w.account_id = g.account_id and w.workflow_key = g.workflow_key) v
  cross join lateral (select * from unnest(g.keys, g.first_seqs, g.last_seqs) as k(key, first, last) limit 5) k
  where v.runtime = 0
), steps as materialized (
  select r.account_id, r.workflow_key, r.first, e.* from runs r
  cross join lateral (
    select j.seq, j.kind, j.name, max(j.at) filter (where j.kind = 2) over (
             partition by j.name, j.count, j.run order by j.seq) as started, j.at
    from journal j
    where j.account_id = r.account_id and j.key = r.key and j.kind in (2, 6)
      and j.seq between r.first - 200 and r.last) e
), fresh as materialized (
  select account_id, workflow_key, name as node, count(*) as n,
         avg(extract(epoch from at - started) * 1000)::float8 as mean
  from steps where kind = 6 and seq >= first and started is not null
  group by 1, 2, 3 order by 1, 2, 3
), written as (
  insert into node_statistics (account_id, workflow_key, node, runs, mean_ms)
  select account_id, workflow_key, node, n, mean from fresh
  on conflict (account_id, workflow_key, node) do update
  set mean_ms = node_statistics.mean_ms + (excluded.mean_ms - node_statistics.mean_ms)
                * least(1.0, excluded.runs::float8 / least($3, node_statistics.runs + excluded.runs)),
      runs = node_statistics.runs + excluded.runs
  returning 1
), moved as (
  update feed_cursor c set xid = g.xid, no = g.no
  from (select xid, no from grown order by xid desc, no desc limit 1) g where c.name = $1
)
select (select count(*) from grown) as rows, (select count(*) from written) as nodes
"""

# Reads every row. As a sample of all of them it does so page by page, in one process: engine connections are made to
# use an index, which takes far longer, and a scan that is shared out costs three processes for what nobody waits for.
_BACKLOG = """
select status, count(*) as n, min(ready_at) filter (where phase = 0 and ready_at <= $1) as oldest
from live tablesample system (100) group by 1
"""


async def fold_counters(db: Database, at_least: int, limit: int) -> int:
    """Fold counters spread over `at_least` slots or more into one; returns how many (workflow, status) were folded."""
    async with _fresh_plans(db) as connection:
        return await connection.fetchval(_FOLD_COUNTERS, at_least, limit)


async def measure_nodes(db: Database, cursor: str, limit: int, window: int) -> int:
    """Take up to `limit` new rows of the feed into the nodes' mean durations; returns how many nodes were updated."""
    if await db.engine.fetchval(_ANYTHING_NEW, cursor) is None:
        return 0
    async with _fresh_plans(db) as connection:
        row = await connection.fetchrow(_MEASURE_NODES, cursor, limit, window)
    return row["nodes"]


async def open_cursor(db: Database, cursor: str) -> None:
    """Have the cursor exist; a new one begins with what happens from now on."""
    await db.engine.execute(_FIRST_CURSOR, cursor)


async def backlog(db: Database, now: datetime) -> tuple[dict[int, int], datetime | None]:
    """Unfinished instances of all accounts by status, and since when the oldest that could run has been ready."""
    rows = await db.engine.fetch(_BACKLOG, now)
    return {row["status"]: row["n"] for row in rows}, min((r["oldest"] for r in rows if r["oldest"]), default=None)
