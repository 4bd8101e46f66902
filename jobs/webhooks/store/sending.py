"""Sending: deliveries that are due, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from jobs.webhooks.schedule import DISABLED_AFTER, DISABLED_FAILURES, LANES, SLOWED_FOR
from jobs.webhooks.schemas import Attempt, DeliveryStatus
from tenants.database import Database

# Endpoints that are due, each with as many deliveries as it has free lanes. What an endpoint has no lane for is looked
# at again when one is free, or given up.
CLAIM = f"""
with due as materialized (
  select w.account_id, w.no, case when w.slowed_until > $1 then w.lanes else {LANES} end as lanes from webhook w
  where w.due_at <= $1 and w.active and not w.account_id = any ($4::uuid[])
  order by w.due_at limit $3 for no key update skip locked
), free as materialized (
  select u.account_id, u.no, greatest(0, u.lanes - (
    select count(*) from webhook_delivery d
    where d.account_id = u.account_id and d.webhook_no = u.no and d.claimed and d.next_at > $1)) as n from due u
), chosen as materialized (
  select d.account_id, d.no, f.no as webhook_no from free f cross join lateral (
    select x.account_id, x.no from webhook_delivery x
    where x.account_id = f.account_id and x.webhook_no = f.no and x.status = 0 and x.next_at <= $1
    order by x.next_at limit f.n for no key update skip locked) d
), taken as (
  update webhook_delivery d set claimed = true, claim = d.claim + 1, next_at = $2 from chosen c
  where d.account_id = c.account_id and d.no = c.no
  returning d.account_id, d.no, d.webhook_no, d.event, d.event_id, d.body, d.tries, d.claim
), later as (
  update webhook w set due_at = case
    when f.n <= (select count(*) from chosen c where c.account_id = f.account_id and c.webhook_no = f.no) then $2
    else least($2, (select min(x.next_at) from webhook_delivery x
                    where x.account_id = f.account_id and x.webhook_no = f.no and x.status = 0 and x.next_at > $1)) end
  from free f where w.account_id = f.account_id and w.no = f.no
)
select t.*, w.id, w.url, w.secret, case when w.former_until > $1 then w.former_secret end as former_secret
from taken t join webhook w on w.account_id = t.account_id and w.no = t.webhook_no
"""

# The outcome counts only while the delivery is whose it was; who was given up has been followed by another.
FINISH = f"""
with w as (
  update webhook w set
    failures = case when $7 then 0 else w.failures + 1 end,
    failing_since = case when $7 then null else coalesce(w.failing_since, $5) end,
    lanes = case when $8 then greatest(1, case when w.slowed_until > $5 then w.lanes else {LANES} end / 2)
            else w.lanes end,
    slowed_until = case when $8 then $9 else w.slowed_until end,
    active = w.active and not $10 and not (not $7 and w.failures + 1 >= {DISABLED_FAILURES} and w.failing_since <= $11),
    disabled_reason = case when $10 then 'gone'
      when not $7 and w.failures + 1 >= {DISABLED_FAILURES} and w.failing_since <= $11 then 'failing'
      else w.disabled_reason end,
    due_at = least($12, (select min(x.next_at) from webhook_delivery x
                         where x.account_id = $1 and x.webhook_no = $2 and x.status = 0 and x.no <> $3))
  where w.account_id = $1 and w.no = $2
    and exists (select from webhook_delivery x where x.account_id = $1 and x.no = $3 and x.claim = $4 and x.claimed)
  returning w.active, w.disabled_reason
), d as (
  update webhook_delivery d set claimed = false, status = $6, tries = d.tries + 1, attempts = d.attempts + 1,
    next_at = $12, last_status = $13, last_error = $14,
    log = (d.log || $15::text)[greatest(1, cardinality(d.log) - 18):],
    delivered_at = case when $7 then $5 else d.delivered_at end, expires_at = $16
  from w where d.account_id = $1 and d.no = $3 and d.claim = $4 and d.claimed
  returning d.no
)
select w.active, w.disabled_reason from w, d
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery in hand, and where it goes."""

    account_id: UUID
    no: int
    webhook_no: int
    event: str
    event_id: str
    body: str
    tries: int
    claim: int
    id: UUID
    url: str
    secret: bytes
    former_secret: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt. `next_at`: when to try again; `slow`: the endpoint asks for less."""

    status: DeliveryStatus
    attempt: Attempt
    next_at: datetime | None
    expires_at: datetime
    slow: bool = False
    gone: bool = False


async def claim(db: Database, now: datetime, until: datetime, endpoints: int, without: Sequence[UUID]) -> list[Claimed]:
    """Deliveries of up to `endpoints` endpoints, of no account in `without`. After `until` they are anybody's again."""
    return [Claimed(**dict(row)) for row in await db.engine.fetch(CLAIM, now, until, endpoints, without)]


async def finish(db: Database, one: Claimed, outcome: Outcome, now: datetime) -> str | None:
    """Write down what came of it; why the endpoint was switched off, if it was."""
    attempt = outcome.attempt
    row = await db.engine.fetchrow(
        FINISH,
        one.account_id,
        one.webhook_no,
        one.no,
        one.claim,
        now,
        int(outcome.status),
        outcome.status is DeliveryStatus.DELIVERED,
        outcome.slow,
        now + SLOWED_FOR,
        outcome.gone,
        now - DISABLED_AFTER,
        outcome.next_at,
        attempt.status,
        attempt.error,
        msgspec.json.encode(attempt).decode(),
        outcome.expires_at,
    )
    return None if row is None or row["active"] else row["disabled_reason"]
