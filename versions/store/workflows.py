"""Workflows, as the API reads them and as deployments change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from versions.schemas import (
    WorkflowListed,
    WorkflowRow,
)

Connection = asyncpg.Connection

WORKFLOW_COLUMNS = (
    "w.account_id, w.workflow_key, w.no, w.handle, w.display_name, w.description, w.workspace_id, w.script_name,"
    " w.class_name, w.current_version, w.concurrency, w.created_at, w.modified_at, w.status, w.tags, w.metadata"
)
LIVING = "w.account_id = $1 and w.deleted_at is null"
VISIBLE = f"{LIVING} and ($2::uuid is null or w.workspace_id = $2)"

WORKFLOW = f"select {WORKFLOW_COLUMNS} from workflow w where {VISIBLE} and w.handle = $3"

# Whatever its workspace: a handle is taken for all of the account.
WORKFLOW_FOR_UPDATE = f"select {WORKFLOW_COLUMNS} from workflow w where {LIVING} and w.handle = $2 for update"

# What a list shows of each workflow. Finished instances are counted in `counter`, unfinished ones are the rows of
# `live`; the newest instance has the highest key.
_DETAILS = """
left join lateral (
  select i.created_at from instance i
  where i.account_id = $1 and i.workflow_key = p.workflow_key and i.deleted_at is null
  order by i.key desc limit 1
) newest on true
left join lateral (
  select array_agg(q.status) as statuses, array_agg(q.n) as numbers from (
    select c.status, sum(c.n)::bigint as n from counter c
    where c.account_id = $1 and c.workflow_key = p.workflow_key group by c.status having sum(c.n) > 0
    union all
    select l.status, count(*) from live l where l.account_id = $1 and l.workflow_key = p.workflow_key group by l.status
  ) q
) counted on true
left join lateral (
  select array_agg(s.cron order by s.created_at, s.id) as crons,
         array_agg(s.next_at order by s.created_at, s.id) as firings
  from schedule s where s.account_id = $1 and s.workflow_key = p.workflow_key
    and s.cron is not null and s.next_at is not null
) due on true
left join lateral (
  select not exists (select from script s where s.account_id = $1 and s.name = p.script_name
                     and s.workspace_id = p.workspace_id and s.deleted_at is null
                     and s.deployed_at is not null) as script_deleted
  from version v where v.account_id = $1 and v.version_key = p.current_version and v.script_id is not null
) code on true
"""
_DETAIL_COLUMNS = (
    "p.*, newest.created_at as triggered_at, counted.statuses, counted.numbers, due.crons, due.firings,"
    " code.script_deleted"
)

WORKFLOW_DETAILS = f"""
with p as materialized (select {WORKFLOW_COLUMNS} from workflow w where {VISIBLE} and w.handle = $3)
select {_DETAIL_COLUMNS} from p {_DETAILS}
"""

_MATCHING = f"{VISIBLE} and ($3::text is null or strpos(lower(w.handle), lower($3)) > 0)"

WORKFLOWS = f"""
with p as materialized (
  select {WORKFLOW_COLUMNS} from workflow w where {_MATCHING}
  order by w.created_at desc, w.workflow_key desc limit $4 offset $5
)
select {_DETAIL_COLUMNS} from p {_DETAILS} order by p.created_at desc, p.workflow_key desc
"""

COUNT_WORKFLOWS = f"select count(*) from workflow w where {_MATCHING}"

# Whoever names no workspace makes it in the account's default one. The conflict: another request made a workflow of
# that handle a moment ago.
INSERT_WORKFLOW = f"""
insert into workflow as w (account_id, workflow_key, handle, display_name, description, workspace_id, script_name,
                           class_name, created_at, modified_at)
values ($1, $2, $3, $3, '', coalesce($4, (select s.id from workspace s where s.account_id = $1 and s.slug = 'default')),
        '', '', $5, $5)
on conflict (account_id, handle) where deleted_at is null do nothing
returning {WORKFLOW_COLUMNS}
"""

SET_CURRENT_VERSION = f"""
update workflow w set current_version = $3, display_name = $4, description = $5, script_name = $6, class_name = $7,
                      concurrency = $8, modified_at = $9, events = $10
