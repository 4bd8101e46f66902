"""Every SQL statement about workflows and their versions as the translated faces see them.

`$1` is the account; `workspace_id` the workspace the caller is restricted to, None for no restriction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from versions.definitions.schemas import Definition, Named, NodeFigure
from versions.schemas import WorkflowRow
from versions.store.workflows import LIVING, VISIBLE, WORKFLOW_COLUMNS

Connection = asyncpg.Connection

_VERSION_COLUMNS = (
    "v.version_key, v.no as version_no, v.language, v.runtime, v.class_name as version_class, v.source, v.settings,"
    " v.dialect, v.original, v.created_by, v.created_at as version_created_at"
)
_COUNTED_COLUMNS = ", newest.created_at as last_execution_at, counted.n as executions"

# Finished instances are counted in `counter`, unfinished ones are the rows of `live`.
_COUNTED = """
left join lateral (
  select i.created_at from instance i
  where i.account_id = $1 and i.workflow_key = w.workflow_key order by i.key desc limit 1
) newest on true
left join lateral (
  select coalesce((select sum(c.n)::bigint from counter c
                   where c.account_id = $1 and c.workflow_key = w.workflow_key), 0)
         + (select count(*) from live l where l.account_id = $1 and l.workflow_key = w.workflow_key) as n
) counted on true
"""
_CURRENT = "join version v on v.account_id = $1 and v.version_key = w.current_version"

# A workflow by its key, its number or its handle, in that order.
_REFERENCED = f"""
select r.workflow_key from (
  select 0 as rank, w.workflow_key from workflow w where {VISIBLE} and w.workflow_key = $3
  union all
  select 1, w.workflow_key from workflow w where {VISIBLE} and w.no = $4
  union all
  select 2, w.workflow_key from workflow w where {VISIBLE} and w.handle = $5
) r order by r.rank limit 1
"""

DEFINITION = f"""
with r as materialized ({_REFERENCED})
select {WORKFLOW_COLUMNS}, {_VERSION_COLUMNS} {{columns}}
from r join workflow w on w.account_id = $1 and w.workflow_key = r.workflow_key {_CURRENT} {{counted}}
"""

KEY = _REFERENCED

NAMED = f"""
with r as materialized ({_REFERENCED})
select w.workflow_key, w.handle from r join workflow w on w.account_id = $1 and w.workflow_key = r.workflow_key
"""

_LISTED = (
    f"{VISIBLE} and ($3::text[] is null or w.status = any($3))"
    " and ($4::text is null or strpos(lower(w.display_name), lower($4)) > 0)"
)

DEFINITIONS = f"""
with w as materialized (
  select w.* from workflow w where {_LISTED} order by w.created_at desc, w.workflow_key desc limit $5 offset $6
)
select {WORKFLOW_COLUMNS}, {_VERSION_COLUMNS} {{columns}} from w {_CURRENT} {{counted}}
order by w.created_at desc, w.workflow_key desc
"""

COUNT = f"select count(*) from (select from workflow w where {_LISTED} limit $5) counted"

VERSIONS = f"""
select {WORKFLOW_COLUMNS}, {_VERSION_COLUMNS}
from workflow w join version v on v.account_id = $1 and v.workflow_key = w.workflow_key
where {LIVING} and w.workflow_key = $2 and ($3::int is null or v.no = $3)
order by v.no desc limit $4 offset $5
"""

BY_VERSION = f"""
select {WORKFLOW_COLUMNS}, {_VERSION_COLUMNS}, w.deleted_at is not null as retired
from version v join workflow w on w.account_id = $1 and w.workflow_key = v.workflow_key
where v.account_id = $1 and ($2::uuid is null or w.workspace_id = $2) and v.version_key = any($3::uuid[])
"""

LOCK = f"select {WORKFLOW_COLUMNS} from workflow w where {LIVING} and w.workflow_key = $2 for update"

SET_PROFILE = f"""
update workflow w set status = coalesce($3, w.status), tags = coalesce($4, w.tags), metadata = coalesce($5, w.metadata),
                      modified_at = $6
