"""API tokens, and the credentials that callers present."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from tenants.schemas import TokenRow
from tenants.store.rows import first_as
from tenants.tables import ApiToken

# A credential is presented before its account is known: this and its siblings run as the engine role.
CREDENTIAL = """
select t.account_id, t.id, t.name, t.hash, t.scopes, t.role, t.workspace_id, t.user_id, t.not_before, t.expires_at,
       t.disabled_at, t.last_used_at, a.disabled_at as account_disabled_at, u.disabled_at as user_disabled_at
from api_token t
join account a on a.account_id = t.account_id
left join app_user u on u.account_id = t.account_id and u.id = t.user_id
"""

CREDENTIAL_BY_HASH = CREDENTIAL + "where t.hash = any($1::bytea[]) limit 1"

CREDENTIAL_BY_ID = CREDENTIAL + "where t.account_id = $1 and t.id = $2"

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


async def credential_by_id(engine: Any, account_id: UUID, token_id: UUID) -> Credential | None:
    row = await engine.fetchrow(CREDENTIAL_BY_ID, account_id, token_id)
    return Credential(**row) if row else None


async def touch_tokens(engine: Any, uses: Sequence[tuple[UUID, UUID, datetime, bytes, bytes]]) -> None:
    """Record uses: (account, token, when, hash it was found under, hash it should have)."""
    await engine.execute(TOUCH_TOKENS, *(list(column) for column in zip(*uses, strict=True)))


TOKEN_COLUMNS = [column for column in ApiToken.all_columns() if column._meta.name != "hash"]


async def insert_token(values: dict[str, Any]) -> bool:
    """Add a token; False when its hash is taken, in this account or another."""
    return bool(await ApiToken.insert(ApiToken(**values)).on_conflict(action="DO NOTHING"))


async def token_by_id(account_id: UUID, token_id: UUID) -> TokenRow | None:
    query = ApiToken.select(*TOKEN_COLUMNS).where(ApiToken.account_id == account_id, ApiToken.id == token_id).first()
    return first_as(TokenRow, await query)


async def tokens(
    account_id: UUID,
    *,
    workspace_id: UUID | None,
    live_at: datetime | None,
    ascending: bool,
    limit: int,
    offset: int,
) -> tuple[list[TokenRow], int]:
    """A page of tokens by age and how many there are; `live_at` leaves out those that had expired then."""
    where = ApiToken.account_id == account_id
    if workspace_id is not None:
        where = where & (ApiToken.workspace_id == workspace_id)
    if live_at is not None:
        where = where & (ApiToken.expires_at.is_null() | (ApiToken.expires_at > live_at))
    query = ApiToken.select(*TOKEN_COLUMNS).where(where).order_by(ApiToken.created_at, ApiToken.id, ascending=ascending)
    rows = await query.limit(limit).offset(offset)
    return [TokenRow(**row) for row in rows], await ApiToken.count().where(where)


async def count_tokens(account_id: UUID) -> int:
    return await ApiToken.count().where(ApiToken.account_id == account_id)


async def update_token(account_id: UUID, token_id: UUID, changes: dict[Any, Any]) -> bool:
    """Set columns of a token; False when there is none."""
    query = ApiToken.update(changes).where(ApiToken.account_id == account_id, ApiToken.id == token_id)
    return bool(await query.returning(ApiToken.id))


async def delete_token(account_id: UUID, token_id: UUID) -> bool:
    query = ApiToken.delete().where(ApiToken.account_id == account_id, ApiToken.id == token_id)
    return bool(await query.returning(ApiToken.id))
