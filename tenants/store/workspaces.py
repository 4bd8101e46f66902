"""Workspaces and their members."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tenants.schemas import MemberRow, WorkspaceRow
from tenants.store.rows import first_as
from tenants.tables import Membership, Workspace

WORKSPACE_OF_PERSON = """
select w.account_id from app_user u
join app_user other on other.person_id = u.person_id
join workspace w on w.account_id = other.account_id
where u.account_id = $1 and u.id = $2 and w.slug = $3 and w.slug <> 'default'
"""

MEMBERS = """
select m.workspace_id, m.user_id, u.name, m.role, m.created_at
from membership m join app_user u on u.account_id = m.account_id and u.id = m.user_id
where m.account_id = $1 and m.workspace_id = $2
order by u.name
"""

PUT_MEMBER = """
insert into membership (account_id, workspace_id, user_id, role, created_at) values ($1, $2, $3, $4, $5)
on conflict (account_id, workspace_id, user_id) do update set role = excluded.role
"""


async def account_of_workspace(engine: Any, account_id: UUID, user_id: UUID, slug: str) -> UUID | None:
    """The account with a workspace of that slug, of those in which the user is somebody."""
    return await engine.fetchval(WORKSPACE_OF_PERSON, account_id, user_id, slug)


async def insert_workspace(values: dict[str, Any]) -> bool:
    """Add a workspace; False when its slug is taken."""
    return bool(await Workspace.insert(Workspace(**values)).on_conflict(action="DO NOTHING"))


async def workspaces(account_id: UUID) -> list[WorkspaceRow]:
    query = Workspace.select().where(Workspace.account_id == account_id).order_by(Workspace.slug)
    return [WorkspaceRow(**row) for row in await query]


async def workspace_by_slug(account_id: UUID, slug: str) -> WorkspaceRow | None:
    query = Workspace.select().where(Workspace.account_id == account_id, Workspace.slug == slug).first()
    return first_as(WorkspaceRow, await query)


async def workspace_by_id(account_id: UUID, workspace_id: UUID) -> WorkspaceRow | None:
    query = Workspace.select().where(Workspace.account_id == account_id, Workspace.id == workspace_id).first()
    return first_as(WorkspaceRow, await query)


async def put_member(
    connection: Any, account_id: UUID, workspace_id: UUID, user_id: UUID, role: str, now: datetime
) -> None:
    """Make a user a member of a workspace, or change the role of one."""
    await connection.execute(PUT_MEMBER, account_id, workspace_id, user_id, role, now)


async def members(connection: Any, account_id: UUID, workspace_id: UUID) -> list[MemberRow]:
    return [MemberRow(**row) for row in await connection.fetch(MEMBERS, account_id, workspace_id)]


async def member_role(account_id: UUID, workspace_id: UUID, user_id: UUID) -> str | None:
    """The user's role in the workspace; None for a user who is no member."""
    of_user = (Membership.account_id == account_id) & (Membership.user_id == user_id)
    row = await Membership.select(Membership.role).where(of_user, Membership.workspace_id == workspace_id).first()
    return row["role"] if row else None


async def delete_member(account_id: UUID, workspace_id: UUID, user_id: UUID) -> bool:
    """Take a user out of a workspace; False for one who was no member."""
    of_user = (Membership.account_id == account_id) & (Membership.user_id == user_id)
    query = Membership.delete().where(of_user, Membership.workspace_id == workspace_id).returning(Membership.role)
    return bool(await query)
