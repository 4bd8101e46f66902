"""Answers kept under an `Idempotency-Key`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

# Takes the key when it is free, was forgotten, or its holder never answered; the seed stays in the last case, so that
# what the first holder may have created is found again.
BEGIN_IDEMPOTENT = """
insert into idempotency_key as k (account_id, operation, key, request_hash, seed, created_at, held_until)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (account_id, operation, key) do update set
  request_hash = excluded.request_hash,
  seed = case when k.created_at < $8 then excluded.seed else k.seed end,
  created_at = case when k.created_at < $8 then excluded.created_at else k.created_at end,
  held_until = excluded.held_until, status = null, response = null
where k.created_at < $8
   or (k.status is null and k.held_until <= $6 and k.request_hash = excluded.request_hash)
returning k.seed
"""

IDEMPOTENT_ANSWER = """
select request_hash, status, response from idempotency_key where account_id = $1 and operation = $2 and key = $3
"""

FINISH_IDEMPOTENT = """
update idempotency_key set status = $5, response = $6
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and status is null
"""

ABANDON_IDEMPOTENT = """
delete from idempotency_key
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and held_until = $5 and status is null
"""

RELEASE_IDEMPOTENT = """
update idempotency_key set held_until = $5
where account_id = $1 and operation = $2 and key = $3 and seed = $4 and status is null
"""


async def begin_idempotent(
    connection: Any,
    account_id: UUID,
    operation: str,
    key: str,
    request_hash: bytes,
    *,
    seed: UUID,
    now: datetime,
    held_until: datetime,
    forgotten: datetime,
) -> UUID | None:
    """Take an idempotency key: the seed to use, or None when somebody else has it or its answer is stored."""
    return await connection.fetchval(
        BEGIN_IDEMPOTENT, account_id, operation, key, request_hash, seed, now, held_until, forgotten
    )


async def idempotent_answer(
    connection: Any, account_id: UUID, operation: str, key: str
) -> tuple[bytes, int | None, str | None] | None:
    """(request hash, status, response) stored for a key; status None while it is in flight."""
    row = await connection.fetchrow(IDEMPOTENT_ANSWER, account_id, operation, key)
    return (row["request_hash"], row["status"], row["response"]) if row else None


async def finish_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, status: int, response: str
) -> None:
    await connection.execute(FINISH_IDEMPOTENT, account_id, operation, key, seed, status, response)


async def abandon_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, held_until: datetime | None
) -> None:
    """Give a key back as if it had never been used, by who holds it until then."""
    await connection.execute(ABANDON_IDEMPOTENT, account_id, operation, key, seed, held_until)


async def release_idempotent(
    connection: Any, account_id: UUID, operation: str, key: str, seed: UUID, now: datetime
) -> None:
    """Let the next request of a key take over at once, with the same seed."""
    await connection.execute(RELEASE_IDEMPOTENT, account_id, operation, key, seed, now)
