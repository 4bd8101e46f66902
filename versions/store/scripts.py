"""Uploads of scripts.

A script belongs to a workspace. In every statement that is given a name, $2 is the workspace the caller is restricted
to, or null: a script of another one is not there.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from versions.schemas import (
    ScriptRow,
    SealedRow,
)

Connection = asyncpg.Connection

_SCRIPT = (
    "s.account_id, s.id, s.name, s.workspace_id, s.metadata, s.bindings, s.secrets, s.etag, s.size_bytes, s.source,"
    " s.created_at,"
    " (select min(f.created_at) from script f where f.account_id = $1 and f.name = s.name and f.deleted_at is null)"
    " as first_created_at,"
    " (select t.settings from script_setting t where t.account_id = $1 and t.name = s.name) as settings"
)
VISIBLE = "s.account_id = $1 and s.deleted_at is null and ($2::uuid is null or s.workspace_id = $2)"
_DEPLOYED = f"{VISIBLE} and s.deployed_at is not null"

IS_VISIBLE = f"exists (select from script s where {VISIBLE} and s.name = $3)"
"""Whether the script called $3 is there: for what is kept of a script beside its uploads."""

# Whichever was deployed last, which may be an older upload.
SCRIPT = f"select {_SCRIPT} from script s where {_DEPLOYED} and s.name = $3 order by s.deployed_at desc limit 1"

SCRIPT_BY_ID = f"select {_SCRIPT} from script s where s.account_id = $1 and s.id = $2"

SCRIPTS = f"""
select * from (
  select distinct on (s.name) {_SCRIPT} from script s where {_DEPLOYED} order by s.name, s.deployed_at desc
) q order by q.name collate "C"
"""

# Another script may have the name of a deleted one: one of another workspace lends it nothing.
RUNNABLE_SCRIPT = f"""
select {_SCRIPT}, s.compiled,
  coalesce((select d.secrets from script d where d.account_id = $1 and d.name = s.name
            and d.workspace_id = s.workspace_id and d.deleted_at is null and d.deployed_at is not null
            order by d.deployed_at desc limit 1), s.secrets) as current_secrets,
  (select coalesce(json_object_agg(w.class_name, w.handle), '{{}}')::text from workflow w
    where w.account_id = $1 and w.script_name = s.name and w.workspace_id = s.workspace_id and w.deleted_at is null)
    as classes
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

# A new script is put where its uploader is, or into the account's default workspace, and stays there. Nothing is
# inserted under a name that is another workspace's. The script is locked.
INSERT_SCRIPT = f"""
insert into script (account_id, workspace_id, name, id, metadata, modules, bindings, secrets, etag, size_bytes, source,
                    author, compiled, created_at, number, deployed_at)
select $1, p.workspace_id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, {NEXT_NUMBER.format(name="$3")},
       case when $15::boolean then {DEPLOYED_NOW.format(now="$14", name="$3")} end
from (select coalesce(
  (select f.workspace_id from script f where f.account_id = $1 and f.name = $3 and f.deleted_at is null limit 1),
  $2::uuid, (select w.id from workspace w where w.account_id = $1 and w.slug = 'default')) as workspace_id) p
where $2::uuid is null or p.workspace_id = $2
returning id
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


async def script(connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str) -> ScriptRow | None:
    """The deployed upload of a script."""
    row = await connection.fetchrow(SCRIPT, account_id, workspace_id, name)
    return None if row is None else msgspec.convert(dict(row), ScriptRow)


async def script_by_id(connection: Connection, account_id: UUID, script_id: UUID) -> ScriptRow | None:
    """An upload, deployed or not."""
    row = await connection.fetchrow(SCRIPT_BY_ID, account_id, script_id)
    return None if row is None else msgspec.convert(dict(row), ScriptRow)


async def scripts(connection: Connection, account_id: UUID, workspace_id: UUID | None) -> list[ScriptRow]:
    """The deployed upload of each script, by name."""
    return [msgspec.convert(dict(row), ScriptRow) for row in await connection.fetch(SCRIPTS, account_id, workspace_id)]


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
    return int(await connection.fetchval(COUNT_OTHER_SCRIPTS, account_id, name) or 0)


async def insert_script(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, name: str, *values: Any
) -> bool:
    """One more upload; False when the name is that of a script of another workspace.

    `values` in the order of :data:`INSERT_SCRIPT`.
    """
    return await connection.fetchval(INSERT_SCRIPT, account_id, workspace_id, name, *values) is not None


async def sealed(engine: Any, account_id: UUID, script_id: UUID, limit: int) -> list[SealedRow]:
    """Uploads with secrets, behind this one, in order of account and id."""
    return [SealedRow(**row) for row in await engine.fetch(SEALED, account_id, script_id, limit)]


async def replace_secrets(engine: Any, account_id: UUID, script_id: UUID, old: str, new: str) -> bool:
    """Whether they still were `old`."""
    return await engine.fetchval(REPLACE_SECRETS, account_id, script_id, old, new) is not None
