"""Accounts: made, listed, disabled, limited, measured."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.errors import InvalidRequest, NotAllowed
from tenants.audit import AuditLog
from tenants.auth import Caller, operator
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import AccountNotFound, AlreadyExists
from tenants.ids import Ids, account_hex
from tenants.limits import ACCOUNT_NAME, DEFAULT_PROFILE, Limits, limits_from
from tenants.schemas import AccountRow, AuditRow, Usage
from tenants.store import accounts as account_store
from tenants.store import audit as audit_store
from tenants.store import workspaces as workspace_store
from tenants.workspaces import DEFAULT_WORKSPACE

LIMITS_CACHE = timedelta(seconds=1)
LIMITS_CACHED = 10_000
"""Accounts whose limits are remembered, about."""


class AccountSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an account set for itself: default retention of finished instances, in milliseconds, and what tasks without
    a type do: nothing (`noop`), or wait to be completed from outside (`external`)."""

    success_retention_ms: int | None = None
    error_retention_ms: int | None = None
    untyped_tasks: Literal["noop", "external"] = "noop"


class AccountService:
    """Reads and changes accounts. Only operators (`auth.operator`) create, limit or disable them."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, audit: AuditLog) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._audit = audit
        self._limits: dict[UUID, tuple[datetime, Limits]] = {}

    async def create(self, name: str, *, account_id: UUID | None = None) -> AccountRow:
        """A new account with its default workspace. Raises :class:`AlreadyExists` when the id is taken."""
        name = ACCOUNT_NAME.check(name, "name")
        account_id = account_id or self._ids.account_id()
        now = self._clock.now()
        values = {"account_id": account_id, "name": name, "created_at": now, "modified_at": now}
        values |= {"profile": DEFAULT_PROFILE, "limits": "{}", "settings": "{}"}
        workspace = {"account_id": account_id, "id": self._ids.uuid7(), "created_at": now}
        async with self._db.scope(account_id, transaction=True) as connection:
            if not await account_store.insert_account(values):
                raise AlreadyExists(f"account {account_hex(account_id)} exists already")
            await workspace_store.insert_workspace(workspace | {"slug": DEFAULT_WORKSPACE, "name": "Default"})
            line = self._audit.line(operator(account_id), "account.create", account_hex(account_id), {"name": name})
            await audit_store.insert_audit_lines(connection, [line])
        return await self.get(account_id)

    async def get(self, account_id: UUID) -> AccountRow:
        """The account. Raises :class:`AccountNotFound`."""
        async with self._db.scope(account_id):
            row = await account_store.account(account_id)
        if row is None:
            raise AccountNotFound(f"there is no account {account_hex(account_id)}")
        return row

    async def all(self, *, limit: int = 1000, offset: int = 0) -> list[AccountRow]:
        """Accounts of the installation, the oldest first."""
        async with self._db.across_accounts():
            return await account_store.accounts(limit, offset)

    async def disable(self, caller: Caller, *, disabled: bool = True) -> None:
        """Refuse all credentials of the caller's account, or accept them again. Takes effect within a second."""
        changes = {"disabled_at": self._clock.now() if disabled else None}
        await self._change(caller, changes, "account.disable" if disabled else "account.enable")

    async def limits(self, account_id: UUID) -> Limits:
        """What the account may use, at most a second old. Raises :class:`AccountNotFound`."""
        found = await self.limits_of([account_id])
        if account_id not in found:
            raise AccountNotFound(f"there is no account {account_hex(account_id)}")
        return found[account_id]

    async def limits_of(self, account_ids: Collection[UUID]) -> dict[UUID, Limits]:
        """As :meth:`limits` for several accounts, in one query at most; those that do not exist are left out."""
        now = self._clock.now()
        known = {id_: kept for id_ in account_ids if (kept := self._limits.get(id_)) and now - kept[0] <= LIMITS_CACHE}
        if missing := set(account_ids) - known.keys():
            if len(self._limits) > LIMITS_CACHED:
                self._limits.clear()
            for account_id, profile, overrides in await account_store.account_limits(self._db.engine, list(missing)):
                limits = limits_from(profile, msgspec.json.decode(overrides))
                known[account_id] = self._limits[account_id] = (now, limits)
        return {account_id: limits for account_id, (_, limits) in known.items()}

    async def set_limits(
        self, caller: Caller, *, profile: str | None = None, changes: dict[str, Any] | None = None
    ) -> Limits:
        """Set single limits (None lifts one), or choose a profile, which drops single limits set before.

        Raises :class:`InvalidRequest` naming the limit and its bounds.
        """
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            row = await self._locked(caller.account_id)
            overrides = {} if profile is not None else msgspec.json.decode(row.limits)
            overrides |= changes or {}
            profile = profile or row.profile
            limits = limits_from(profile, overrides)
            text = msgspec.json.encode(overrides).decode()
            columns = {"profile": profile, "limits": text, "modified_at": self._clock.now()}
            await account_store.update_account(caller.account_id, columns | _derived(limits, row.settings))
            target = account_hex(caller.account_id)
            line = self._audit.line(caller, "account.limits", target, {"profile": profile, "limits": overrides})
            await audit_store.insert_audit_lines(connection, [line])
        self._limits.pop(caller.account_id, None)
        return limits

    async def settings(self, account_id: UUID) -> AccountSettings:
        """What the account set for itself."""
        return msgspec.json.decode((await self.get(account_id)).settings, type=AccountSettings)

    async def set_retention(self, caller: Caller, **changes: int | None) -> AccountSettings:
        """Change `success_retention_ms` or `error_retention_ms`; None goes back to the plan's own.

        Raises :class:`InvalidRequest` when one is beyond the plan's longest, :class:`NotAllowed` for a caller that is
        restricted to a workspace.
        """

        def check(limits: Limits) -> None:
            for name, value in changes.items():
                if value is not None and not 0 <= value <= limits.retention_max_ms:
                    field = f"default_retention.{name.removesuffix('_ms')}"
                    raise InvalidRequest(f"{field} must be from 0 to {limits.retention_max_ms} milliseconds")

        return await self._set(caller, changes, check)

    async def set_untyped_tasks(self, caller: Caller, untyped_tasks: Literal["noop", "external"]) -> AccountSettings:
        """Say what tasks without a type do in versions made from now on."""
        return await self._set(caller, {"untyped_tasks": untyped_tasks}, lambda _limits: None)

    async def _set(self, caller: Caller, changes: dict[str, Any], check: Callable[[Limits], None]) -> AccountSettings:
        if caller.workspace_id is not None:
            raise NotAllowed(
                "Authentication error: the account's defaults hold for all workspaces; the token is for one"
            )
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            row = await self._locked(caller.account_id)
            limits = limits_from(row.profile, msgspec.json.decode(row.limits))
            check(limits)
            settings = msgspec.structs.replace(msgspec.json.decode(row.settings, type=AccountSettings), **changes)
            text = msgspec.json.encode(settings).decode()
            columns = {"settings": text, "modified_at": self._clock.now()}
            await account_store.update_account(caller.account_id, columns | _derived(limits, text))
            line = self._audit.line(caller, "account.settings", account_hex(caller.account_id), changes)
            await audit_store.insert_audit_lines(connection, [line])
        return settings

    async def usage(self, account_id: UUID) -> Usage:
        """What the account has now: workflows, scripts, instances by status number, tokens, users …"""
        await self.get(account_id)
        async with self._db.scope(account_id) as connection:
            return await account_store.usage(connection, account_id)

    async def audit_lines(self, account_id: UUID, *, limit: int = 100, before: UUID | None = None) -> list[AuditRow]:
        """The account's audit log, the newest line first; `before` continues after a line already seen."""
        async with self._db.scope(account_id):
            return await audit_store.audit_lines(account_id, limit, before)

    async def _locked(self, account_id: UUID) -> AccountRow:
        row = await account_store.account_for_update(account_id)
        if row is None:
            raise AccountNotFound(f"there is no account {account_hex(account_id)}")
        return row

    async def _change(self, caller: Caller, changes: dict[str, Any], action: str) -> None:
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            if not await account_store.update_account(caller.account_id, changes | {"modified_at": self._clock.now()}):
                raise AccountNotFound(f"there is no account {account_hex(caller.account_id)}")
            line = self._audit.line(caller, action, account_hex(caller.account_id))
            await audit_store.insert_audit_lines(connection, [line])


def _derived(limits: Limits, settings: str) -> dict[str, Any]:
    """The columns the engine's SQL reads: concurrency, and the account's default retention within the plan's bounds."""
    own = msgspec.json.decode(settings, type=AccountSettings)
    success, error = (
        min(limits.retention_ms if value is None else value, limits.retention_max_ms)
        for value in (own.success_retention_ms, own.error_retention_ms)
    )
    return {
        "concurrency": limits.concurrency,
        "success_retention_ms": success,
        "error_retention_ms": error,
    }
