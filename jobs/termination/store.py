"""Every statement about termination jobs.

Starting one and asking about it is a tenant's business and goes through a scoped connection. Doing them is the
worker's, for all accounts, on the engine role: each of its statements is one round trip and carries `(account_id, key)`
in every join, so that a process that freezes leaves no transaction open behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from tenants.database import Database

# --- what the API asks -----------------------------------------------------------------------------------------------

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


# --- what the worker does --------------------------------------------------------------------------------------------

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

# The last act of `delete_workflow`: when nothing was left for a while longer than any create takes, what is shown of it
# goes. Its versions, which may be many and large, and its own row are left to `jobs.retention.workflows`.
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
)
update termination_job j set finished_at = $3 from job where j.account_id = job.account_id and j.id = job.id
returning j.id
"""


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that is not finished."""

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
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_CHUNKS[job.kind], *arguments)
    assert row is not None
    held = list(zip(row["held"], row["owners"], strict=True))
    return Chunk(bool(row["taken"]), row["looked_at"], row["ended"], bool(row["finished"]), held)


async def finish_deleted(db: Database, job: OpenJob, now: datetime, started_before: datetime) -> bool:
    """Drop what a deleted workflow leaves once it has no instance; False while it is too early or one is left."""
    return await db.engine.fetchval(_FINISH_DELETED, job.account_id, job.id, now, started_before) is not None
