"""What other packages ask of this one: who is calling, what an account may use, a line in the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from app.errors import NotAuthenticated
from app.settings import Settings, SettingsError
from tenants.accounts import AccountService
from tenants.audit import AuditLog
from tenants.auth import Caller, credentials_in, require_one_account
from tenants.authentication import Authenticator
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import CreationRateExceeded, WebhookTestRateExceeded
from tenants.idempotency import Idempotency
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.limits import AUDIT_KEEP_MS, IDEMPOTENCY_KEEP_MS, Limits
from tenants.logins import LoginService
from tenants.rates import CreationRates, RequestRate, RequestRates
from tenants.schemas import OutdatedToken
from tenants.sessions import SessionService
from tenants.store import upkeep as store
from tenants.store.tokens import Credential
from tenants.tickets import TicketService
from tenants.token_text import PREFIX
from tenants.tokens import TokenService
from tenants.users import UserService
from tenants.workspaces import WorkspaceService

STRANGE_KEY = (
    "MILLRACE_SECRET is not the secret this database was set up with. Start with that one; to change it, set the new"
    " one as MILLRACE_SECRET and the old one as MILLRACE_SECRET_PREVIOUS. If it is lost: millrace token reset-secret"
)
REPLACED_KEY = (
    "MILLRACE_SECRET was replaced by another one, which other processes use: start with that one. To go back, set it as"
    " MILLRACE_SECRET_PREVIOUS"
)
FORGET_AFTER = {
    "idempotency_key": timedelta(milliseconds=IDEMPOTENCY_KEEP_MS),
    "stream_ticket": timedelta(0),
    "session": timedelta(0),
    "revoked_login": timedelta(0),
    "audit_line": timedelta(milliseconds=AUDIT_KEEP_MS),
}


class TenantService:
    """Accounts and everything that belongs to them. One per process; close it before the database.

    `accounts`, `tokens`, `users`, `logins`, `sessions`, `tickets`, `workspaces` and `idempotency` are services of their
    own, built here.
    """

    def __init__(self, db: Database, clock: Clock, ids: Ids, settings: Settings, redis: Redis | None = None) -> None:
        self._db = db
        self._clock = clock
        self.keys = Keys(settings)
        self._authenticator = Authenticator(db, clock, self.keys)
        self._audit = AuditLog(db, clock, ids)
        self._rates = CreationRates(redis, clock)
        self._requests = RequestRates(redis, clock)
        self.accounts = AccountService(db, clock, ids, self._audit)
        self.tokens = TokenService(db, clock, ids, self.keys, self._audit, self._authenticator)
        self.users = UserService(db, clock, ids, self._audit, self._forget)
        self.logins = LoginService(db, clock, ids, self.keys, self._audit, self.users, self._requests)
        self.sessions = SessionService(db, clock, ids, self.keys, self._audit, self.logins)
        self.tickets = TicketService(db, clock, ids, self.keys, self.recheck)
        self.workspaces = WorkspaceService(db, clock, ids, self._audit, self.logins.in_account)
        self.idempotency = Idempotency(db, clock, ids)

    async def close(self) -> None:
        """Write what is still in memory (uses of tokens, audit lines)."""
        await self._authenticator.close()
        await self._audit.close()

    async def authenticate(self, bearer: str) -> Caller:
        """The caller of an API token or a JWT. Raises :class:`NotAuthenticated`.

        At most half a second behind a revocation.
        """
        if bearer.startswith(PREFIX):
            return await self._authenticator.authenticate(bearer)
        return await self.logins.resolve(bearer)

    async def authenticate_headers(self, headers: Mapping[str, str]) -> Caller:
        """The caller of a request by its headers (lower-case names), see `auth.credentials_in`.

        Raises :class:`NotAuthenticated`; :class:`InvalidRequest` when two credentials name different accounts.
        """
        credentials = credentials_in(headers)
        if not credentials:
            raise NotAuthenticated()
        callers = [await self.authenticate(text) for text in credentials]
        require_one_account(callers)
        return callers[0]

    async def recheck(self, caller: Caller) -> Caller:
        """Who the caller is now, for what lasts longer than a request. Asks the database.

        Raises :class:`NotAuthenticated` when the credential is no longer accepted or has expired, and
        :class:`WorkspaceNotFound` when its workspace is gone.
        """
        if caller.token_id is not None:
            fresh = await self._authenticator.by_id(caller.account_id, caller.token_id)
        else:
            fresh = await self.logins.recheck(caller)
        if caller.workspace_id is None or caller.workspace_id == fresh.workspace_id:
            return fresh
        return (await self.workspaces.enter(fresh, caller.workspace_id.hex)).caller

    def _forget(self) -> None:
        self._authenticator.forget()
        self.logins.forget()
        self.sessions.forget()

    async def inspect(self, headers: Mapping[str, str]) -> Credential:
        """The token of a request, also when it is disabled or expired. Raises :class:`NotAuthenticated`."""
        credentials = credentials_in(headers)
        credential = await self._authenticator.look_up(credentials[0] if credentials else "")
        if credential.account_disabled_at is not None or credential.user_disabled_at is not None:
            raise NotAuthenticated()
        return credential

    async def limits(self, account_id: UUID) -> Limits:
        """What the account may use, at most a second old. Raises :class:`AccountNotFound`."""
        return await self.accounts.limits(account_id)

    async def admit_creations(self, account_id: UUID, workflow: str, count: int = 1) -> None:
        """Count `count` creations or restarts in a workflow (its key) against the account's rates.

        Raises :class:`CreationRateExceeded` with `retry_after`; then nothing was counted.
        """
        wait = await self._rates.take(account_id, workflow, await self.limits(account_id), count)
        if wait is not None:
            raise CreationRateExceeded(retry_after=wait)

    async def count_request(self, caller: Caller) -> RequestRate | None:
        """Count a request of the caller's credential; how it stands with the limit, None when the account has none.

        A request that is one too many has `retry_after`; :class:`RequestRateExceeded` is the caller's to raise.
        """
        per_minute = (await self.limits(caller.account_id)).requests_per_minute
        return None if per_minute is None else await self._requests.request(caller, per_minute)

    async def admit_webhook_test(self, caller: Caller) -> None:
        """Count a test delivery. Raises :class:`WebhookTestRateExceeded` with `retry_after`."""
        per_minute = (await self.limits(caller.account_id)).webhook_tests_per_minute
        rate = None if per_minute is None else await self._requests.webhook_test(caller, per_minute)
        if rate is not None and rate.retry_after is not None:
            raise WebhookTestRateExceeded(retry_after=rate.retry_after)

    async def audit(
        self, caller: Caller, action: str, target: str, detail: dict[str, Any] | None = None, *, wait: bool = True
    ) -> None:
        """Write an audit line: `action` as `noun.verb`, `target` an id or name, `detail` without payloads and secrets.

        Address and request id come from `tenants.audit.origin`. `wait=False` returns before the line is durable.
        """
        written = self._audit.submit(caller, action, target, detail)
        if wait:
            await written

    async def check_secret(self, *, accept: bool = True) -> None:
        """Refuse to go on with a secret this database was not used with last: tokens would silently stop working.

        A new secret is accepted beside its predecessor, and from then on the old one alone is refused, too. With
        `accept` False nothing is noted. Raises :class:`SettingsError`.
        """
        current = self.keys.key_ids[0]
        async with self._db.across_accounts(transaction=True) as connection:
            if accept:
                await store.lock_keyring(connection)
            known = await store.keyring(connection)
            if known and known[0] not in self.keys.key_ids:
                raise SettingsError(REPLACED_KEY if current in known else STRANGE_KEY)
            if accept and known[:1] != [current]:
                await store.drop_from_keyring(connection, [current])
                await store.add_to_keyring(connection, current, self._clock.now())

    async def reset_secret(self) -> None:
        """Accept the current secret alone. What earlier ones hashed and encrypted stays unusable: they are lost."""
        async with self._db.across_accounts(transaction=True) as connection:
            await store.lock_keyring(connection)
            await store.drop_from_keyring(connection, await store.keyring(connection))
            await store.add_to_keyring(connection, self.keys.key_ids[0], self._clock.now())

    async def tokens_by_key(self) -> dict[bytes, int]:
        """How many tokens (of all accounts, expired ones left out) need which secret; see `Keys.key_ids`."""
        return await store.tokens_by_key(self._db.engine, self._clock.now())

    async def tokens_of_keys(self, key_ids: Sequence[bytes], limit: int) -> list[OutdatedToken]:
        """Up to `limit` tokens that need one of these secrets."""
        return await store.tokens_of_keys(self._db.engine, key_ids, self._clock.now(), limit)

    async def forget_expired(self, limit: int = 1000) -> int:
        """Delete up to `limit` rows per kind that are past keeping (idempotency keys, tickets, sessions, ended
        logins, audit lines).

        Returns how many were deleted; a full batch means there may be more.
        """
        now = self._clock.now()
        deleted = 0
        for table, keep in FORGET_AFTER.items():
            deleted += await store.delete_expired(self._db.engine, table, now - keep, limit)
        return deleted