where w.account_id = $1 and w.workflow_key = $2
returning {WORKFLOW_COLUMNS}
"""

# Schedules go at once, so that none fires for a workflow that answers 404; the rest is the background job's.
DELETE_WORKFLOW = f"""
with gone as (
  update workflow w set deleted_at = $4, modified_at = $4 where {VISIBLE} and w.handle = $3
  returning w.workflow_key
), unscheduled as (
  delete from schedule s using gone where s.account_id = $1 and s.workflow_key = gone.workflow_key
), job as (
  insert into termination_job (account_id, id, workflow_key, kind, created_before, created_at)
  select $1, $5, gone.workflow_key, 'delete_workflow', $4, $4 from gone
  on conflict (account_id, workflow_key, kind)
    where finished_at is null and kind in ('terminate_all', 'delete_workflow') do nothing
)
select workflow_key from gone
"""

TERMINATOR_RUNNING = """
select exists (select from termination_job where account_id = $1 and workflow_key = $2 and finished_at is null
               and kind = 'terminate_all')
"""

TRIGGERED_AT = """
select created_at from instance where account_id = $1 and workflow_key = $2 and deleted_at is null
order by key desc limit 1
"""

# Who counts against a limit and inserts holds this until the end of the transaction, one at a time per account.
LOCK_ACCOUNT = "select pg_advisory_xact_lock(hashtextextended('versions of ' || $1::uuid, 0))"


async def workflow(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, handle: str
) -> WorkflowRow | None:
    row = await connection.fetchrow(WORKFLOW, account_id, workspace_id, handle)
    return None if row is None else msgspec.convert(dict(row), WorkflowRow)


async def workflow_for_update(connection: Connection, account_id: UUID, handle: str) -> WorkflowRow | None:
    """The workflow, locked until the end of the transaction."""
    row = await connection.fetchrow(WORKFLOW_FOR_UPDATE, account_id, handle)
    return None if row is None else msgspec.convert(dict(row), WorkflowRow)


async def insert_workflow(
    connection: Connection, account_id: UUID, key: UUID, handle: str, workspace_id: UUID | None, now: datetime
) -> WorkflowRow | None:
    """A new workflow without a version yet; None when the handle has just been taken."""
    row = await connection.fetchrow(INSERT_WORKFLOW, account_id, key, handle, workspace_id, now)
    return None if row is None else msgspec.convert(dict(row), WorkflowRow)


async def set_current_version(
    connection: Connection, account_id: UUID, workflow_key: UUID, version_key: UUID, values: Sequence[Any]
) -> WorkflowRow:
    """`values`: display name, description, script name, class name, concurrency, time, events that start it."""
    row = await connection.fetchrow(SET_CURRENT_VERSION, account_id, workflow_key, version_key, *values)
    return msgspec.convert(dict(row or {}), WorkflowRow)


async def delete_workflow(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, handle: str, now: datetime, job_id: UUID
) -> UUID | None:
    """Mark a workflow deleted and queue the rest; its key, None when there is none."""
    return await connection.fetchval(DELETE_WORKFLOW, account_id, workspace_id, handle, now, job_id)


async def workflow_details(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, handle: str
) -> WorkflowListed | None:
    row = await connection.fetchrow(WORKFLOW_DETAILS, account_id, workspace_id, handle)
    return None if row is None else _listed(row)


async def workflows(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, search: str | None, limit: int, offset: int
) -> tuple[list[WorkflowListed], int]:
    """One page, the newest first, and how many there are in all."""
    rows = await connection.fetch(WORKFLOWS, account_id, workspace_id, search, limit, offset)
    total = int(await connection.fetchval(COUNT_WORKFLOWS, account_id, workspace_id, search) or 0)
    return [_listed(row) for row in rows], total


def _listed(row: asyncpg.Record) -> WorkflowListed:
    found = dict(row)
    return WorkflowListed(
        row=msgspec.convert(found, WorkflowRow),
        triggered_at=found["triggered_at"],
        counts=dict(zip(found["statuses"] or (), found["numbers"] or (), strict=True)),
        schedules=list(zip(found["crons"] or (), found["firings"] or (), strict=True)),
        script_deleted=found["script_deleted"],
    )


async def count_workflows(connection: Connection, account_id: UUID) -> int:
    return int(await connection.fetchval(COUNT_WORKFLOWS, account_id, None, None) or 0)


async def terminator_running(connection: Connection, account_id: UUID, workflow_key: UUID) -> bool:
    return bool(await connection.fetchval(TERMINATOR_RUNNING, account_id, workflow_key))


async def triggered_at(connection: Connection, account_id: UUID, workflow_key: UUID) -> datetime | None:
    """When the newest instance was created."""
    return await connection.fetchval(TRIGGERED_AT, account_id, workflow_key)


async def lock_account(connection: Connection, account_id: UUID) -> None:
    await connection.execute(LOCK_ACCOUNT, account_id)
