"""Sessions of browsers: an opaque cookie of which only a keyed hash is stored, good for ten hours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta

from app.errors import NotAllowed, NotAuthenticated
from tenants.audit import AuditLog
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.logins import LoginService
from tenants.remembered import Remembered
from tenants.store import logins as store
from tenants.store.logins import Session

COOKIE = "connect.sid"
LIFETIME = timedelta(hours=10)
TOUCH_EVERY = timedelta(minutes=1)
"""How exact "last used" is."""

_SECRET_BYTES = 32
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


class Opaque:
    """Random texts of which the database gets a keyed hash, so that a copy of it opens nothing."""

    def __init__(self, keys: Keys, purpose: str, entropy: Callable[[int], bytes]) -> None:
        self._keys = keys.derive(purpose)
        self._entropy = entropy

    def new(self) -> tuple[str, bytes]:
        """A fresh text (43 characters) and its hash."""
        text = base64.urlsafe_b64encode(self._entropy(_SECRET_BYTES)).rstrip(b"=").decode()
        return text, self.hashes(text)[0]

    def hashes(self, text: str) -> list[bytes]:
        """What the hash of `text` may be: under the current secret and the previous one. None for another's text."""
        if not _VALUE.fullmatch(text):
            return []
        return [hmac.digest(key, text.encode(), hashlib.sha256) for key in self._keys]


class SessionService:
    """Opens, recognises and ends sessions."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        keys: Keys,
        audit: AuditLog,
        logins: LoginService,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._logins = logins
        self._texts = Opaque(keys, "session", entropy)
        self._known: Remembered[Session] = Remembered(clock)

    def forget(self) -> None:
        """Drop what is remembered, after a change made in this process."""
        self._known.forget()

    async def create(self, caller: Caller) -> tuple[str, datetime]:
        """A session for a person who logged in: the cookie's value and when it ends.

        It is a login of its own: ending it leaves the JWT it was made with alone, and the other way round. Raises
        :class:`NotAllowed` for API tokens, whose scopes a session would widen.
        """
        if caller.token_id is not None or caller.user_id is None or caller.login_id is None:
            raise NotAllowed("Authentication error: a session needs a user who logged in, not an API token")
        text, hashed = self._texts.new()
        now = self._clock.now()
        session_id = self._ids.uuid7()
        await store.insert_session(
            self._db.engine, caller.account_id, session_id, caller.user_id, hashed, now, now + LIFETIME
        )
        await self._audit.submit(caller, "session.create", session_id.hex)
        return text, now + LIFETIME

    async def resolve(self, text: str) -> Caller:
        """The caller of a session's cookie. Raises :class:`NotAuthenticated`."""
        hashes = self._texts.hashes(text)
        found = await self._known.get(hashes[0], lambda: self._find(hashes)) if hashes else None
        if found is None:
            raise NotAuthenticated()
        return self._logins.caller_of(found.login, found.id, found.expires_at)

    async def end(self, text: str) -> bool:
        """End a session, with the streams it opened and the JWTs that were made with it. False when there was none."""
        gone = await store.delete_session(self._db.engine, self._texts.hashes(text))
        self.forget()
        if gone is None:
            return False
        await self._logins.revoke(*gone)
        return True

    async def _find(self, hashes: list[bytes]) -> Session | None:
        session = await store.session_by_hash(self._db.engine, hashes)
        now = self._clock.now()
        if session is not None and now - session.last_used_at >= TOUCH_EVERY:
            await store.touch_session(self._db.engine, session.login.user.account_id, session.id, now)
        return session


def cookie(value: str, *, secure: bool) -> str:
    """`Set-Cookie` of a session; an empty value takes the cookie away. `secure`: everywhere but in development."""
    age = int(LIFETIME.total_seconds()) if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"


def cookie_in(header: str) -> str:
    """The session's value in a `Cookie` header; empty when there is none. Of repeated ones the first counts."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value.strip('"')
    return ""
