"""Rows that actions leave behind: notifications and tasks. A repeated attempt finds its row and leaves it alone."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tenants.database import Database

ADD_NOTIFICATION = """
insert into notification (account_id, id, workspace_id, instance_key, node, recipient, message, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (account_id, id) do nothing
"""

ADD_TASK = """
insert into task (account_id, id, workspace_id, instance_key, node, title, description, priority, assigned_to,
  created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (account_id, id) do nothing
"""


class ActionStore:
    """Writes the rows. Texts hold neither NUL nor lone surrogates."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add_notification(
        self,
        account_id: UUID,
        id: UUID,
        *,
        workspace_id: UUID,
        instance_key: UUID,
        node: str,
        recipient: str | None,
        message: str,
        at: datetime,
    ) -> None:
        """Store a notification, unread, unless it is there already."""
        async with self._db.scope(account_id) as connection:
            await connection.execute(
                ADD_NOTIFICATION, account_id, id, workspace_id, instance_key, node, recipient, message, at
            )

    async def add_task(
        self,
        account_id: UUID,
        id: UUID,
        *,
        workspace_id: UUID,
        instance_key: UUID,
        node: str,
        title: str,
        description: str,
        priority: str,
        assigned_to: str | None,
        at: datetime,
    ) -> None:
        """Store a task, to do, unless it is there already."""
        async with self._db.scope(account_id) as connection:
            await connection.execute(
                ADD_TASK,
                account_id,
                id,
                workspace_id,
                instance_key,
                node,
                title,
                description,
                priority,
                assigned_to,
                at,
            )
