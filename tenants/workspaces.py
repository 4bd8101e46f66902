"""Workspaces of an account and their members."""

from __future__ import annotations

from uuid import UUID

from app.errors import InvalidRequest
from tenants import store
from tenants.audit import AuditLog
from tenants.auth import WORKSPACE_ROLES, Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AlreadyExists, UserNotFound, WorkspaceNotFound
from tenants.ids import Ids
from tenants.limits import DISPLAY_NAME, RESERVED_WORKSPACE_SLUGS, WORKSPACE_SLUG
from tenants.schemas import MemberRow, WorkspaceRow

DEFAULT_WORKSPACE = "default"
"""Slug of the workspace every account has; workflows made outside a workspace belong to it."""


class WorkspaceService:
    """Reads and changes the workspaces of the caller's account."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, audit: AuditLog) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit

    async def create(self, caller: Caller, slug: str, name: str | None = None) -> WorkspaceRow:
        """A new workspace. Raises :class:`InvalidRequest` for a bad or reserved slug, :class:`AlreadyExists`."""
        slug = WORKSPACE_SLUG.check(slug, "slug")
        if slug in RESERVED_WORKSPACE_SLUGS:
            raise InvalidRequest(f"slug must not be {' or '.join(sorted(RESERVED_WORKSPACE_SLUGS))}")
        name = DISPLAY_NAME.check(slug if name is None else name, "name")
        row = WorkspaceRow(caller.account_id, self._ids.uuid7(), slug, name, self._clock.now())
        values = {field: getattr(row, field) for field in row.__struct_fields__}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await store.insert_workspace(values):
                raise AlreadyExists(f"there is a workspace {slug!r} already")
            line = self._audit.line(caller, "workspace.create", row.id.hex, {"slug": slug})
            await store.insert_audit_lines(connection, [line])
        return row

    async def all(self, account_id: UUID) -> list[WorkspaceRow]:
        """The account's workspaces by slug."""
        async with self._db.scope(account_id):
            return await store.workspaces(account_id)

    async def get(self, account_id: UUID, slug_or_id: str) -> WorkspaceRow:
        """The workspace of that slug or id (UUID text). Raises :class:`WorkspaceNotFound`."""
        async with self._db.scope(account_id):
            row = None
            if WORKSPACE_SLUG.holds(slug_or_id):
                row = await store.workspace_by_slug(account_id, slug_or_id)
            if row is None and (workspace_id := uuid_of(slug_or_id)):
                row = await store.workspace_by_id(account_id, workspace_id)
        if row is None:
            raise WorkspaceNotFound("there is no such workspace in this account")
        return row

    async def visible(self, caller: Caller, slug_or_id: str) -> WorkspaceRow:
        """As :meth:`get`, for the caller: one restricted to another workspace does not find it."""
        row = await self.get(caller.account_id, slug_or_id)
        if caller.workspace_id not in (None, row.id):
            raise WorkspaceNotFound("there is no such workspace in this account")
        return row

    async def role_of(self, caller: Caller, workspace: WorkspaceRow) -> str | None:
        """The caller's role in the workspace, `admin` or `member`; None for one who is no member.

        Tokens without restriction and users of role admin are members everywhere; a token restricted to this workspace
        is a member of it. Either is its admin if it may change workflows.
        """
        if caller.member_everywhere or (caller.token_id is not None and caller.workspace_id == workspace.id):
            return "admin" if caller.allows("workflows:write") else "member"
        if caller.user_id is None or caller.workspace_id not in (None, workspace.id):
            return None
        async with self._db.scope(caller.account_id):
            return await store.member_role(caller.account_id, workspace.id, caller.user_id)

    async def members(self, account_id: UUID, workspace: WorkspaceRow) -> list[MemberRow]:
        """Users listed as members, by name."""
        async with self._db.scope(account_id) as connection:
            return await store.members(connection, account_id, workspace.id)

    async def add_member(self, caller: Caller, workspace: WorkspaceRow, user_id: UUID, role: str = "member") -> None:
        """Make a user a member, or change a member's role. Raises :class:`UserNotFound`."""
        if role not in WORKSPACE_ROLES:
            raise InvalidRequest(f"role must be {' or '.join(WORKSPACE_ROLES)}")
        account_id = caller.account_id
        async with self._db.scope(account_id, transaction=True) as connection:
            if await store.user_by_id(account_id, user_id) is None:
                raise UserNotFound("there is no such user in this account")
            await store.put_member(connection, account_id, workspace.id, user_id, role, self._clock.now())
            detail = {"user": user_id.hex, "role": role}
            line = self._audit.line(caller, "workspace.add_member", workspace.id.hex, detail)
            await store.insert_audit_lines(connection, [line])

    async def remove_member(self, caller: Caller, workspace: WorkspaceRow, user_id: UUID) -> None:
        """Take a user out of the workspace. Raises :class:`UserNotFound` for one who was no member."""
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await store.delete_member(caller.account_id, workspace.id, user_id):
                raise UserNotFound("this user is no member of the workspace")
            line = self._audit.line(caller, "workspace.remove_member", workspace.id.hex, {"user": user_id.hex})
            await store.insert_audit_lines(connection, [line])


def uuid_of(text: str) -> UUID | None:
    """The UUID `text` spells, with or without dashes; None when it spells none."""
    try:
        return UUID(hex=text) if len(text) in (32, 36) and text.isascii() else None
    except ValueError:
        return None
