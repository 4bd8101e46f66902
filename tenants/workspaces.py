"""Workspaces of an account and their members."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from uuid import UUID

from app.errors import InvalidRequest
from tenants.audit import AuditLog
from tenants.auth import WORKSPACE_ROLES, WORKSPACE_SCOPES, Caller, expand
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AlreadyExists, NotAMember, UserNotFound, WorkspaceNotFound
from tenants.ids import Ids
from tenants.limits import DISPLAY_NAME, RESERVED_WORKSPACE_SLUGS, WORKSPACE_SLUG
from tenants.schemas import MemberRow, WorkspaceRow
from tenants.store import audit as audit_store
from tenants.store import users as user_store
from tenants.store import workspaces as workspace_store

DEFAULT_WORKSPACE = "default"
"""Slug of the workspace every account has; workflows made outside a workspace belong to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entered:
    """A caller in a workspace."""

    caller: Caller
    """In the workspace's account, restricted to it, with the scopes that count there."""
    workspace: WorkspaceRow
    role: str | None
    """`admin` or `member`; None for one who is no member and may only read."""


class WorkspaceService:
    """Reads and changes the workspaces of the caller's account. `in_account`: `LoginService.in_account`."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        audit: AuditLog,
        in_account: Callable[[Caller, UUID], Awaitable[Caller]],
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._in_account = in_account

    async def create(self, caller: Caller, slug: str, name: str | None = None) -> WorkspaceRow:
        """A new workspace. Raises :class:`InvalidRequest` for a bad or reserved slug, :class:`AlreadyExists`."""
        slug = WORKSPACE_SLUG.check(slug, "slug")
        if slug in RESERVED_WORKSPACE_SLUGS:
            raise InvalidRequest(f"slug must not be {' or '.join(sorted(RESERVED_WORKSPACE_SLUGS))}")
        name = DISPLAY_NAME.check(slug if name is None else name, "name")
        row = WorkspaceRow(caller.account_id, self._ids.uuid7(), slug, name, self._clock.now())
        values = {field: getattr(row, field) for field in row.__struct_fields__}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await workspace_store.insert_workspace(values):
                raise AlreadyExists(f"there is a workspace {slug!r} already; slugs are unique in a deployment")
            line = self._audit.line(caller, "workspace.create", row.id.hex, {"slug": slug})
            await audit_store.insert_audit_lines(connection, [line])
        return row

    async def all(self, account_id: UUID) -> list[WorkspaceRow]:
        """The account's workspaces by slug."""
        async with self._db.scope(account_id):
            return await workspace_store.workspaces(account_id)

    async def get(self, account_id: UUID, slug_or_id: str) -> WorkspaceRow:
        """The workspace of that slug or id (UUID text). Raises :class:`WorkspaceNotFound`."""
        async with self._db.scope(account_id):
            row = None
            if WORKSPACE_SLUG.holds(slug_or_id):
                row = await workspace_store.workspace_by_slug(account_id, slug_or_id)
            if row is None and (workspace_id := uuid_of(slug_or_id)):
                row = await workspace_store.workspace_by_id(account_id, workspace_id)
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
            return await workspace_store.member_role(caller.account_id, workspace.id, caller.user_id)

    async def enter(self, caller: Caller, slug_or_id: str) -> Entered:
        """The caller, from now on in that workspace only. Raises :class:`WorkspaceNotFound`.

        The slug `default` is that of the caller's own account. Any other is one workspace of the whole deployment; a
        person who logged in reaches it in every account they are somebody in. Members among the persons may what
        `auth.WORKSPACE_SCOPES` says of their role there, others of the account may read; tokens and administrators may
        what they may everywhere.
        """
        caller, workspace = await self._reach(caller, slug_or_id)
        role = await self.role_of(caller, workspace)
        scopes = caller.scopes
        if role is None:
            scopes = frozenset(scope for scope in scopes if scope.endswith(":read"))
        elif caller.token_id is None and not caller.member_everywhere:
            scopes = expand(WORKSPACE_SCOPES[role])
        return Entered(dataclasses.replace(caller, workspace_id=workspace.id, scopes=scopes), workspace, role)

    async def require_member(self, caller: Caller, slug_or_id: str) -> Entered:
        """As :meth:`enter`, for members only. Raises :class:`NotAMember`, too."""
        entered = await self.enter(caller, slug_or_id)
        if entered.role is None:
            raise NotAMember("Authentication error: the user is no member of this workspace")
        return entered

    async def _reach(self, caller: Caller, slug_or_id: str) -> tuple[Caller, WorkspaceRow]:
        try:
            return caller, await self.visible(caller, slug_or_id)
        except WorkspaceNotFound:
            if caller.login_id is None or caller.user_id is None or caller.workspace_id is not None:
                raise
            if not WORKSPACE_SLUG.holds(slug_or_id):
                raise
            engine = self._db.engine
            account = await workspace_store.account_of_workspace(engine, caller.account_id, caller.user_id, slug_or_id)
            if account is None or account == caller.account_id:
                raise
        caller = await self._in_account(caller, account)
        return caller, await self.visible(caller, slug_or_id)

    async def members(self, account_id: UUID, workspace: WorkspaceRow) -> list[MemberRow]:
        """Users listed as members, by name."""
        async with self._db.scope(account_id) as connection:
            return await workspace_store.members(connection, account_id, workspace.id)

    async def add_member(self, caller: Caller, workspace: WorkspaceRow, user_id: UUID, role: str = "member") -> None:
        """Make a user a member, or change a member's role. Raises :class:`UserNotFound`."""
        if role not in WORKSPACE_ROLES:
            raise InvalidRequest(f"role must be {' or '.join(WORKSPACE_ROLES)}")
        account_id = caller.account_id
        async with self._db.scope(account_id, transaction=True) as connection:
            if await user_store.user_by_id(account_id, user_id) is None:
                raise UserNotFound("there is no such user in this account")
            await workspace_store.put_member(connection, account_id, workspace.id, user_id, role, self._clock.now())
            detail = {"user": user_id.hex, "role": role}
            line = self._audit.line(caller, "workspace.add_member", workspace.id.hex, detail)
            await audit_store.insert_audit_lines(connection, [line])

    async def remove_member(self, caller: Caller, workspace: WorkspaceRow, user_id: UUID) -> None:
        """Take a user out of the workspace. Raises :class:`UserNotFound` for one who was no member."""
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await workspace_store.delete_member(caller.account_id, workspace.id, user_id):
                raise UserNotFound("this user is no member of the workspace")
            line = self._audit.line(caller, "workspace.remove_member", workspace.id.hex, {"user": user_id.hex})
            await audit_store.insert_audit_lines(connection, [line])


def uuid_of(text: str) -> UUID | None:
    """The UUID `text` spells, with or without dashes; None when it spells none."""
    try:
        return UUID(hex=text) if len(text) in (32, 36) and text.isascii() else None
    except ValueError:
        return None
