"""Versions of workflows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from versions.schemas import (
    VersionListed,
    VersionOrigin,
    VersionRow,
)

Connection = asyncpg.Connection

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
    total = int(await connection.fetchval(COUNT_VERSIONS, account_id, workflow_key) or 0)
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
