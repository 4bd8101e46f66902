"""Deliveries, for callers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from jobs.webhooks.schemas import Attempt, Delivery, DeliveryStatus
from jobs.webhooks.store.endpoints import VISIBLE

Connection = asyncpg.Connection

_DELIVERY = (
    "d.no, d.webhook_no, d.event, d.event_id, d.status, d.attempts, d.last_status, d.last_error,"
    " case when d.status = 0 then d.next_at end as next_at, d.created_at, d.delivered_at, d.log"
)
_OF_WEBHOOK = f"""
from webhook w join webhook_delivery d on d.account_id = $1 and d.webhook_no = w.no
where {VISIBLE} and w.no = $3 and ($4::smallint is null or d.status = $4)
"""

DELIVERIES = f"select {_DELIVERY} {_OF_WEBHOOK} order by d.webhook_no desc, d.no desc limit $5 offset $6"

COUNT_DELIVERIES = f"select count(*) from (select {_OF_WEBHOOK} limit $5) counted"

# A delivery under way stays where it is: the attempt decides what comes next.
REDELIVER = f"""
with due as (
  update webhook w set due_at = least(w.due_at, $5) where {VISIBLE} and ($4::bigint is null or w.no = $4) and w.active
    and exists (select from webhook_delivery d where d.account_id = $1 and d.no = $3 and d.webhook_no = w.no)
  returning w.no
)
update webhook_delivery d set
  status = 0, next_at = case when d.claimed then d.next_at else $5 end,
  tries = case when d.status = 0 then d.tries else 0 end,
  expires_at = greatest(d.expires_at, $6)
from due where d.account_id = $1 and d.no = $3 and d.webhook_no = due.no
returning {_DELIVERY}
"""

DELIVERY = f"""
select {_DELIVERY} from webhook w join webhook_delivery d on d.account_id = $1 and d.webhook_no = w.no
where {VISIBLE} and d.no = $3 and ($4::bigint is null or w.no = $4)
"""


async def page(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    no: int,
    status: DeliveryStatus | None,
    limit: int,
    offset: int,
) -> list[Delivery]:
    """Deliveries to an endpoint, the newest first."""
    number = None if status is None else int(status)
    rows = await connection.fetch(DELIVERIES, account_id, workspace_id, no, number, limit, offset)
    return [_delivery(row) for row in rows]


async def count(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    no: int,
    status: DeliveryStatus | None,
    most: int,
) -> int:
    """How many there are, counted to `most`."""
    number = None if status is None else int(status)
    return int(await connection.fetchval(COUNT_DELIVERIES, account_id, workspace_id, no, number, most) or 0)


async def one(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, webhook_no: int | None
) -> Delivery | None:
    """One delivery; `webhook_no`: only of that endpoint."""
    row = await connection.fetchrow(DELIVERY, account_id, workspace_id, no, webhook_no)
    return None if row is None else _delivery(row)


async def redeliver(
    connection: Connection,
    account_id: UUID,
    workspace_id: UUID | None,
    no: int,
    webhook_no: int | None,
    now: datetime,
    expires_at: datetime,
) -> Delivery | None:
    """Have a delivery sent at once; None when there is none or its endpoint is switched off."""
    row = await connection.fetchrow(REDELIVER, account_id, workspace_id, no, webhook_no, now, expires_at)
    return None if row is None else _delivery(row)


_attempts = msgspec.json.Decoder(Attempt)


def _delivery(row: Any) -> Delivery:
    values = dict(row)
    values["status"] = DeliveryStatus(values["status"])
    values["log"] = [_attempts.decode(text) for text in values["log"]]
    return Delivery(**values)
