"""Every SQL statement of this package.

Functions take a connection scoped to the account (`Database.scope`) and the account; writes expect a transaction.
`workspace_id` is the workspace a caller is restricted to, None for no restriction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from versions.schemas import (
    ScheduleRow,
    ScriptRow,
    SealedRow,
    VersionListed,
    VersionOrigin,
    VersionRow,
    WorkflowListed,
    WorkflowRow,
)

Connection = asyncpg.Connection


async def _count(connection: Connection, statement: str, *arguments: Any) -> int:
    return int(await connection.fetchval(statement, *arguments) or 0)


# --- workflows ---------------------------------------------------------------------------------------------------

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
                     and s.deleted_at is null and s.deployed_at is not null) as script_deleted
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
                      concurrency = $8, modified_at = $9
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
    """`values`: display name, description, script name, class name, concurrency, time."""
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
    total = await _count(connection, COUNT_WORKFLOWS, account_id, workspace_id, search)
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
    return await _count(connection, COUNT_WORKFLOWS, account_id, None, None)


async def terminator_running(connection: Connection, account_id: UUID, workflow_key: UUID) -> bool:
    return bool(await connection.fetchval(TERMINATOR_RUNNING, account_id, workflow_key))


async def triggered_at(connection: Connection, account_id: UUID, workflow_key: UUID) -> datetime | None:
    """When the newest instance was created."""
    return await connection.fetchval(TRIGGERED_AT, account_id, workflow_key)


async def lock_account(connection: Connection, account_id: UUID) -> None:
    await connection.execute(LOCK_ACCOUNT, account_id)


# --- versions ----------------------------------------------------------------------------------------------------

VERSION = """
select v.account_id, v.version_key, v.workflow_key, w.handle, w.display_name, w.workspace_id, v.no, v.language,
       v.runtime, v.class_name, v.script_id, v.source, v.settings, v.step_limit, v.success_retention_ms,
       v.error_retention_ms, v.created_at
from version v join workflow w on w.account_id = $1 and w.workflow_key = v.workflow_key
where v.account_id = $1 and v.version_key = $2
"""

_VERSION_LISTED = (
    "v.version_key, v.workflow_key, v.no, v.language, v.class_name, v.settings, v.graph is not null as has_graph,"
    " v.success_retention_ms, v.error_retention_ms, v.created_at"
)

VERSIONS = f"""
select {_VERSION_LISTED} from version v where v.account_id = $1 and v.workflow_key = $2
order by v.no desc limit $3 offset $4
"""

COUNT_VERSIONS = "select count(*) from version where account_id = $1 and workflow_key = $2"

VERSION_LISTED = f"""
select {_VERSION_LISTED} from version v where v.account_id = $1 and v.workflow_key = $2 and v.version_key = $3
"""

GRAPH = "select graph from version where account_id = $1 and version_key = $2"

ORIGIN = "select version_key, dialect, original from version where account_id = $1 and version_key = $2"

# What makes two versions the same.
SAME = """
select v.version_key from version v
where v.account_id = $1 and v.version_key = $2 and v.runtime = $3 and v.class_name = $4 and v.source_hash = $5
  and v.script_id is not distinct from $6 and v.settings = $7 and v.dialect = $8
"""

INSERT_VERSION = """
insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, script_id, source,
                     source_hash, graph, settings, dialect, original, step_limit, success_retention_ms,
                     error_retention_ms, created_by, created_at)
