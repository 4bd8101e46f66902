"""Every SQL statement about reading and answering notifications and tasks.

`$1` is the account, `$2` the workspace to look in, null for all of them. Actions write the rows
(`instances.runtimes.document.store`); they go with their instance.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from instances.inboxes.schemas import DONE, Notification, Task

Connection = asyncpg.Connection

_MINE = "account_id = $1 and ($2::uuid is null or workspace_id = $2)"
_NEWEST = "order by created_at desc, id desc"

_NOTIFICATION = "id, workspace_id, instance_key, node, recipient, message, read_at, created_at"
_NOTIFICATIONS_ARE = (
    f"{_MINE} and ($3::text is null or recipient = $3) and ($4::boolean is null or (read_at is null) = $4)"
)
NOTIFICATIONS = f"""
select {_NOTIFICATION} from notification where {_NOTIFICATIONS_ARE} {_NEWEST} limit $5 offset $6
"""
COUNT_NOTIFICATIONS = f"select count(*) from (select from notification where {_NOTIFICATIONS_ARE} limit $5) counted"
MARK_NOTIFICATION = f"""
update notification set read_at = case when $4::boolean then coalesce(read_at, $5) end
where {_MINE} and id = $3 returning {_NOTIFICATION}
"""

_TASK = "id, workspace_id, instance_key, node, title, description, priority, assigned_to, status, created_at, done_at"
_TASKS_ARE = f"{_MINE} and ($3::text is null or assigned_to = $3) and ($4::text is null or status = $4)"
TASKS = f"select {_TASK} from task where {_TASKS_ARE} {_NEWEST} limit $5 offset $6"
COUNT_TASKS = f"select count(*) from (select from task where {_TASKS_ARE} limit $5) counted"
SET_TASK = f"""
update task set status = $4, done_at = case when $4 = '{DONE}' then coalesce(done_at, $5) end
where {_MINE} and id = $3 returning {_TASK}
"""


async def notifications(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    recipient: str | None,
    unread: bool | None,
    limit: int,
    offset: int,
    most: int,
) -> tuple[list[Notification], int]:
    """One page, the newest first, and how many there are, counted up to `most`."""
    where = account_id, workspace_id, recipient, unread
    rows = await connection.fetch(NOTIFICATIONS, *where, limit, offset)
    total = await connection.fetchval(COUNT_NOTIFICATIONS, *where, most)
    return [msgspec.convert(dict(row), Notification) for row in rows], int(total or 0)


async def mark_notification(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, id: UUID, read: bool, now: datetime
) -> Notification | None:
    """Make it read (since when it was first read) or unread."""
    row = await connection.fetchrow(MARK_NOTIFICATION, account_id, workspace_id, id, read, now)
    return None if row is None else msgspec.convert(dict(row), Notification)


async def tasks(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    assigned_to: str | None,
    status: str | None,
    limit: int,
    offset: int,
    most: int,
) -> tuple[list[Task], int]:
    """One page, the newest first, and how many there are, counted up to `most`."""
    where = account_id, workspace_id, assigned_to, status
    rows = await connection.fetch(TASKS, *where, limit, offset)
    total = await connection.fetchval(COUNT_TASKS, *where, most)
    return [msgspec.convert(dict(row), Task) for row in rows], int(total or 0)


async def set_task(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, id: UUID, status: str, now: datetime
) -> Task | None:
    row = await connection.fetchrow(SET_TASK, account_id, workspace_id, id, status, now)
    return None if row is None else msgspec.convert(dict(row), Task)
