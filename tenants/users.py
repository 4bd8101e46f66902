"""Users of an account: people with a name, a role and perhaps a password."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import InvalidRequest, NotAllowed
from tenants.audit import AuditLog
from tenants.auth import ROLE_SCOPES, Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AlreadyExists, UserNotFound, WrongLogin
from tenants.ids import Ids, parse_account_id
from tenants.limits import ACCOUNT_NAME, EMAIL, PASSWORD, USER_NAME
from tenants.schemas import UserRow
from tenants.store import audit as audit_store
from tenants.store import users as user_store
from tenants.workspaces import uuid_of

# One hash takes 64 MiB and some 50 ms of a core: a burst of logins must not take all of either.
_AT_ONCE = 2


class UserService:
    """Reads and changes the users of an account. `forget` drops what authentication remembers."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, audit: AuditLog, forget: Callable[[], None]) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._forget = forget
        self._passwords = _Passwords()

    async def create(
        self, caller: Caller, name: str, *, role: str, email: str | None = None, password: str | None = None
    ) -> UserRow:
        """A new user. Raises :class:`InvalidRequest`, or :class:`AlreadyExists` when name or e-mail are taken."""
        values: dict[str, Any] = {
            "account_id": caller.account_id,
            "id": (user_id := self._ids.uuid7()),
            "person_id": user_id,
            "name": USER_NAME.check(name, "name"),
            "email": None if email is None else EMAIL.check(email, "email"),
            "password_hash": None if password is None else await self._hashed(password),
            "role": _check_role(role),
            "created_at": self._clock.now(),
            "modified_at": self._clock.now(),
        }
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await user_store.insert_user(values):
                raise AlreadyExists("there is a user with this name or e-mail address already")
            line = self._audit.line(caller, "user.create", values["id"].hex, {"name": name, "role": role})
            await audit_store.insert_audit_lines(connection, [line])
        return UserRow(disabled_at=None, logins_since=None, **values)

    async def all(self, account_id: UUID) -> list[UserRow]:
        """The account's users by name."""
        async with self._db.scope(account_id):
            return await user_store.users(account_id)

    async def by_id(self, account_id: UUID, user_id: UUID) -> UserRow:
        """The user. Raises :class:`UserNotFound`."""
        async with self._db.scope(account_id):
            row = await user_store.user_by_id(account_id, user_id)
        if row is None:
            raise UserNotFound("there is no such user in this account")
        return row

    async def find(self, account_id: UUID, name_or_id: str) -> UserRow:
        """The user of that name, e-mail address or id. Raises :class:`UserNotFound`."""
        async with self._db.scope(account_id) as connection:
            row = None
            if USER_NAME.holds(name_or_id):
                row = await user_store.user_by_name(connection, account_id, name_or_id)
            if row is None and (user_id := uuid_of(name_or_id)):
                row = await user_store.user_by_id(account_id, user_id)
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
        """Replace the user's password and end all logins there are.

        Raises :class:`InvalidRequest` for one that is too short or too long.
        """
        hashed = await self._hashed(password)
        changes = {"password_hash": hashed, "logins_since": self._clock.now()}
        await self._change(caller, user_id, changes, "user.password")

    async def end_logins(self, caller: Caller, user_id: UUID) -> None:
        """End every login there is of the user: JWTs, sessions and what they opened. API tokens stay."""
        await self._change(caller, user_id, {"logins_since": self._clock.now()}, "user.logout")

    async def link(self, caller: Caller, user_id: UUID, to_account: UUID, to_user: UUID) -> None:
        """Say that a user of the caller's account is the same person as a user of another account.

        Whoever logged in as one may then act as the other. Only for operators: an account's own administrators could
        else make themselves anybody. Raises :class:`UserNotFound`, or :class:`AlreadyExists` when another user here is
        that person.
        """
        if caller.actor != "operator":
            raise NotAllowed("only an operator can say that users of different accounts are the same person")
        now = self._clock.now()
        async with self._db.across_accounts(transaction=True) as connection:
            if await user_store.user_by_id(to_account, to_user) is None:
                raise UserNotFound("there is no such user in that account")
            if await user_store.user_by_id(caller.account_id, user_id) is None:
                raise UserNotFound("there is no such user in this account")
            if not await user_store.link_user(connection, caller.account_id, user_id, to_account, to_user, now):
                raise AlreadyExists("that person is another user of this account already")
            detail = {"account": to_account.hex, "user": to_user.hex}
            line = self._audit.line(caller, "user.link", user_id.hex, detail)
            await audit_store.insert_audit_lines(connection, [line])
        self._forget()

    async def check_password(self, account: str | UUID | None, name: str, password: str) -> UserRow:
        """The user who logs in with a name or an e-mail address, in an account (id or name) or in any.

        In any, it is the user whose name it is rather than the one whose address it is, and the oldest of these.
        Raises :class:`WrongLogin`, after the same work and with the same text whatever was wrong.
        """
        found = None
        if USER_NAME.holds(name) and (not isinstance(account, str) or ACCOUNT_NAME.holds(account)):
            account_id = parse_account_id(account) if isinstance(account, str) else account
            account_name = account if isinstance(account, str) and account_id is None else None
            found = await user_store.user_to_log_in(self._db.engine, name, account_id, account_name)
        row, accepted = found or (None, None)
        right = await self._passwords.verify(accepted, password)
        if row is None or not right:
            raise WrongLogin()
        if row.password_hash is not None and self._passwords.outdated(row.password_hash):
            async with self._db.scope(row.account_id):
                changes = {"password_hash": await self._passwords.hash(password)}
                await user_store.update_user(row.account_id, row.id, changes)
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
            if not await user_store.update_user(caller.account_id, user_id, changes):
                raise UserNotFound("there is no such user in this account")
            line = self._audit.line(caller, action, user_id.hex, detail)
            await audit_store.insert_audit_lines(connection, [line])
        self._forget()


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
