"""API tokens: made (the text is shown once), changed, rolled, revoked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from app.errors import InvalidRequest, NotAllowed
from tenants.audit import AuditLog
from tenants.auth import ADMIN, ROLE_SCOPES, SCOPES, Caller, role_for
from tenants.authentication import Authenticator
from tenants.clock import Clock, iso
from tenants.database import Database
from tenants.errors import AlreadyExists, LimitReached, TokenNotFound, UserNotFound
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.limits import TOKEN_NAME, TOKENS_PER_ACCOUNT
from tenants.policies import granted_beyond
from tenants.schemas import TokenRow
from tenants.store import accounts as account_store
from tenants.store import audit as audit_store
from tenants.store import tokens as token_store
from tenants.store import users as user_store
from tenants.token_text import check_adopted, new_token


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """What a token may do, and when. `policies` is the stored form of the policies the scopes came from."""

    name: str
    scopes: list[str]
    policies: str | None = None
    role: str | None = None
    """None: the role that fits the scopes."""
    workspace_id: UUID | None = None
    user_id: UUID | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    disabled: bool = False


class TokenService:
    """Reads and changes the tokens of the caller's account.

    A caller cannot give away a scope it does not hold, nor take over a token that can do more than itself; one that is
    restricted to a workspace sees and makes tokens of that workspace only.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        keys: Keys,
        audit: AuditLog,
        authenticator: Authenticator,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._keys = keys
        self._audit = audit
        self._authenticator = authenticator
        self._entropy = entropy

    async def create(self, caller: Caller, grant: TokenGrant) -> tuple[TokenRow, str]:
        """A new token and its text, which is not stored. Raises :class:`InvalidRequest`, :class:`NotAllowed`."""
        return await self._insert(caller, grant, new_token(self._entropy))

    async def adopt(self, caller: Caller, grant: TokenGrant, text: str) -> TokenRow:
        """Accept `text` as a token of the account, for `millrace dev`. Raises :class:`AlreadyExists`."""
        row, _ = await self._insert(caller, grant, check_adopted(text))
        return row

    async def get(self, caller: Caller, token_id: UUID) -> TokenRow:
        """The token. Raises :class:`TokenNotFound`."""
        async with self._db.scope(caller.account_id):
            return await self._visible(caller, token_id)

    async def page(
        self, caller: Caller, *, limit: int, offset: int = 0, ascending: bool = False, include_expired: bool = False
    ) -> tuple[list[TokenRow], int]:
        """Tokens by age, the newest first unless `ascending`, and how many there are in all."""
        async with self._db.scope(caller.account_id):
            return await token_store.tokens(
                caller.account_id,
                workspace_id=caller.workspace_id,
                live_at=None if include_expired else self._clock.now(),
                ascending=ascending,
                limit=limit,
                offset=offset,
            )

    async def replace(self, caller: Caller, token_id: UUID, grant: TokenGrant) -> TokenRow:
        """Give the token another name, scopes and times; its text, user and workspace stay."""
        now = self._clock.now()
        columns = self._columns(caller, grant) | {"modified_at": now}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            row = await self._visible(caller, token_id)
            self._must_cover(caller, row)
            disabled_at = (row.disabled_at or now) if grant.disabled else None
            await token_store.update_token(caller.account_id, token_id, columns | {"disabled_at": disabled_at})
            detail = {"name": grant.name, "scopes": grant.scopes, "disabled": grant.disabled}
            line = self._audit.line(caller, "token.update", token_id.hex, detail)
            await audit_store.insert_audit_lines(connection, [line])
            row = await self._visible(caller, token_id)
        self._authenticator.forget()
        return row

    async def give(self, caller: Caller, token_id: UUID, user_id: UUID) -> None:
        """Make the token that of a user. Raises :class:`TokenNotFound`, :class:`UserNotFound`."""
        changes = {"user_id": user_id, "modified_at": self._clock.now()}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            self._must_cover(caller, await self._visible(caller, token_id))
            if await user_store.user_by_id(caller.account_id, user_id) is None:
                raise UserNotFound("there is no such user in this account")
            await token_store.update_token(caller.account_id, token_id, changes)
            line = self._audit.line(caller, "token.give", token_id.hex, {"user": user_id.hex})
            await audit_store.insert_audit_lines(connection, [line])
        self._authenticator.forget()

    async def roll(self, caller: Caller, token_id: UUID) -> str:
        """A new text for the token; the old one stops working within a second."""
        text = new_token(self._entropy)
        changes = {"hash": self._keys.token_hashes(text)[0], "modified_at": self._clock.now()}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            self._must_cover(caller, await self._visible(caller, token_id))
            await token_store.update_token(caller.account_id, token_id, changes)
            await audit_store.insert_audit_lines(connection, [self._audit.line(caller, "token.roll", token_id.hex)])
        self._authenticator.forget()
        return text

    async def revoke(self, caller: Caller, token_id: UUID) -> None:
        """Delete the token. It stops working within a second everywhere. Raises :class:`TokenNotFound`."""
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            row = await self._visible(caller, token_id)
            await token_store.delete_token(caller.account_id, token_id)
            line = self._audit.line(caller, "token.revoke", token_id.hex, {"name": row.name})
            await audit_store.insert_audit_lines(connection, [line])
        self._authenticator.forget()

    async def _insert(self, caller: Caller, grant: TokenGrant, text: str) -> tuple[TokenRow, str]:
        now = self._clock.now()
        token_id = self._ids.uuid7()
        values = self._columns(caller, grant) | {
            "account_id": caller.account_id,
            "id": token_id,
            "hash": self._keys.token_hashes(text)[0],
            "workspace_id": caller.workspace_id or grant.workspace_id,
            "user_id": grant.user_id,
            "disabled_at": now if grant.disabled else None,
            "created_at": now,
            "modified_at": now,
        }
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await account_store.account_for_update(
                caller.account_id
            )  # whoever counts and inserts does so one at a time
            if await token_store.count_tokens(caller.account_id) >= TOKENS_PER_ACCOUNT:
                raise LimitReached(f"an account has at most {TOKENS_PER_ACCOUNT} tokens; delete some first")
            if not await token_store.insert_token(values):
                raise AlreadyExists("this token is in use already")
            detail = {"name": grant.name, "scopes": values["scopes"]}
            line = self._audit.line(caller, "token.create", token_id.hex, detail)
            await audit_store.insert_audit_lines(connection, [line])
            row = await self._visible(caller, token_id)
        return row, text

    def _columns(self, caller: Caller, grant: TokenGrant) -> dict[str, Any]:
        """The grant as columns, after checking every part of it."""
        if unknown := sorted(set(grant.scopes) - SCOPES):
            raise InvalidRequest(f"unknown scope {unknown[0]!r}; the scopes are {', '.join(sorted(SCOPES))}")
        if not grant.scopes:
            raise InvalidRequest("scopes must not be empty")
        if beyond := granted_beyond(grant.scopes, caller.scopes):
            raise NotAllowed(f"Authentication error: you cannot grant {', '.join(beyond)}, which you do not hold")
        role = grant.role or role_for(frozenset(grant.scopes))
        if role not in ROLE_SCOPES:
            raise InvalidRequest(f"role must be one of {', '.join(ROLE_SCOPES)}")
        if role == ADMIN and ADMIN not in caller.scopes:
            raise NotAllowed("Authentication error: only an admin can grant the role admin")
        self._check_times(grant)
        return {
            "name": TOKEN_NAME.check(grant.name, "name"),
            "scopes": sorted(set(grant.scopes)),
            "policies": grant.policies,
            "role": role,
            "not_before": grant.not_before,
            "expires_at": grant.expires_at,
        }

    def _check_times(self, grant: TokenGrant) -> None:
        if grant.expires_at is None:
            return
        if grant.expires_at <= self._clock.now():
            raise InvalidRequest(f"expires_on must be in the future; it is {iso(self._clock.now())} now")
        if grant.not_before is not None and grant.not_before >= grant.expires_at:
            raise InvalidRequest("not_before must be before expires_on")

    def _must_cover(self, caller: Caller, row: TokenRow) -> None:
        if beyond := granted_beyond(row.scopes, caller.scopes):
            raise NotAllowed(f"Authentication error: this token holds {', '.join(beyond)}, which you do not hold")
        if row.role == ADMIN and ADMIN not in caller.scopes:
            raise NotAllowed("Authentication error: this token has the role admin, which you do not have")

    async def _visible(self, caller: Caller, token_id: UUID) -> TokenRow:
        row = await token_store.token_by_id(caller.account_id, token_id)
        if row is None or caller.workspace_id not in (None, row.workspace_id):
            raise TokenNotFound("there is no such token in this account")
        return row
