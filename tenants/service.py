"""What other packages ask of this one: who is calling, what an account may use, and a line in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from app.errors import InvalidRequest, NotAuthenticated
from app.settings import Settings
from tenants import store
from tenants.audit import AuditLog
from tenants.auth import Caller, credentials_in
from tenants.authentication import Authenticator
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AccountNotFound
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.limits import Limits, limits_from

LIMITS_CACHE = timedelta(seconds=1)


class TenantService:
    """Accounts and everything that belongs to them. One per process; close it before the database."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, settings: Settings, redis: Redis | None = None) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._redis = redis
        self.keys = Keys(settings)
        self._authenticator = Authenticator(db, clock, self.keys)
        self._audit = AuditLog(db, clock, ids)
        self._limits: dict[UUID, tuple[datetime, Limits]] = {}

    async def close(self) -> None:
        """Write what is still in memory (uses of tokens, audit lines)."""
        await self._authenticator.close()
        await self._audit.close()

    async def authenticate(self, bearer: str) -> Caller:
        """The caller of an API token. Raises :class:`NotAuthenticated`. At most half a second behind a revocation."""
        return await self._authenticator.authenticate(bearer)

    async def authenticate_headers(self, headers: Mapping[str, str]) -> Caller:
        """The caller of a request by its headers (lower-case names), see `auth.credentials_in`.

        Raises :class:`NotAuthenticated`; :class:`InvalidRequest` when two credentials name different accounts.
        """
        credentials = credentials_in(headers)
        if not credentials:
            raise NotAuthenticated()
        callers = [await self.authenticate(text) for text in credentials]
        if len({caller.account_id for caller in callers}) > 1:
            raise InvalidRequest("the request carries credentials of two different accounts; send one")
        return callers[0]

    async def limits(self, account_id: UUID) -> Limits:
        """What the account may use, at most a second old. Raises :class:`AccountNotFound`."""
        at, limits = self._limits.get(account_id, (None, None))
        now = self._clock.now()
        if at is not None and limits is not None and now - at <= LIMITS_CACHE:
            return limits
        row = await store.account_limits(self._db.engine, account_id)
        if row is None:
            raise AccountNotFound()
        profile, overrides = row
        limits = limits_from(profile, msgspec.json.decode(overrides))
        self._limits[account_id] = (now, limits)
        return limits

    async def audit(
        self, caller: Caller, action: str, target: str, detail: dict[str, Any] | None = None, *, wait: bool = True
    ) -> None:
        """Write an audit line: `action` as `noun.verb`, `target` an id or name, `detail` without payloads and secrets.

        Address and request id come from `tenants.audit.origin`. `wait=False` returns before the line is durable.
        """
        written = self._audit.submit(caller, action, target, detail)
        if wait:
            await written
