"""Endpoints, for callers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from jobs.webhooks.schemas import SealedWebhook

Connection = asyncpg.Connection

_COLUMNS = (
    "w.account_id, w.no, w.id, w.workspace_id, w.url, w.events, w.format, w.secret, w.active, w.disabled_reason,"
    " w.created_at"
)
VISIBLE = "w.account_id = $1 and w.deleted_at is null and ($2::uuid is null or w.workspace_id = $2)"
"""Which endpoints a caller sees."""

# Who counts against the limit and inserts holds this until the end of the transaction.
LOCK = "select pg_advisory_xact_lock(hashtextextended('webhooks of ' || $1::uuid, 0))"

COUNT = "select count(*) from webhook where account_id = $1 and deleted_at is null"

INSERT = f"""
insert into webhook as w (account_id, workspace_id, id, url, events, format, secret, active, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning {_COLUMNS}
"""

WEBHOOKS = f"select {_COLUMNS} from webhook w where {VISIBLE} order by w.no"

WEBHOOK = f"select {_COLUMNS} from webhook w where {VISIBLE} and w.no = $3"

# Who is switched on hears what is committed from now on, with a clean record.
UPDATE = f"""
update webhook w set url = $4, events = $5, format = $6, active = $7,
  secret = coalesce($8, w.secret),
  former_secret = case when $8::bytea is null then w.former_secret else w.secret end,
  former_until = case when $8::bytea is null then w.former_until else $9 end,
  disabled_reason = case when $7 then null else w.disabled_reason end,
  since = case when $7 and not w.active then pg_current_snapshot() else w.since end,
  failures = case when $7 and not w.active then 0 else w.failures end,
  failing_since = case when $7 and not w.active then null else w.failing_since end,
  slowed_until = case when $7 and not w.active then null else w.slowed_until end
where {VISIBLE} and w.no = $3 returning {_COLUMNS}
"""

DELETE = f"update webhook w set deleted_at = $4, active = false where {VISIBLE} and w.no = $3 returning w.no"


async def lock(connection: Connection, account_id: UUID) -> None:
    """Let nobody else add an endpoint to the account until the end of the transaction."""
    await connection.execute(LOCK, account_id)


async def count(connection: Connection, account_id: UUID) -> int:
    """Endpoints of the account."""
    return int(await connection.fetchval(COUNT, account_id) or 0)


async def insert(connection: Connection, account_id: UUID, *values: Any) -> SealedWebhook:
    """`values`: workspace, id, url, events, format, secret, active, time."""
    return SealedWebhook(**dict(await connection.fetchrow(INSERT, account_id, *values) or {}))


async def all_of(connection: Connection, account_id: UUID, workspace_id: UUID | None) -> list[SealedWebhook]:
    """The endpoints, the oldest first."""
    return [SealedWebhook(**dict(row)) for row in await connection.fetch(WEBHOOKS, account_id, workspace_id)]


async def one(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, *, for_update: bool = False
) -> SealedWebhook | None:
    """One endpoint, locked until the end of the transaction if asked for."""
    row = await connection.fetchrow(WEBHOOK + " for update" * for_update, account_id, workspace_id, no)
    return None if row is None else SealedWebhook(**dict(row))


async def update(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, *values: Any
) -> SealedWebhook:
    """`values`: url, events, format, active, new secret (None: keeps it), until when the old one signs, too."""
    return SealedWebhook(**dict(await connection.fetchrow(UPDATE, account_id, workspace_id, no, *values) or {}))


async def delete(connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, now: datetime) -> bool:
    """Mark an endpoint deleted; its deliveries are removed in the background. Whether there was one."""
    return await connection.fetchval(DELETE, account_id, workspace_id, no, now) is not None
