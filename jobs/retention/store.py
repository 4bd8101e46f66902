"""Every statement that deletes what has outlived its time, for all accounts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from tenants.database import Database
from tenants.limits import WORKFLOW_VERSIONS_KEPT

# An instance stays until endpoints have been told of its end: while somebody reads the feed for the account, what he
# has not read of the workflow must be younger. (Times of processes may be a little apart.)
_TOLD = """
not exists (
  select from feed_cursor c cross join lateral (
    select f.at from feed f where f.account_id = {of}.account_id and f.workflow_key = {of}.workflow_key
      and (f.xid, f.no) > (c.xid, c.no) order by f.xid, f.no limit 1) f
  where c.name = 'webhooks/' || {of}.account_id and f.at <= {at} + interval '10 seconds')
"""

# All of an instance goes in one statement, so a reader sees the whole instance or none of it, and a crash leaves no
# orphans. `before` bounds the journal entries of one transaction. What is being restarted is locked and skipped. The
# cast keeps the planner from the index of finished instances, which it takes for small while its statistics are old.
_RETIRE = f"""
with due as materialized (
  select i.account_id, i.key, i.workflow_key, i.status, i.seq, i.started_at, i.ended_at from instance i
  where i.retain_until <= $1 and i.status::int >= 6 and {_TOLD.format(of="i", at="i.ended_at")}
  order by i.retain_until limit $2 for update skip locked
), fit as materialized (
  select * from (select due.*, sum(seq) over (order by account_id, key) - seq as before from due) q where before < $3
), gone as (
  delete from instance i using fit where i.account_id = fit.account_id and i.key = fit.key
), counted as (
  insert into counter (account_id, workflow_key, slot, status, n, us)
  select account_id, workflow_key, 0, status, -count(*), -sum(took_us(started_at, ended_at)) from fit
  group by 1, 2, 4 order by 1, 2, 4
  on conflict (account_id, workflow_key, status, slot) do update
  set n = counter.n + excluded.n, us = counter.us + excluded.us
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
    "feed": """at < $1::timestamptz - interval '1 day' and not exists (select from feed_cursor c
               where c.name = 'webhooks/' || feed.account_id and (feed.xid, feed.no) > (c.xid, c.no))""",
    "termination_job": "finished_at < $1::timestamptz - interval '7 days'",
}

_DELETE_EXPIRED = """
delete from {table} where ctid = any (array(select ctid from {table} where {condition} limit $2 for update skip locked))
"""

_EXPIRE = {table: _DELETE_EXPIRED.format(table=table, condition=condition) for table, condition in _EXPIRED.items()}

# --- workflows ---------------------------------------------------------------------------------------------------

# A deleted workflow `w` nobody can ask for any more: no instance is left to be shown or repeated, none is being made
# (that takes seconds), and nobody has to be told of anything. $1: now.
_FORGOTTEN = """
w.deleted_at < $1::timestamptz - interval '1 day'
and not exists (select from instance i where i.account_id = w.account_id and i.workflow_key = w.workflow_key)
and not exists (select from feed f where f.account_id = w.account_id and f.workflow_key = w.workflow_key)
and not exists (select from termination_job j where j.account_id = w.account_id and j.workflow_key = w.workflow_key
                and j.finished_at is null and j.kind in ('terminate_all', 'delete_workflow'))
"""

# A version `v` of workflow `w` that goes unless an instance has it: not among the latest, and for a day no longer the
# one instances are created with. $1: now.
_OUTLIVED = f"""
v.account_id = w.account_id and v.workflow_key = w.workflow_key and v.version_key is distinct from w.current_version
and v.no <= (select x.no from version x where x.account_id = w.account_id and x.workflow_key = w.workflow_key
             order by x.no desc offset {WORKFLOW_VERSIONS_KEPT} limit 1)
and (select x.created_at from version x where x.account_id = w.account_id and x.workflow_key = w.workflow_key
     and x.no > v.no order by x.no limit 1) < $1::timestamptz - interval '1 day'
"""

_NEXT_WORKFLOW = f"""
with w as materialized (
  select account_id, workflow_key, current_version, deleted_at from workflow
  where (account_id, workflow_key) > ($2::uuid, $3::uuid) order by account_id, workflow_key limit $4
), todo as (
  select w.account_id, w.workflow_key, q.forgotten from w
  cross join lateral (select ({_FORGOTTEN}) is true as forgotten offset 0) q
  where q.forgotten or exists (select from version v where {_OUTLIVED})
  order by w.account_id, w.workflow_key limit 1
)
select t.account_id, t.workflow_key, t.forgotten, l.account_id as last_account, l.workflow_key as last_workflow
from (select 1) one left join todo t on true
left join (select account_id, workflow_key from w order by account_id desc, workflow_key desc limit 1) l on true
"""

_OUTLIVED_VERSIONS = f"""
select v.version_key, v.no from workflow w, version v
where w.account_id = $2 and w.workflow_key = $3 and v.no > $4 and {_OUTLIVED} order by v.no limit $5
"""

# In the order of keys, which is that of creation.
_VERSIONS_IN_USE = """
with page as materialized (
  select i.key, i.version_key from instance i
  where i.account_id = $1 and i.workflow_key = $2 and i.deleted_at is null and i.key > $3 order by i.key limit $4
)
select array(select distinct version_key from page) as versions,
       (select key from page order by key desc limit 1) as last, (select count(*) from page) as rows
"""

_VERSIONS_OF_HIDDEN = """
select distinct version_key from instance where account_id = $1 and workflow_key = $2 and deleted_at is not null
"""

