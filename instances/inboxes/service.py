"""What callers can do with notifications and tasks.

Every method takes the :class:`Caller` first, checks its scope, and sees nothing outside its account, nor outside
`workspace_id`, where that is given, or the workspace the caller is restricted to.
"""

from __future__ import annotations

from uuid import UUID

from app.errors import InvalidRequest
from instances.errors import NotificationNotFound, TaskNotFound
from instances.inboxes import store
from instances.inboxes.schemas import TASK_STATUSES, Notification, Task
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.service import TenantService
from tenants.spellings import parse_uuid

COUNTED = 100_000
"""Rows a total is exact up to."""
_READ, _WRITE = "executions:read", "executions:write"
_NOBODYS = UUID(int=0)
"""The workspace of no account: what a caller sees who asks for one that is closed to it."""


class InboxService:
    """Notifications and tasks of all accounts."""

    def __init__(self, db: Database, clock: Clock, tenants: TenantService) -> None:
        self._db = db
        self._clock = clock
        self._tenants = tenants

    async def notifications(
        self,
        caller: Caller,
        *,
        limit: int,
        offset: int,
        workspace_id: UUID | None = None,
        recipient: str | None = None,
        unread: bool | None = None,
    ) -> tuple[list[Notification], int]:
        """Notifications, the newest first, and how many: one more than `COUNTED` means more than that.

        `recipient`: only those to that one; `unread`: only those that are not read, or that are.
        """
        caller.require(_READ)
        where = caller.account_id, _visible(caller, workspace_id), recipient, unread
        async with self._db.scope(caller.account_id) as connection:
            return await store.notifications(connection, *where, limit, offset, COUNTED + 1)

    async def mark(
        self, caller: Caller, id: str, *, read: bool = True, workspace_id: UUID | None = None
    ) -> Notification:
        """Make a notification read, or unread again; repeating it changes nothing. `id` is a UUID's text.

        Raises :class:`NotificationNotFound`.
        """
        caller.require(_WRITE)
        key, found = parse_uuid(id), None
        if key is not None:
            async with self._db.scope(caller.account_id, transaction=True) as connection:
                found = await store.mark_notification(
                    connection, caller.account_id, _visible(caller, workspace_id), key, read, self._clock.now()
                )
        if found is None:
            raise NotificationNotFound()
        return found

    async def tasks(
        self,
        caller: Caller,
        *,
        limit: int,
        offset: int,
        workspace_id: UUID | None = None,
        assigned_to: str | None = None,
        status: str | None = None,
    ) -> tuple[list[Task], int]:
        """Tasks, the newest first, and how many: one more than `COUNTED` means more than that.

        `assigned_to`, `status`: only those. Raises :class:`InvalidRequest` for a status there is not.
        """
        caller.require(_READ)
        if status is not None:
            _check_status(status)
        where = caller.account_id, _visible(caller, workspace_id), assigned_to, status
        async with self._db.scope(caller.account_id) as connection:
            return await store.tasks(connection, *where, limit, offset, COUNTED + 1)

    async def set_task(self, caller: Caller, id: str, status: str, *, workspace_id: UUID | None = None) -> Task:
        """Change a task's status. Raises :class:`TaskNotFound`, :class:`InvalidRequest`. `id` is a UUID's text."""
        caller.require(_WRITE)
        _check_status(status)
        key, found = parse_uuid(id), None
        if key is not None:
            async with self._db.scope(caller.account_id, transaction=True) as connection:
                found = await store.set_task(
                    connection, caller.account_id, _visible(caller, workspace_id), key, status, self._clock.now()
                )
        if found is None:
            raise TaskNotFound()
        await self._tenants.audit(caller, "task.status", str(key), {"status": status})
        return found


def _check_status(status: str) -> None:
    if status not in TASK_STATUSES:
        raise InvalidRequest(f"status must be one of {', '.join(TASK_STATUSES)}", pointer="/status")


def _visible(caller: Caller, workspace_id: UUID | None) -> UUID | None:
    """The one workspace to look in, None for all."""
    if caller.workspace_id is None or workspace_id is None:
        return workspace_id or caller.workspace_id
    return workspace_id if workspace_id == caller.workspace_id else _NOBODYS
