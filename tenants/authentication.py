"""From a bearer credential to a :class:`Caller`, at memory speed and never more than half a second behind.

A found token is remembered for half a second, so revoking one takes effect within a second in every process. Uses are
noted in memory and written in batches, off the request path.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from app.errors import NotAuthenticated
from tenants.auth import Caller, expand
from tenants.clock import Clock, iso
from tenants.database import Database
from tenants.keys import Keys
from tenants.remembered import CACHE_ENTRIES, Remembered
from tenants.store import tokens as store
from tenants.store.tokens import Credential
from tenants.token_text import damaged

TOUCH_EVERY = timedelta(minutes=1)
TOUCH_DELAY = 5.0
"""Seconds uses are collected before they are written."""

# Tokens made here have 40 to 80 characters; `millrace dev --token` may bring a shorter one of its own.
TOKEN = re.compile(r"sk_[\x21-\x7e]{17,197}")

DAMAGED = "Authentication error: the token is damaged (its checksum is wrong); was all of it copied?"

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """A token and the caller it makes."""

    credential: Credential
    caller: Caller


class Authenticator:
    """Looks tokens up and remembers them. Close it to write the last uses."""

    def __init__(self, db: Database, clock: Clock, keys: Keys) -> None:
        self._db = db
        self._clock = clock
        self._keys = keys
        self._found: Remembered[_Found] = Remembered(clock)
        self._uses = _Uses(db)

    async def authenticate(self, bearer: str) -> Caller:
        """The caller of a token that may be used now. Raises :class:`NotAuthenticated` in all other cases."""
        hashes, found = await self._find(bearer)
        now = self._clock.now()
        _refuse_unusable(found.credential, now)
        self._uses.note(found.credential, now, hashes[0])
        return found.caller

    async def look_up(self, bearer: str) -> Credential:
        """The token, usable or not. Raises :class:`NotAuthenticated` when there is none."""
        _, found = await self._find(bearer)
        return found.credential

    async def by_id(self, account_id: UUID, token_id: UUID) -> Caller:
        """The caller of a token that was accepted before, if it still is. Raises :class:`NotAuthenticated`."""
        credential = await store.credential_by_id(self._db.engine, account_id, token_id)
        if credential is None:
            raise NotAuthenticated()
        _refuse_unusable(credential, self._clock.now())
        return _caller(credential)

    def forget(self) -> None:
        """Drop what is remembered: after a change made in this process, nothing stale is left here."""
        self._found.forget()

    async def flush(self) -> None:
        """Write the noted uses now."""
        await self._uses.flush()

    async def close(self) -> None:
        await self._uses.close()

    async def _find(self, bearer: str) -> tuple[list[bytes], _Found]:
        if not TOKEN.fullmatch(bearer):
            raise NotAuthenticated()
        hashes = self._keys.token_hashes(bearer)
        found = await self._found.get(hashes[0], lambda: self._query(hashes))
        if found is None:
            raise NotAuthenticated(DAMAGED if damaged(bearer) else "Authentication error")
        return hashes, found

    async def _query(self, hashes: list[bytes]) -> _Found | None:
        credential = await store.credential_by_hash(self._db.engine, hashes)
        return None if credential is None else _Found(credential, _caller(credential))


class _Uses:
    """When tokens were last used, collected and written together."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._noted: dict[UUID, datetime] = {}
        self._pending: dict[UUID, tuple[UUID, UUID, datetime, bytes, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, credential: Credential, now: datetime, current_hash: bytes) -> None:
        """Remember one use; at most one per token and minute is written, and any that still has an old hash."""
        last = max(filter(None, (self._noted.get(credential.id), credential.last_used_at)), default=None)
        if last is not None and now - last < TOUCH_EVERY and credential.hash == current_hash:
            return
        if credential.id in self._pending:
            return
        self._noted[credential.id] = now
        self._pending[credential.id] = (credential.account_id, credential.id, now, credential.hash, current_hash)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOUCH_DELAY, self._start)

    def _start(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self.flush())

    async def flush(self) -> None:
        uses, self._pending = list(self._pending.values()), {}
        if len(self._noted) > CACHE_ENTRIES:
            self._noted.clear()
        if not uses:
            return
        try:
            await store.touch_tokens(self._db.engine, uses)
        except Exception:
            # Losing a "last used" time is not worth failing for; the next use writes it.
            log.warning("token_uses_not_written", tokens=len(uses), exc_info=True)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        await self.flush()


def status_of(credential: Credential, now: datetime) -> str:
    """What the token's own row says: `active`, `disabled` or `expired`."""
    if credential.disabled_at is not None:
        return "disabled"
    return "expired" if credential.expires_at is not None and credential.expires_at <= now else "active"


def _refuse_unusable(credential: Credential, now: datetime) -> None:
    if problem := _problem(credential, now):
        raise NotAuthenticated(f"Authentication error: {problem}")


def _problem(credential: Credential, now: datetime) -> str | None:
    if credential.account_disabled_at is not None:
        return "the account is disabled"
    if credential.user_disabled_at is not None:
        return "the token's user is disabled"
    if credential.disabled_at is not None:
        return "the token is disabled"
    if credential.expires_at is not None and credential.expires_at <= now:
        return f"the token expired on {iso(credential.expires_at)}"
    if credential.not_before is not None and credential.not_before > now:
        return f"the token is not valid before {iso(credential.not_before)}"
    return None


def _caller(credential: Credential) -> Caller:
    return Caller(
        account_id=credential.account_id,
        token_id=credential.id,
        user_id=credential.user_id,
        name=credential.name,
        scopes=expand(credential.scopes),
        role=credential.role,
        workspace_id=credential.workspace_id,
        expires_at=credential.expires_at,
    )
