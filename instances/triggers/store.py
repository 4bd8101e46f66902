"""What is read to find the workflows a trigger starts."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

# Of a disabled account or a workflow that is not active: nothing.
HOOKED = """
select w.workflow_key, w.handle, w.current_version
from workflow w join account a on a.account_id = $1 and a.disabled_at is null
where w.account_id = $1 and w.workflow_key = $2 and w.deleted_at is null and w.status = 'active'
  and w.current_version is not null"""

# $3: the workspace the caller is restricted to, or null. The partial index has only workflows that listen to anything.
LISTENERS = """
select w.workflow_key, w.handle, w.current_version
from workflow w
where w.account_id = $1 and w.events <> '{}' and $2 = any (w.events) and w.deleted_at is null and w.status = 'active'
  and w.current_version is not null and ($3::uuid is null or w.workspace_id = $3)
order by w.handle limit $4"""


@dataclass(frozen=True, slots=True)
class Startable:
    """An active workflow, and what it runs."""

    workflow_key: UUID
    handle: str
    version_key: UUID


async def hooked(connection: asyncpg.Connection, account_id: UUID, workflow_key: UUID) -> Startable | None:
    """The workflow of that key, if it may be started."""
    row = await connection.fetchrow(HOOKED, account_id, workflow_key)
    return None if row is None else Startable(*row)


async def listeners(
    connection: asyncpg.Connection, account_id: UUID, event: str, workspace_id: UUID | None, limit: int
) -> list[Startable]:
    """Workflows whose current version has a trigger of that event, by handle."""
    rows = await connection.fetch(LISTENERS, account_id, event, workspace_id, limit)
    return [Startable(*row) for row in rows]
