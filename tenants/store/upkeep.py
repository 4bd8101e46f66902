"""What the server keeps up for all accounts: rows that expire, and the secrets the database was used with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tenants.keys import ID_BYTES
from tenants.schemas import OutdatedToken

# table -> (its time column). Rows go in bounded batches, oldest first, those another process deletes are skipped.
EXPIRING = {
    "idempotency_key": "created_at",
    "stream_ticket": "expires_at",
    "session": "expires_at",
    "revoked_login": "expires_at",
    "audit_line": "at",
}

DELETE_EXPIRED = """
delete from {table} where ctid = any(array(
  select ctid from {table} where {column} < $1 order by {column} limit $2 for update skip locked))
"""

# Held until the transaction ends: of two processes that start with different secrets, one sees the other's.
LOCK_KEYRING = "lock table keyring in share row exclusive mode"

KEYRING = "select id from keyring order by first_used_at desc"

DROP_FROM_KEYRING = "delete from keyring where id = any($1::bytea[])"

ADD_TO_KEYRING = "insert into keyring (id, first_used_at) values ($1, $2)"

# A token's hash begins with the fingerprint of the secret it was made with.
TOKENS_BY_KEY = """
select substr(hash, 1, $1) as key, count(*) as n from api_token where expires_at is null or expires_at > $2 group by 1
"""

TOKENS_OF_KEYS = """
select account_id, id, name, last_used_at from api_token
where substr(hash, 1, $1) = any($2::bytea[]) and (expires_at is null or expires_at > $3)
order by account_id, id limit $4
"""


async def delete_expired(engine: Any, table: str, before: datetime, limit: int) -> int:
    """Delete up to `limit` rows of an `EXPIRING` table that are older than `before`; how many were deleted."""
    statement = DELETE_EXPIRED.format(table=table, column=EXPIRING[table])
    return int((await engine.execute(statement, before, limit)).split()[-1])


async def keyring(engine: Any) -> list[bytes]:
    """Fingerprints of the secrets this database was used with, the one that is current last taken first."""
    return [row["id"] for row in await engine.fetch(KEYRING)]


async def lock_keyring(engine: Any) -> None:
    """Keep others from reading and changing it in turn with us, until the transaction ends."""
    await engine.execute(LOCK_KEYRING)


async def drop_from_keyring(engine: Any, key_ids: Sequence[bytes]) -> None:
    await engine.execute(DROP_FROM_KEYRING, list(key_ids))


async def add_to_keyring(engine: Any, key_id: bytes, now: datetime) -> None:
    await engine.execute(ADD_TO_KEYRING, key_id, now)


async def tokens_by_key(engine: Any, now: datetime) -> dict[bytes, int]:
    """How many tokens that have not expired need which secret, by its fingerprint."""
    return {row["key"]: row["n"] for row in await engine.fetch(TOKENS_BY_KEY, ID_BYTES, now)}


async def tokens_of_keys(engine: Any, key_ids: Sequence[bytes], now: datetime, limit: int) -> list[OutdatedToken]:
    """Tokens that need one of these secrets and have not expired."""
    rows = await engine.fetch(TOKENS_OF_KEYS, ID_BYTES, list(key_ids), now, limit)
    return [OutdatedToken(**row) for row in rows]
