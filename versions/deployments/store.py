"""SQL about versions and deployments of scripts, their secrets and settings.

As everywhere in `versions`: connections are scoped to the account, writes expect a transaction. A *version* of a script
is one upload of it, or one made from another by changing its secrets or bindings.

Everything about a script is asked for by account, workspace the caller is restricted to (None: to none) and name, and a
script of another workspace is not there: see `versions.store.scripts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from tenants.database import Database
from tenants.limits import SCRIPT_VERSIONS_KEPT
from versions.deployments.schemas import DeploymentRow, UploadRow
from versions.store.scripts import IS_VISIBLE, NEXT_NUMBER, VISIBLE

Connection = asyncpg.Connection

DEPLOYMENTS_SHOWN = 10

# --- versions ----------------------------------------------------------------------------------------------------

_UPLOAD = (
    "s.id, s.name, s.metadata, s.bindings, s.secrets, s.etag, s.size_bytes, s.source, s.author, s.created_at,"
    " s.deployed_at, s.number"
)
_OF = f"{VISIBLE} and s.name = $3"

UPLOADS = f"select {_UPLOAD} from script s where {_OF} order by s.no desc limit $4 offset $5"

COUNT_UPLOADS = f"select count(*) from script s where {_OF}"

UPLOAD = f"select {_UPLOAD} from script s where {_OF} and s.id = $4"

NEWEST_UPLOAD = f"select {_UPLOAD} from script s where {_OF} order by s.no desc limit 1"

DEPLOYED_UPLOAD = f"""
select {_UPLOAD} from script s where {_OF} and s.deployed_at is not null order by s.deployed_at desc limit 1
"""

# The same code with other bindings, not deployed yet.
DERIVE = f"""
insert into script (account_id, id, name, workspace_id, metadata, modules, compiled, bindings, secrets, etag,
                    size_bytes, source, author, created_at, number)
select account_id, $3, name, workspace_id, $4, modules, coalesce($10, compiled), $5, $6, etag, size_bytes, $7, $8, $9,
       {NEXT_NUMBER.format(name="s.name")}
from script s where account_id = $1 and id = $2
"""

# --- deployments -------------------------------------------------------------------------------------------------

_DEPLOYMENT = "d.id, d.script_id, d.source, d.author, d.annotations, d.created_at"

_DEPLOYMENT_OF = f"d.account_id = $1 and d.name = $3 and {IS_VISIBLE}"

DEPLOYMENTS = f"select {_DEPLOYMENT} from script_deployment d where {_DEPLOYMENT_OF} order by d.no desc limit $4"

DEPLOYMENT = f"select {_DEPLOYMENT} from script_deployment d where {_DEPLOYMENT_OF} and d.id = $4"

DELETE_DEPLOYMENT = f"delete from script_deployment d where {_DEPLOYMENT_OF} and d.id = $4"

INSERT_DEPLOYMENT = f"""
insert into script_deployment (account_id, name, id, script_id, source, author, annotations, created_at)
select $1, $3, $4, $5, $6, $7, $8, $9 where {IS_VISIBLE}
"""

# Later than every other deployment of the script, whatever clocks say; see `versions.store.scripts.INSERT_SCRIPT`.
DEPLOY = f"""
update script s set deployed_at = greatest($5::timestamptz,
  (select max(d.deployed_at) + interval '1 microsecond' from script d where d.account_id = $1 and d.name = $3))
where {_OF} and s.id = $4 returning s.id
"""

DELETE_SCRIPT = f"""
with gone as (update script s set deleted_at = $4 where {_OF} returning s.id),
settings as (delete from script_setting where account_id = $1 and name = $3 and exists (select from gone)),
deployments as (delete from script_deployment where account_id = $1 and name = $3 and exists (select from gone))
select id from gone
"""

# --- settings ----------------------------------------------------------------------------------------------------

SETTINGS = f"select settings from script_setting where account_id = $1 and name = $3 and {IS_VISIBLE}"

PUT_SETTINGS = f"""
insert into script_setting (account_id, name, settings) select $1, $3, $4 where {IS_VISIBLE}
on conflict (account_id, name) do update set settings = excluded.settings
"""

# --- workflows of a script ---------------------------------------------------------------------------------------

# Those whose code is a document bear a script's name, too, but have none. Those of a deleted script that had the name
# in another workspace are not meant.
REFERRING = f"""
select w.handle from workflow w join version v on v.account_id = $1 and v.version_key = w.current_version
where w.account_id = $1 and w.script_name = $3 and w.deleted_at is null and v.script_id is not null
  and w.workspace_id = (select s.workspace_id from script s where {_OF} limit 1)
