"""Every SQL statement of this package.

Functions that take a connection run in whatever scope it was opened in: `Database.scope(account)` for everything a
tenant asks for, `Database.across_accounts()` for look-ups that do not know the account yet and operators' commands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

# A credential is presented before its account is known: this and its siblings run as the engine role.
CREDENTIAL_BY_HASH = """
select t.account_id, t.id, t.name, t.hash, t.scopes, t.role, t.workspace_id, t.user_id, t.not_before, t.expires_at,
       t.disabled_at, t.last_used_at, a.disabled_at as account_disabled_at, u.disabled_at as user_disabled_at
from api_token t
join account a on a.account_id = t.account_id
left join app_user u on u.account_id = t.account_id and u.id = t.user_id
where t.hash = any($1::bytea[])
limit 1
"""

# `hash` moves to the current secret while the token is in use, so that a rotation can end. A token revoked or rolled
# meanwhile no longer has the old hash and is left alone; one that another process is writing can wait for its next use.
TOUCH_TOKENS = """
with n as materialized (
  select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bytea[], $5::bytea[])
    as n(account_id, id, at, old_hash, hash)
), t as materialized (
  select t.account_id, t.id, n.at, n.hash
  from api_token t join n on t.account_id = n.account_id and t.id = n.id and t.hash = n.old_hash
  for update of t skip locked
)
update api_token set last_used_at = greatest(api_token.last_used_at, t.at), hash = t.hash
from t where api_token.account_id = t.account_id and api_token.id = t.id
"""

INSERT_AUDIT_LINES = """
insert into audit_line (account_id, id, at, actor, action, target, address, request_id, detail)
select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[])
"""

ACCOUNT_LIMITS = "select profile, limits from account where account_id = $1"


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """An API token as authentication needs it, with what disables it from outside."""

    account_id: UUID
    id: UUID
    name: str
    hash: bytes
    scopes: list[str]
    role: str
    workspace_id: UUID | None
    user_id: UUID | None
    not_before: datetime | None
    expires_at: datetime | None
    disabled_at: datetime | None
    last_used_at: datetime | None
    account_disabled_at: datetime | None
    user_disabled_at: datetime | None


async def credential_by_hash(engine: Any, hashes: Sequence[bytes]) -> Credential | None:
    """The token stored under one of `hashes`, whichever account it belongs to."""
    row = await engine.fetchrow(CREDENTIAL_BY_HASH, list(hashes))
    return Credential(**row) if row else None


async def touch_tokens(engine: Any, uses: Sequence[tuple[UUID, UUID, datetime, bytes, bytes]]) -> None:
    """Record uses: (account, token, when, hash it was found under, hash it should have)."""
    await engine.execute(TOUCH_TOKENS, *(list(column) for column in zip(*uses, strict=True)))


async def insert_audit_lines(connection: Any, lines: Sequence[tuple[Any, ...]]) -> None:
    """Write audit lines (account, id, at, actor, action, target, address, request id, detail), any accounts'."""
    await connection.execute(INSERT_AUDIT_LINES, *(list(column) for column in zip(*lines, strict=True)))


async def account_limits(engine: Any, account_id: UUID) -> tuple[str, str] | None:
    """Profile and overrides (JSON text) of an account; None when it does not exist."""
    row = await engine.fetchrow(ACCOUNT_LIMITS, account_id)
    return (row["profile"], row["limits"]) if row else None
