"""People at the door: logging in with a password, the JWTs that come of it, and how a login ends.

A **login** is one act of proving a password. Its id (a UUIDv7, so it says when that was) is in every JWT that descends
from it and is the id of a session. A login counts until it is ended, until the user or account is disabled, or until
the password is changed; what the user may do is looked up, never read from the JWT. All of it takes effect within a
second in every process.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.errors import NoRoute, NotAllowed, NotAuthenticated
from tenants.audit import AuditLog
from tenants.auth import ROLE_SCOPES, Caller, expand
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import LoginRateExceeded
from tenants.ids import Ids
from tenants.jwts import Claims, Jwts
from tenants.keys import Keys
from tenants.rates import RequestRates
from tenants.remembered import Remembered
from tenants.schemas import UserRow
from tenants.store import logins as store
from tenants.store.logins import Login
from tenants.users import UserService

REFRESH_LIFETIME = timedelta(days=7)
"""How long a refresh token may be exchanged; each exchange gives a fresh one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is logged in, and how."""

    user: UserRow
    caller: Caller


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """A JWT that was read, and its user as they were found."""

    claims: Claims
    login: Login


class LoginService:
    """Logs people in and recognises them afterwards."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        keys: Keys,
        audit: AuditLog,
        users: UserService,
        rates: RequestRates,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._users = users
        self._rates = rates
        self._access = Jwts(keys, clock, ids, "jwt")
        self._refresh = Jwts(keys, clock, ids, "jwt refresh")
        self._known: Remembered[_Known] = Remembered(clock)
        self._others: Remembered[UUID] = Remembered(clock)

    def forget(self) -> None:
        """Drop what is remembered, after a change made in this process."""
        self._known.forget()
        self._others.forget()

    # ---- logging in

    async def log_in(self, name: str, password: str, *, account: str | None = None, address: str = "") -> Person:
        """A fresh login of the user of that name or e-mail address.

        `account` (id or name) says where; without it, it is the oldest such user of all accounts. `address` is the
        client's. Raises :class:`WrongLogin`, always the same, and :class:`LoginRateExceeded` (with `retry_after`) after
        ten attempts in an hour under one name from one address, right ones included.
        """
        wait = await self._rates.login(address, name)
        if wait is not None:
            raise LoginRateExceeded(retry_after=wait)
        user = await self._users.check_password(account, name, password)
        person = Person(user, _caller(user, self._ids.uuid7(), None))
        await self._audit.submit(person.caller, "user.login", user.id.hex)
        return person

    async def person(self, caller: Caller) -> Person:
        """The user a caller is, for answers and claims. Raises :class:`NotAllowed` for one who did not log in."""
        if caller.token_id is not None or caller.user_id is None:
            raise NotAllowed("Authentication error: this needs a user who logged in, not an API token")
        return Person(await self._users.by_id(caller.account_id, caller.user_id), caller)

    # ---- JWTs

    def issue(self, person: Person, lifetime: timedelta, claims: Mapping[str, Any] | None = None) -> str:
        """A JWT of the person's login with `claims` of the face's (`tenants.claims`)."""
        return self._access.issue(person.user.account_id, person.user.id, _login_of(person), lifetime, claims or {})

    def issue_refresh(self, person: Person) -> str:
        """A text that :meth:`refresh` takes, once, within `REFRESH_LIFETIME`."""
        return self._refresh.issue(person.user.account_id, person.user.id, _login_of(person), REFRESH_LIFETIME, {})

    async def refresh(self, text: str) -> Person:
        """Take a refresh token; the person it belongs to. Raises :class:`NotAuthenticated`.

        One that was taken before has been stolen, or its thief was faster: the whole login ends.
        """
        claims = self._refresh.read(text)
        login = await store.login(self._db.engine, claims.account_id, claims.user_id, [claims.login_id])
        if login is None or not self._refresh.current(claims) or not _counts(login, claims.login_id):
            raise NotAuthenticated()
        if not await store.revoke_login(self._db.engine, claims.account_id, claims.jti, claims.expires_at):
            await self.revoke(claims.account_id, claims.login_id)
            raise NotAuthenticated()
        return Person(login.user, _caller(login.user, claims.login_id, None))

    async def resolve(self, text: str) -> Caller:
        """The caller of a JWT. Raises :class:`NotAuthenticated`."""
        key = hashlib.sha256(text.encode()).digest()
        known = await self._known.get(key, lambda: self._read(text))
        if known is None or not self._access.current(known.claims):
            raise NotAuthenticated()
        return _caller(known.login.user, known.claims.login_id, known.claims.expires_at)

    # ---- afterwards

    async def recheck(self, caller: Caller) -> Caller:
        """The caller of a login as it is now. Raises :class:`NotAuthenticated` when it no longer counts."""
        if caller.user_id is None or caller.login_id is None:
            raise NotAuthenticated()
        login = await store.login(self._db.engine, caller.account_id, caller.user_id, [caller.login_id])
        over = caller.expires_at is not None and caller.expires_at <= self._clock.now()
        if login is None or over or not _counts(login, caller.login_id):
            raise NotAuthenticated()
        return _caller(login.user, caller.login_id, caller.expires_at)

    async def end(self, caller: Caller) -> None:
        """End the caller's login: its JWTs, refresh tokens and session. Raises :class:`NotAllowed` without a login."""
        if caller.login_id is None:
            raise NotAllowed("Authentication error: this needs a user who logged in, not an API token")
        await self.revoke(caller.account_id, caller.login_id)
        await self._audit.submit(caller, "user.logout", (caller.user_id or caller.account_id).hex)

    async def revoke(self, account_id: UUID, login_id: UUID) -> None:
        """Note that a login is over, for as long as anything of it could still be presented."""
        until = self._clock.now() + REFRESH_LIFETIME
        await store.revoke_login(self._db.engine, account_id, login_id, until)
        self.forget()

    async def in_account(self, caller: Caller, account_id: UUID) -> Caller:
        """The caller as the same person's user in another account, with the role they have there.

        Raises :class:`NoRoute` when the person is nobody there; tokens belong to one account.
        """
        if account_id == caller.account_id:
            return caller
        if caller.token_id is not None or caller.user_id is None or caller.login_id is None:
            raise NoRoute()
        home, user_id = caller.account_id, caller.user_id
        key = home.bytes + user_id.bytes + account_id.bytes
        found = await self._others.get(key, lambda: store.same_person(self._db.engine, home, user_id, account_id))
        if found is None:
            raise NoRoute()
        other = dataclasses.replace(caller, account_id=account_id, user_id=found)
        try:
            return await self.recheck(other)
        except NotAuthenticated:
            raise NoRoute() from None

    def caller_of(self, login: Login, login_id: UUID, expires_at: datetime) -> Caller:
        """The caller of a login that was looked up. Raises :class:`NotAuthenticated` when it no longer counts."""
        if not _counts(login, login_id) or expires_at <= self._clock.now():
            raise NotAuthenticated()
        return _caller(login.user, login_id, expires_at)

    async def _read(self, text: str) -> _Known | None:
        claims = self._access.read(text)
        revocable = [claims.jti, claims.login_id]
        login = await store.login(self._db.engine, claims.account_id, claims.user_id, revocable)
        return None if login is None or not _counts(login, claims.login_id) else _Known(claims, login)


def _login_of(person: Person) -> UUID:
    if person.caller.login_id is None:
        raise NotAllowed("Authentication error: this needs a user who logged in, not an API token")
    return person.caller.login_id


def _caller(user: UserRow, login_id: UUID, expires_at: datetime | None) -> Caller:
    return Caller(
        account_id=user.account_id,
        token_id=None,
        user_id=user.id,
        name=user.name,
        scopes=expand(ROLE_SCOPES[user.role]),
        role=user.role,
        login_id=login_id,
        expires_at=expires_at,
    )


def _counts(login: Login, login_id: UUID) -> bool:
    """Whether a login still counts."""
    if login.revoked or login.account_disabled or login.user.disabled_at is not None:
        return False
    # The id is a UUIDv7 of ours: its first 48 bits are when the login was, in milliseconds.
    since = login.logins_since
    return since is None or login_id.int >> 80 >= int(since.timestamp() * 1000)