order by w.handle limit $4
"""

WORKFLOWS_ON = """
select w.workflow_key, w.current_version from workflow w
join version v on v.account_id = $1 and v.version_key = w.current_version
where w.account_id = $1 and v.script_id = $2 and w.deleted_at is null order by w.workflow_key for update of w
"""

COPY_VERSION = """
insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, script_id, source,
                     source_hash, graph, settings, dialect, original, step_limit, success_retention_ms,
                     error_retention_ms, created_by, created_at)
select v.account_id, $3, v.workflow_key,
       (select max(o.no) + 1 from version o where o.account_id = $1 and o.workflow_key = v.workflow_key),
       v.language, v.runtime, v.class_name, $4, v.source, v.source_hash, v.graph, v.settings, v.dialect, v.original,
       v.step_limit, v.success_retention_ms, v.error_retention_ms, $6, $5
from version v where v.account_id = $1 and v.version_key = $2
"""

SET_CURRENT_VERSION = """
update workflow set current_version = $3, modified_at = $4 where account_id = $1 and workflow_key = $2
"""


# --- what nobody can come back to ----------------------------------------------------------------------------------

# Of all accounts, engine role. $1, $2: behind this script; $3 now; $4 scripts; $5 versions. A version that is deployed
# at this moment has another `deployed_at` when its row is locked, and stays.
PRUNE = f"""
with recursive walk as (
  (select account_id, name, 1 as n from script where (account_id, name) > ($1::uuid, $2::text)
   order by account_id, name limit 1)
  union all
  select s.account_id, s.name, p.n + 1 from walk p cross join lateral (
    select s.account_id, s.name from script s where (s.account_id, s.name) > (p.account_id, p.name)
    order by s.account_id, s.name limit 1) s
  where p.n < $4
), old_deployments as (
  delete from script_deployment d using (
    select o.account_id, o.id from walk p cross join lateral (
      select account_id, id from script_deployment where account_id = p.account_id and name = p.name
      order by no desc offset {SCRIPT_VERSIONS_KEPT} limit $5) o) o
  where d.account_id = o.account_id and d.id = o.id
  returning d.account_id, d.id
), versions as (
  select v.account_id, v.id from walk p cross join lateral (
    select s.account_id, s.id, s.deleted_at, s.deployed_at, s.created_at,
           row_number() over (partition by s.deleted_at is null order by s.no desc) as back,
           row_number() over (partition by s.deleted_at is null order by s.deployed_at desc nulls last) as deployed
    from script s where s.account_id = p.account_id and s.name = p.name) v
  where (v.deleted_at is not null or v.back > {SCRIPT_VERSIONS_KEPT} and (v.deployed > 1 or v.deployed_at is null))
    and v.created_at < $3::timestamptz - interval '1 day'
    and (v.deployed_at is null or v.deployed_at < $3::timestamptz - interval '1 day')
    and not exists (select from version x where x.account_id = v.account_id and x.script_id = v.id)
    and not exists (select from script_deployment d where d.account_id = p.account_id and d.name = p.name
                    and d.script_id = v.id)
  limit $5
), idle as (
  select s.account_id, s.id from versions v join script s on s.account_id = v.account_id and s.id = v.id
  where (s.deployed_at is null or s.deployed_at < $3::timestamptz - interval '1 day')
  for update of s skip locked
), gone as (
  delete from script s using idle i where s.account_id = i.account_id and s.id = i.id returning s.id
)
select (select count(*) from gone) as versions, (select count(*) from old_deployments) as deployments,
       w.account_id, w.name
from (select 1) one left join lateral (select account_id, name from walk where n = $4) w on true
"""


class Pruned(NamedTuple):
    """What one look deleted. `last`: the last script it looked at, None when there are no more behind it."""

    versions: int
    deployments: int
    last: tuple[UUID, str] | None


async def prune(db: Database, account_id: UUID, name: str, now: datetime, scripts: int, versions: int) -> Pruned:
    """Delete up to `versions` versions of the next `scripts` scripts of all accounts behind this one: those that no
    workflow's version runs, that are not deployed, and that are not among the latest ones, uploaded or deployed."""
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(PRUNE, account_id, name, now, scripts, versions)
    last = None if row["account_id"] is None else (row["account_id"], row["name"])
    return Pruned(row["versions"], row["deployments"], last)