# The row of the workflow is locked first, so that workers do not wait for each other's versions.
_DELETE_VERSIONS = f"""
with w as materialized (
  select account_id, workflow_key, current_version from workflow w
  where w.account_id = $2 and w.workflow_key = $3 for update skip locked
), due as (
  select v.account_id, v.version_key from w, version v
  where v.version_key = any ($4::uuid[]) and {_OUTLIVED} and {_TOLD.format(of="v", at="v.created_at")}
)
delete from version v using due where v.account_id = due.account_id and v.version_key = due.version_key
"""

_LOCK_FORGOTTEN = f"""
w as materialized (
  select w.account_id, w.workflow_key from workflow w
  where w.account_id = $2 and w.workflow_key = $3 and {_FORGOTTEN} for update skip locked
)
"""

_DELETE_FORGOTTEN_VERSIONS = f"""
with {_LOCK_FORGOTTEN}, due as (
  select v.account_id, v.version_key from w
  join version v on v.account_id = w.account_id and v.workflow_key = w.workflow_key limit $4
)
delete from version v using due where v.account_id = due.account_id and v.version_key = due.version_key
"""

_DELETE_FORGOTTEN = f"""
with {_LOCK_FORGOTTEN}, bare as materialized (
  select w.account_id, w.workflow_key from w
  where not exists (select from version v where v.account_id = w.account_id and v.workflow_key = w.workflow_key)
), statistics as (
  delete from node_statistics x using bare b where x.account_id = b.account_id and x.workflow_key = b.workflow_key
), counters as (
  delete from counter x using bare b where x.account_id = b.account_id and x.workflow_key = b.workflow_key
), schedules as (
  delete from schedule x using bare b where x.account_id = b.account_id and x.workflow_key = b.workflow_key
)
delete from workflow x using bare b where x.account_id = b.account_id and x.workflow_key = b.workflow_key
"""


class Workflow(NamedTuple):
    """A workflow of any account."""

    account_id: UUID
    key: UUID


class Outlived(NamedTuple):
    """A workflow with something to delete: all of it, when it is `forgotten`, else old versions of it."""

    workflow: Workflow
    forgotten: bool


async def next_workflow(db: Database, after: Workflow, now: datetime, limit: int) -> tuple[Outlived | None, Workflow]:
    """The first of the next `limit` workflows behind `after` that has something to delete, and behind which to look
    next: none has when that is no key at all."""
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_NEXT_WORKFLOW, now, *after, limit)
    if row["account_id"] is not None:
        found = Workflow(row["account_id"], row["workflow_key"])
        return Outlived(found, row["forgotten"]), found
    last = FIRST if row["last_account"] is None else Workflow(row["last_account"], row["last_workflow"])
    return None, last


FIRST = Workflow(UUID(int=0), UUID(int=0))
"""Before every workflow."""


async def outlived_versions(
    db: Database, workflow: Workflow, after: int, now: datetime, limit: int
) -> tuple[set[UUID], int]:
    """Versions of a workflow that go unless an instance has them, of the next `limit` numbers behind `after`, and the
    last number among them."""
    async with db.fresh_plans() as connection:
        rows = await connection.fetch(_OUTLIVED_VERSIONS, now, *workflow, after, limit)
    return {row["version_key"] for row in rows}, rows[-1]["no"] if rows else after


async def versions_in_use(db: Database, workflow: Workflow, after: UUID, limit: int) -> tuple[set[UUID], UUID | None]:
    """Versions of the next `limit` instances of a workflow behind key `after`, and the last of their keys; None when
    there are no more. Hidden instances are left out."""
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_VERSIONS_IN_USE, *workflow, after, limit)
    return set(row["versions"]), row["last"] if row["rows"] == limit else None


async def versions_of_hidden(db: Database, workflow: Workflow) -> set[UUID]:
    """Versions of instances that are hidden until their retention is over."""
    async with db.fresh_plans() as connection:
        rows = await connection.fetch(_VERSIONS_OF_HIDDEN, *workflow)
    return {row["version_key"] for row in rows}


async def delete_versions(db: Database, workflow: Workflow, versions: Collection[UUID], now: datetime) -> int:
    """Delete versions nobody was found to need; how many went."""
    async with db.fresh_plans() as connection:
        answer = await connection.execute(_DELETE_VERSIONS, now, *workflow, list(versions))
    return int(answer.rsplit(" ", 1)[-1])


async def delete_forgotten(db: Database, workflow: Workflow, now: datetime, limit: int) -> tuple[int, bool]:
    """Delete up to `limit` versions of a deleted workflow nobody can ask for, and what else there is of it after the
    last; how many versions went, and whether the workflow did."""
    async with db.fresh_plans() as connection:
        answer = await connection.execute(_DELETE_FORGOTTEN_VERSIONS, now, *workflow, limit)
        gone = int(answer.rsplit(" ", 1)[-1])
        over = "DELETE 0" if gone == limit else await connection.execute(_DELETE_FORGOTTEN, now, *workflow)
    return gone, over == "DELETE 1"


# --- instances and short-lived rows ------------------------------------------------------------------------------


async def retire_instances(db: Database, now: datetime, limit: int, entries: int) -> tuple[int, bool]:
    """Delete up to `limit` instances whose retention is over, with about `entries` journal entries at most.

    Returns how many went and whether more may be waiting.
    """
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_RETIRE, now, limit, entries)
    return row["retired"], row["due"] == limit or row["retired"] < row["due"]


async def expire(db: Database, now: datetime, limit: int) -> dict[str, int]:
    """Delete up to `limit` outlived rows of each short-lived kind; how many went, by table."""
    gone: dict[str, int] = {}
    for table, statement in _EXPIRE.items():
        answer = await db.engine.execute(statement, now, limit)
        gone[table] = int(answer.rsplit(" ", 1)[-1])
    return gone
