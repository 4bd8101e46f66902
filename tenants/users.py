"""Users of an account: people with a name, a role and perhaps a password."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import InvalidRequest, NotAuthenticated
from tenants import store
from tenants.audit import AuditLog
from tenants.auth import ROLE_SCOPES, Caller
from tenants.authentication import Authenticator
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AlreadyExists, UserNotFound
from tenants.ids import Ids
from tenants.limits import EMAIL, PASSWORD, USER_NAME
from tenants.schemas import UserRow
from tenants.workspaces import uuid_of

# One hash takes 64 MiB and some 50 ms of a core: a burst of logins must not take all of either.
_AT_ONCE = 2


class UserService:
    """Reads and changes the users of an account."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, audit: AuditLog, authenticator: Authenticator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._authenticator = authenticator
        self._passwords = _Passwords()

    async def create(
        self, caller: Caller, name: str, *, role: str, email: str | None = None, password: str | None = None
    ) -> UserRow:
        """A new user. Raises :class:`InvalidRequest`, or :class:`AlreadyExists` when name or e-mail are taken."""
        values: dict[str, Any] = {
            "account_id": caller.account_id,
            "id": self._ids.uuid7(),
            "name": USER_NAME.check(name, "name"),
            "email": None if email is None else EMAIL.check(email, "email"),
            "password_hash": None if password is None else await self._hashed(password),
            "role": _check_role(role),
            "created_at": self._clock.now(),
            "modified_at": self._clock.now(),
        }
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await store.insert_user(values):
                raise AlreadyExists("there is a user with this name or e-mail address already")
            line = self._audit.line(caller, "user.create", values["id"].hex, {"name": name, "role": role})
            await store.insert_audit_lines(connection, [line])
        return UserRow(disabled_at=None, **values)

    async def all(self, account_id: UUID) -> list[UserRow]:
        """The account's users by name."""
        async with self._db.scope(account_id):
            return await store.users(account_id)

    async def by_id(self, account_id: UUID, user_id: UUID) -> UserRow:
        """The user. Raises :class:`UserNotFound`."""
        async with self._db.scope(account_id):
            row = await store.user_by_id(account_id, user_id)
        if row is None:
            raise UserNotFound("there is no such user in this account")
        return row

    async def find(self, account_id: UUID, name_or_id: str) -> UserRow:
        """The user of that name, e-mail address or id. Raises :class:`UserNotFound`."""
        async with self._db.scope(account_id) as connection:
            row = None
            if USER_NAME.holds(name_or_id):
                row = await store.user_by_name(connection, account_id, name_or_id)
            if row is None and (user_id := uuid_of(name_or_id)):
                row = await store.user_by_id(account_id, user_id)
        if row is None:
            raise UserNotFound("there is no such user in this account")
        return row

    async def disable(self, caller: Caller, user_id: UUID, *, disabled: bool = True) -> None:
        """Refuse the user's logins and tokens, or accept them again. Takes effect within a second."""
        changes = {"disabled_at": self._clock.now() if disabled else None}
        await self._change(caller, user_id, changes, "user.disable" if disabled else "user.enable")

    async def set_role(self, caller: Caller, user_id: UUID, role: str) -> None:
        """Change what the user may do; tokens keep the scopes they were made with."""
        await self._change(caller, user_id, {"role": _check_role(role)}, "user.role", {"role": role})

    async def set_password(self, caller: Caller, user_id: UUID, password: str) -> None:
        """Replace the user's password. Raises :class:`InvalidRequest` for one that is too short or too long."""
        await self._change(caller, user_id, {"password_hash": await self._hashed(password)}, "user.password")

    async def check_password(self, account_id: UUID, name: str, password: str) -> UserRow:
        """The user who logs in with a name or an e-mail address.

        Raises :class:`NotAuthenticated`, after the same work and with the same text whatever was wrong.
        """
        row = None
        if USER_NAME.holds(name):
            async with self._db.scope(account_id) as connection:
                row = await store.user_by_name(connection, account_id, name)
        usable = row is not None and row.disabled_at is None and row.password_hash is not None
        right = await self._passwords.verify(row.password_hash if usable and row else None, password)
        if row is None or not usable or not right:
            raise NotAuthenticated("Authentication error: unknown user or wrong password")
        if self._passwords.outdated(row.password_hash or ""):
            async with self._db.scope(account_id):
                await store.update_user(account_id, row.id, {"password_hash": await self._passwords.hash(password)})
        return row

    async def _hashed(self, password: str) -> str:
        if not PASSWORD.holds(password):
            raise InvalidRequest(f"password must be {PASSWORD.rule}")
        return await self._passwords.hash(password)

    async def _change(
        self, caller: Caller, user_id: UUID, changes: dict[str, Any], action: str, detail: dict[str, Any] | None = None
    ) -> None:
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            changes |= {"modified_at": self._clock.now()}
            if not await store.update_user(caller.account_id, user_id, changes):
                raise UserNotFound("there is no such user in this account")
            line = self._audit.line(caller, action, user_id.hex, detail)
            await store.insert_audit_lines(connection, [line])
        self._authenticator.forget()


class _Passwords:
    """Argon2id, off the event loop, a few at a time."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the stored one. None takes as long as a wrong one, and is wrong."""
        if self._decoy is None:
            self._decoy = await self.hash("a password nobody has")
        async with self._turn:
            matches = await asyncio.to_thread(self._matches, stored or self._decoy, password)
        return matches and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether the parameters have been raised since `stored` was made."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password.encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False


def _check_role(role: str) -> str:
    if role not in ROLE_SCOPES:
        raise InvalidRequest(f"role must be one of {', '.join(ROLE_SCOPES)}")
    return role
