"""What has outlived its time, and secrets that are to be encrypted anew."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg

from tenants.database import Database

_EXPIRED = """
delete from webhook_delivery where (account_id, no) in (
  select account_id, no from webhook_delivery where expires_at <= $1 order by expires_at limit $2
  for update skip locked)
"""

_OF_DELETED = """
with gone as materialized (
  select w.account_id, w.no from webhook w where w.deleted_at is not null order by w.deleted_at limit 1
  for update skip locked
), emptied as (
  delete from webhook_delivery d using (
    select x.account_id, x.no from gone g cross join lateral (
      select y.account_id, y.no from webhook_delivery y where y.account_id = g.account_id and y.webhook_no = g.no
      order by y.no limit $1) x) v
  where d.account_id = v.account_id and d.no = v.no returning 1
), removed as (
  delete from webhook w using gone g
  where w.account_id = g.account_id and w.no = g.no and (select count(*) from emptied) < $1
)
select (select count(*) from gone) + (select count(*) from emptied)
"""

# As long as there is a cursor, what it has not passed is kept for it.
_FORGET = """
delete from feed_cursor c where starts_with(c.name, 'webhooks/') and (c.until is null or c.until <= $1)
  and not exists (select from webhook w where w.account_id = substr(c.name, 10)::uuid and w.active)
"""

_SEALED = """
select account_id, no, id, secret, former_secret from webhook
where (account_id, no) > ($1, $2) and deleted_at is null order by account_id, no limit $3
"""

_RESEAL = """
update webhook set secret = $5, former_secret = $6
where account_id = $1 and no = $2 and secret = $3 and former_secret is not distinct from $4
"""


async def expire(db: Database, now: datetime, limit: int) -> int:
    """Delete up to `limit` deliveries that have outlived their time; how many went."""
    async with db.fresh_plans() as connection:
        return int((await connection.execute(_EXPIRED, now, limit)).rsplit(" ", 1)[-1])


async def empty_deleted(db: Database, limit: int) -> int:
    """Delete up to `limit` deliveries of a deleted endpoint, and the endpoint with the last; 0: there is none."""
    async with db.fresh_plans() as connection:
        return await connection.fetchval(_OF_DELETED, limit)


async def forget(db: Database, now: datetime) -> None:
    """Read the feed no more for accounts in which nobody listens."""
    async with db.fresh_plans() as connection:
        await connection.execute(_FORGET, now)


async def sealed(db: Database, after: tuple[UUID, int], limit: int) -> list[asyncpg.Record]:
    """Secrets of all accounts' endpoints, page by page."""
    return await db.engine.fetch(_SEALED, *after, limit)


async def reseal(db: Database, row: asyncpg.Record, secret: bytes, former: bytes | None) -> bool:
    """Replace secrets unless they have been replaced; whether they were."""
    old = row["account_id"], row["no"], row["secret"], row["former_secret"]
    return (await db.engine.execute(_RESEAL, *old, secret, former)).endswith(" 1")