async def uploads(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, limit: int, offset: int
) -> tuple[list[UploadRow], int]:
    """One page of a script's versions, the newest first, and how many there are."""
    rows = await connection.fetch(UPLOADS, account_id, workspace_id, name, limit, offset)
    total = await connection.fetchval(COUNT_UPLOADS, account_id, workspace_id, name)
    return [msgspec.convert(dict(row), UploadRow) for row in rows], int(total or 0)


async def upload(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, script_id: UUID
) -> UploadRow | None:
    return _upload(await connection.fetchrow(UPLOAD, account_id, workspace_id, name, script_id))


async def newest_upload(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str
) -> UploadRow | None:
    return _upload(await connection.fetchrow(NEWEST_UPLOAD, account_id, workspace_id, name))


async def deployed_upload(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str
) -> UploadRow | None:
    return _upload(await connection.fetchrow(DEPLOYED_UPLOAD, account_id, workspace_id, name))


def _upload(row: asyncpg.Record | None) -> UploadRow | None:
    return None if row is None else msgspec.convert(dict(row), UploadRow)


async def derive(connection: Connection, account_id: UUID, base: UUID, script_id: UUID, *values: Any) -> None:
    """A version with the code of `base`. `values`: metadata, bindings, secrets, source, author, time, compiled form
    (None: that of `base`)."""
    await connection.execute(DERIVE, account_id, base, script_id, *values)


async def deployments(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str
) -> list[DeploymentRow]:
    """A script's latest deployments, the newest first."""
    rows = await connection.fetch(DEPLOYMENTS, account_id, workspace_id, name, DEPLOYMENTS_SHOWN)
    return [msgspec.convert(dict(row), DeploymentRow) for row in rows]


async def deployment(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, deployment_id: UUID
) -> DeploymentRow | None:
    row = await connection.fetchrow(DEPLOYMENT, account_id, workspace_id, name, deployment_id)
    return None if row is None else msgspec.convert(dict(row), DeploymentRow)


async def delete_deployment(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, deployment_id: UUID
) -> None:
    await connection.execute(DELETE_DEPLOYMENT, account_id, workspace_id, name, deployment_id)


async def insert_deployment(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, *values: Any
) -> None:
    """`values`: id, script id, source, author, annotations (JSON text), time."""
    await connection.execute(INSERT_DEPLOYMENT, account_id, workspace_id, name, *values)


async def deploy(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, script_id: UUID, now: datetime
) -> bool:
    """Make a version the deployed one; whether it exists."""
    return await connection.fetchval(DEPLOY, account_id, workspace_id, name, script_id, now) is not None


async def delete_script(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, now: datetime
) -> bool:
    """Mark every version of the script deleted; workflows made from them still run. Whether there was any."""
    return bool(await connection.fetch(DELETE_SCRIPT, account_id, workspace_id, name, now))


async def settings(connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str) -> dict[str, Any]:
    """What is set for the script as a whole."""
    return msgspec.json.decode(await connection.fetchval(SETTINGS, account_id, workspace_id, name) or "{}")


async def merge_settings(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, changes: dict[str, Any]
) -> dict[str, Any]:
    """Set what `changes` holds; all that is set, afterwards. The script is locked."""
    merged = await settings(connection, account_id, workspace_id, name) | changes
    await connection.execute(PUT_SETTINGS, account_id, workspace_id, name, msgspec.json.encode(merged).decode())
    return merged


async def referring(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, limit: int
) -> list[str]:
    """Names of workflows whose code is in the script."""
    return [row["handle"] for row in await connection.fetch(REFERRING, account_id, workspace_id, name, limit)]


async def workflows_on(connection: Connection, account_id: UUID, script_id: UUID) -> Sequence[tuple[UUID, UUID]]:
    """Workflows that run this very version, as (workflow, its current version), locked."""
    rows = await connection.fetch(WORKFLOWS_ON, account_id, script_id)
    return [(row["workflow_key"], row["current_version"]) for row in rows]


async def move_workflow(
    connection: Connection,
    account_id: UUID,
    workflow_key: UUID,
    version_key: UUID,
    new_key: UUID,
    script_id: UUID,
    now: datetime,
    by: str,
) -> None:
    """Make a copy of the workflow's version that runs another version of its script, and make it current."""
    await connection.execute(COPY_VERSION, account_id, version_key, new_key, script_id, now, by)
    await connection.execute(SET_CURRENT_VERSION, account_id, workflow_key, new_key, now)