select $1, $2, $3, coalesce(max(v.no), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18
from version v where v.account_id = $1 and v.workflow_key = $3
"""


async def version(connection: Connection, account_id: UUID, version_key: UUID) -> VersionRow | None:
    row = await connection.fetchrow(VERSION, account_id, version_key)
    return None if row is None else msgspec.convert(dict(row), VersionRow)


async def versions(
    connection: Connection, account_id: UUID, workflow_key: UUID, limit: int, offset: int
) -> tuple[list[VersionListed], int]:
    """One page of a workflow's versions, the newest first, and how many there are in all."""
    rows = await connection.fetch(VERSIONS, account_id, workflow_key, limit, offset)
    total = await _count(connection, COUNT_VERSIONS, account_id, workflow_key)
    return [msgspec.convert(dict(row), VersionListed) for row in rows], total


async def version_listed(
    connection: Connection, account_id: UUID, workflow_key: UUID, version_key: UUID
) -> VersionListed | None:
    row = await connection.fetchrow(VERSION_LISTED, account_id, workflow_key, version_key)
    return None if row is None else msgspec.convert(dict(row), VersionListed)


async def graph(connection: Connection, account_id: UUID, version_key: UUID) -> str | None:
    """The graph as JSON text; None when the version has none."""
    return await connection.fetchval(GRAPH, account_id, version_key)


async def origin(connection: Connection, account_id: UUID, version_key: UUID) -> VersionOrigin | None:
    row = await connection.fetchrow(ORIGIN, account_id, version_key)
    return None if row is None else msgspec.convert(dict(row), VersionOrigin)


async def is_same(connection: Connection, account_id: UUID, version_key: UUID | None, *identity: Any) -> bool:
    """Whether the version has this `identity`: runtime, class, source hash, script, settings, dialect."""
    return await connection.fetchval(SAME, account_id, version_key, *identity) is not None


async def insert_version(connection: Connection, *values: Any) -> None:
    """`values` in the order of :data:`INSERT_VERSION`; the number is the workflow's next."""
    await connection.execute(INSERT_VERSION, *values)


# --- schedules ---------------------------------------------------------------------------------------------------

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
    return await _count(connection, COUNT_OTHER_SCHEDULES, account_id, workflow_key)


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


# --- scripts -----------------------------------------------------------------------------------------------------

_SCRIPT = (
    "s.account_id, s.id, s.name, s.metadata, s.bindings, s.secrets, s.etag, s.size_bytes, s.source, s.created_at,"
    " (select min(f.created_at) from script f where f.account_id = $1 and f.name = s.name and f.deleted_at is null)"
    " as first_created_at,"
    " (select t.settings from script_setting t where t.account_id = $1 and t.name = s.name) as settings"
)
_DEPLOYED = "s.account_id = $1 and s.deleted_at is null and s.deployed_at is not null"

# Whichever was deployed last, which may be an older upload.
SCRIPT = f"select {_SCRIPT} from script s where {_DEPLOYED} and s.name = $2 order by s.deployed_at desc limit 1"

SCRIPT_BY_ID = f"select {_SCRIPT} from script s where s.account_id = $1 and s.id = $2"

SCRIPTS = f"""
select * from (
  select distinct on (s.name) {_SCRIPT} from script s where {_DEPLOYED} order by s.name, s.deployed_at desc
) q order by q.name collate "C"
"""

RUNNABLE_SCRIPT = f"""
select {_SCRIPT}, s.compiled,
  coalesce((select d.secrets from script d where d.account_id = $1 and d.name = s.name and d.deleted_at is null
            and d.deployed_at is not null order by d.deployed_at desc limit 1), s.secrets) as current_secrets,
  (select coalesce(json_object_agg(w.class_name, w.handle), '{{}}')::text from workflow w
    where w.account_id = $1 and w.script_name = s.name and w.deleted_at is null) as classes
from script s where s.account_id = $1 and s.id = $2
"""

SCRIPT_MODULES = "select modules from script where account_id = $1 and id = $2"

COUNT_OTHER_SCRIPTS = """
select count(distinct name) from script where account_id = $1 and deleted_at is null and name <> $2
"""

# Two deployments of a script are never at the same time, whatever clocks say: the later one counts. Who inserts or
# deploys holds the script's lock.
DEPLOYED_NOW = (
    "greatest({now}::timestamptz, (select max(d.deployed_at) + interval '1 microsecond' from script d"
    " where d.account_id = $1 and d.name = {name}))"
)

NEXT_NUMBER = """coalesce((select f.number from script f where f.account_id = $1 and f.name = {name}
  and f.deleted_at is null order by f.no desc limit 1), 0) + 1"""
"""Of a script's next upload. The newest one is never deleted by itself; the script is locked."""

INSERT_SCRIPT = f"""
insert into script (account_id, id, name, metadata, modules, bindings, secrets, etag, size_bytes, source, author,
                    compiled, created_at, number, deployed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, {NEXT_NUMBER.format(name="$3")},
        case when $14::boolean then {DEPLOYED_NOW.format(now="$13", name="$3")} end)
"""

# Before the locks of workflows and of the account, for those who take these as well.
LOCK_SCRIPT = "select pg_advisory_xact_lock(hashtextextended('script ' || $2::text || ' of ' || $1::uuid, 0))"

# Of all accounts, for the operator's secret: engine role.
SEALED = """
select account_id, id, name, secrets from script where (account_id, id) > ($1, $2) and secrets <> '{}'
order by account_id, id limit $3
"""
REPLACE_SECRETS = """
update script set secrets = $4 where account_id = $1 and id = $2 and secrets = $3 returning id
"""


async def script(connection: Connection, account_id: UUID, name: str) -> ScriptRow | None:
    """The deployed upload of a script."""
    row = await connection.fetchrow(SCRIPT, account_id, name)
    return None if row is None else msgspec.convert(dict(row), ScriptRow)


async def script_by_id(connection: Connection, account_id: UUID, script_id: UUID) -> ScriptRow | None:
    """An upload, deployed or not."""
    row = await connection.fetchrow(SCRIPT_BY_ID, account_id, script_id)
    return None if row is None else msgspec.convert(dict(row), ScriptRow)


async def scripts(connection: Connection, account_id: UUID) -> list[ScriptRow]:
    """The deployed upload of each script, by name."""
    return [msgspec.convert(dict(row), ScriptRow) for row in await connection.fetch(SCRIPTS, account_id)]


async def runnable_script(connection: Connection, account_id: UUID, script_id: UUID) -> dict[str, Any] | None:
    """An upload, whether or not it is deployed still, with `compiled`, `current_secrets` (those of the deployed upload
    of that name) and `classes` (workflows of the script's classes, handle by class)."""
    row = await connection.fetchrow(RUNNABLE_SCRIPT, account_id, script_id)
    return None if row is None else dict(row)


async def script_modules(connection: Connection, account_id: UUID, script_id: UUID) -> str | None:
    """The modules of an upload, as JSON text."""
    return await connection.fetchval(SCRIPT_MODULES, account_id, script_id)


async def lock_script(connection: Connection, account_id: UUID, name: str) -> None:
    """One at a time per script, until the end of the transaction."""
    await connection.execute(LOCK_SCRIPT, account_id, name)


async def count_other_scripts(connection: Connection, account_id: UUID, name: str) -> int:
    return await _count(connection, COUNT_OTHER_SCRIPTS, account_id, name)


async def insert_script(connection: Connection, *values: Any) -> None:
    """`values` in the order of :data:`INSERT_SCRIPT`."""
    await connection.execute(INSERT_SCRIPT, *values)


async def sealed(engine: Any, account_id: UUID, script_id: UUID, limit: int) -> list[SealedRow]:
    """Uploads with secrets, behind this one, in order of account and id."""
    return [SealedRow(**row) for row in await engine.fetch(SEALED, account_id, script_id, limit)]


async def replace_secrets(engine: Any, account_id: UUID, script_id: UUID, old: str, new: str) -> bool:
    """Whether they still were `old`."""
    return await engine.fetchval(REPLACE_SECRETS, account_id, script_id, old, new) is not None