where w.account_id = $1 and w.workflow_key = $2
returning {WORKFLOW_COLUMNS}
"""

HANDLES = "select handle from workflow where account_id = $1 and deleted_at is null and starts_with(handle, $2)"

# Its instances run on and stay: only the definition is gone, and the schedules that would start more.
RETIRE = """
with gone as (
  update workflow w set deleted_at = $3, modified_at = $3
  where w.account_id = $1 and w.workflow_key = $2 and w.deleted_at is null returning w.workflow_key
), unscheduled as (
  delete from schedule s using gone where s.account_id = $1 and s.workflow_key = gone.workflow_key
)
select workflow_key from gone
"""

NODE_FIGURES = "select node, runs, mean_ms from node_statistics where account_id = $1 and workflow_key = $2"

_COLUMNS = {False: {"columns": "", "counted": ""}, True: {"columns": _COUNTED_COLUMNS, "counted": _COUNTED}}


class Reference(msgspec.Struct, frozen=True):
    """What a text in a path may mean: a key, a number, a handle."""

    key: UUID | None
    no: int | None
    handle: str | None


def _definition(row: asyncpg.Record) -> Definition:
    found = dict(row)
    return Definition(
        workflow=msgspec.convert(found, WorkflowRow),
        version_key=found["version_key"],
        no=found["version_no"],
        language=found["language"],
        runtime=found["runtime"],
        class_name=found["version_class"],
        source=found["source"],
        settings=found["settings"],
        dialect=found["dialect"],
        original=found["original"],
        created_by=found["created_by"],
        version_created_at=found["version_created_at"],
        last_execution_at=found.get("last_execution_at"),
        executions=found.get("executions"),
        retired=found.get("retired", False),
    )


async def definition(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, reference: Reference, *, counted: bool
) -> Definition | None:
    """The current definition of a workflow."""
    statement = DEFINITION.format(**_COLUMNS[counted])
    row = await connection.fetchrow(statement, account_id, workspace_id, reference.key, reference.no, reference.handle)
    return None if row is None else _definition(row)


async def key(connection: Connection, account_id: UUID, workspace_id: UUID | None, reference: Reference) -> UUID | None:
    return await connection.fetchval(KEY, account_id, workspace_id, reference.key, reference.no, reference.handle)


async def named(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, reference: Reference
) -> Named | None:
    """Key and handle of a workflow."""
    row = await connection.fetchrow(NAMED, account_id, workspace_id, reference.key, reference.no, reference.handle)
    return None if row is None else Named(row["workflow_key"], row["handle"])


async def definitions(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    statuses: Sequence[str] | None,
    search: str | None,
    limit: int,
    offset: int,
    *,
    counted: bool,
) -> list[Definition]:
    """One page, the newest first."""
    statement = DEFINITIONS.format(**_COLUMNS[counted])
    rows = await connection.fetch(statement, account_id, workspace_id, statuses, search, limit, offset)
    return [_definition(row) for row in rows]


async def count(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    statuses: Sequence[str] | None,
    search: str | None,
    most: int,
) -> int:
    """How many workflows there are to list, counted up to `most`."""
    return int(await connection.fetchval(COUNT, account_id, workspace_id, statuses, search, most) or 0)


async def versions(
    connection: Connection, account_id: UUID, workflow_key: UUID, no: int | None, limit: int, offset: int
) -> list[Definition]:
    """A workflow's versions, the newest first; the one numbered `no` where that is given."""
    rows = await connection.fetch(VERSIONS, account_id, workflow_key, no, limit, offset)
    return [_definition(row) for row in rows]


async def by_version(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, version_keys: Sequence[UUID]
) -> list[Definition]:
    """Versions of workflows, deleted ones too, in no order."""
    rows = await connection.fetch(BY_VERSION, account_id, workspace_id, version_keys)
    return [_definition(row) for row in rows]


async def lock(connection: Connection, account_id: UUID, workflow_key: UUID) -> WorkflowRow | None:
    """The workflow, locked until the end of the transaction; None when it is deleted."""
    row = await connection.fetchrow(LOCK, account_id, workflow_key)
    return None if row is None else msgspec.convert(dict(row), WorkflowRow)


async def set_profile(
    connection: Connection, account_id: UUID, workflow_key: UUID, texts: Sequence[str | None], now: datetime
) -> WorkflowRow:
    """`texts`: status, tags, metadata; None leaves one as it is."""
    row = await connection.fetchrow(SET_PROFILE, account_id, workflow_key, *texts, now)
    return msgspec.convert(dict(row or {}), WorkflowRow)


async def handles(connection: Connection, account_id: UUID, prefix: str) -> set[str]:
    """Handles in use that begin with `prefix`."""
    return {row["handle"] for row in await connection.fetch(HANDLES, account_id, prefix)}


async def retire(connection: Connection, account_id: UUID, workflow_key: UUID, now: datetime) -> bool:
    """Mark a workflow deleted, its instances left alone; whether it was not before."""
    return await connection.fetchval(RETIRE, account_id, workflow_key, now) is not None


async def node_figures(connection: Connection, account_id: UUID, workflow_key: UUID) -> dict[str, NodeFigure]:
    rows = await connection.fetch(NODE_FIGURES, account_id, workflow_key)
    return {row["node"]: NodeFigure(row["runs"], row["mean_ms"]) for row in rows}
