"""Every SQL statement about endpoints and deliveries.

The first half is asked for by callers and takes a connection scoped to the account; `$1` is the account, `$2` the
workspace the caller is restricted to, if any. The second half is the background's: it spans accounts, and carries
`(account_id, no)` in every join. Locks are taken in one order: endpoints first, then deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from jobs.webhooks.catalogue import PROGRESS
from jobs.webhooks.schedule import DISABLED_AFTER, DISABLED_FAILURES, LANES, SLOWED_FOR
from jobs.webhooks.schemas import Attempt, Delivery, DeliveryStatus, SealedWebhook
from tenants.database import Database

Connection = asyncpg.Connection

# --- endpoints, for callers --------------------------------------------------------------------------------------

_COLUMNS = (
    "w.account_id, w.no, w.id, w.workspace_id, w.url, w.events, w.format, w.secret, w.active, w.disabled_reason,"
    " w.created_at"
)
_VISIBLE = "w.account_id = $1 and w.deleted_at is null and ($2::uuid is null or w.workspace_id = $2)"

# Who counts against the limit and inserts holds this until the end of the transaction.
LOCK = "select pg_advisory_xact_lock(hashtextextended('webhooks of ' || $1::uuid, 0))"

COUNT = "select count(*) from webhook where account_id = $1 and deleted_at is null"

INSERT = f"""
insert into webhook as w (account_id, workspace_id, id, url, events, format, secret, active, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning {_COLUMNS}
"""

WEBHOOKS = f"select {_COLUMNS} from webhook w where {_VISIBLE} order by w.no"

WEBHOOK = f"select {_COLUMNS} from webhook w where {_VISIBLE} and w.no = $3"

# Who is switched on hears what is committed from now on, with a clean record.
UPDATE = f"""
update webhook w set url = $4, events = $5, format = $6, active = $7,
  secret = coalesce($8, w.secret),
  former_secret = case when $8::bytea is null then w.former_secret else w.secret end,
  former_until = case when $8::bytea is null then w.former_until else $9 end,
  disabled_reason = case when $7 then null else w.disabled_reason end,
  since = case when $7 and not w.active then pg_current_snapshot() else w.since end,
  failures = case when $7 and not w.active then 0 else w.failures end,
  failing_since = case when $7 and not w.active then null else w.failing_since end,
  slowed_until = case when $7 and not w.active then null else w.slowed_until end
where {_VISIBLE} and w.no = $3 returning {_COLUMNS}
"""

DELETE = f"update webhook w set deleted_at = $4, active = false where {_VISIBLE} and w.no = $3 returning w.no"


async def lock(connection: Connection, account_id: UUID) -> None:
    """Let nobody else add an endpoint to the account until the end of the transaction."""
    await connection.execute(LOCK, account_id)


async def count(connection: Connection, account_id: UUID) -> int:
    """Endpoints of the account."""
    return int(await connection.fetchval(COUNT, account_id) or 0)


async def insert(connection: Connection, account_id: UUID, *values: Any) -> SealedWebhook:
    """`values`: workspace, id, url, events, format, secret, active, time."""
    return SealedWebhook(**dict(await connection.fetchrow(INSERT, account_id, *values) or {}))


async def webhooks(connection: Connection, account_id: UUID, workspace_id: UUID | None) -> list[SealedWebhook]:
    """The endpoints, the oldest first."""
    return [SealedWebhook(**dict(row)) for row in await connection.fetch(WEBHOOKS, account_id, workspace_id)]


async def webhook(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, *, for_update: bool = False
) -> SealedWebhook | None:
    """One endpoint, locked until the end of the transaction if asked for."""
    row = await connection.fetchrow(WEBHOOK + " for update" * for_update, account_id, workspace_id, no)
    return None if row is None else SealedWebhook(**dict(row))


async def update(
    connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, *values: Any
) -> SealedWebhook:
    """`values`: url, events, format, active, new secret (None: keeps it), until when the old one signs, too."""
    return SealedWebhook(**dict(await connection.fetchrow(UPDATE, account_id, workspace_id, no, *values) or {}))


async def delete(connection: Connection, account_id: UUID, workspace_id: UUID | None, no: int, now: datetime) -> bool:
    """Mark an endpoint deleted; its deliveries are removed in the background. Whether there was one."""
    return await connection.fetchval(DELETE, account_id, workspace_id, no, now) is not None


# --- deliveries, for callers -------------------------------------------------------------------------------------

_DELIVERY = (
    "d.no, d.webhook_no, d.event, d.event_id, d.status, d.attempts, d.last_status, d.last_error,"
    " case when d.status = 0 then d.next_at end as next_at, d.created_at, d.delivered_at, d.log"
)
_OF_WEBHOOK = f"""
from webhook w join webhook_delivery d on d.account_id = $1 and d.webhook_no = w.no
where {_VISIBLE} and w.no = $3 and ($4::smallint is null or d.status = $4)
"""

DELIVERIES = f"select {_DELIVERY} {_OF_WEBHOOK} order by d.webhook_no desc, d.no desc limit $5 offset $6"

COUNT_DELIVERIES = f"select count(*) from (select {_OF_WEBHOOK} limit $5) counted"

# A delivery under way stays where it is: the attempt decides what comes next.
REDELIVER = f"""
with due as (
  update webhook w set due_at = least(w.due_at, $5) where {_VISIBLE} and ($4::bigint is null or w.no = $4) and w.active
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
where {_VISIBLE} and d.no = $3 and ($4::bigint is null or w.no = $4)
"""


async def deliveries(
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


async def count_deliveries(
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


async def delivery(
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


# --- finding what happened ---------------------------------------------------------------------------------------

SUBSCRIBED = "select distinct account_id from webhook where active"

# The feed is read by everybody's transactions that are over; none of them can add a row behind the answer's mark.
NEWS = """
select array(select distinct f.account_id from feed f
             where f.xid >= $1::text::xid8 and f.xid < x.minimum and f.account_id = any ($2::uuid[])) as accounts,
       x.minimum::text as mark
from (select pg_snapshot_xmin(pg_current_snapshot()) as minimum) x
"""

MARK = "select pg_snapshot_xmin(pg_current_snapshot())::text"

# A new reader begins where the endpoint that listens for longest does; so does one that slept while nobody listened.
BEGIN = """
insert into feed_cursor as c (name, xid, no, until)
select 'webhooks/' || $1::uuid, pg_snapshot_xmin(w.since), 0, $3 from webhook w where w.account_id = $1 and w.active
order by pg_snapshot_xmin(w.since) limit 1
on conflict (name) do update set until = $3, xid = greatest(c.xid, excluded.xid),
  no = case when c.xid < excluded.xid then 0 else c.no end
where c.until is null or c.until <= $2
returning xid::text, no
"""

HOOKS = "select no, format, events from webhook where account_id = $1 and active"

# Each row with the endpoints it concerns: those that did not see it when they began to listen.
FEED = """
select f.*, array(select h.no from webhook h where h.account_id = $1 and h.active
                  and not pg_visible_in_snapshot(f.xid8, h.since)
                  and (h.workspace_id is null or h.workspace_id = f.workspace_id)) as hooks
from (
  select w.no as workflow_no, w.workspace_id, f.xid as xid8, f.xid::text as xid, f.no, f.keys, f.first_seqs,
         f.last_seqs, f.at
  from workflow w cross join lateral (
    select x.xid, x.no, x.keys, x.first_seqs, x.last_seqs, x.at from feed x
    where x.account_id = $1 and x.workflow_key = w.workflow_key and (x.xid, x.no) > ($2::text::xid8, $3)
      and x.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by x.xid, x.no limit $4) f
  where w.account_id = $1 order by f.xid, f.no limit $4) f
order by f.xid8, f.no
"""

MOVE = """
update feed_cursor set xid = $4::text::xid8, no = $5, until = null
where name = 'webhooks/' || $1::uuid and xid = $2::text::xid8 and no = $3 returning 1
"""

# A report nobody has begun to send, which is the newest, is brought up to date; the next comes a second after it at the
# earliest. The cast keeps the planner from the index of open deliveries.
FRESHEN = f"""
update webhook_delivery d set body = n.body, event_id = n.event_id
from (
  select x.no, c.event_id, c.body
  from unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[]) as c(webhook_no, key, event_id, body)
  cross join lateral (
    select y.no from webhook_delivery y
    where y.account_id = $1 and y.webhook_no = c.webhook_no and y.instance_key = c.key and y.event = '{PROGRESS}'
    order by y.no desc limit 1) x
) n
where d.account_id = $1 and d.no = n.no and d.status::int = 0 and d.claim = 0
returning d.webhook_no, d.instance_key
"""

DELIVER = f"""
with made as (
  insert into webhook_delivery (account_id, webhook_no, event, event_id, instance_key, body, next_at, created_at,
                                expires_at)
  select $1, c.webhook_no, c.event, c.event_id, c.key, c.body, q.at, q.at, $8
  from unnest($2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[])
       with ordinality as c(webhook_no, event, event_id, key, body, o)
  join webhook w on w.account_id = $1 and w.no = c.webhook_no and w.active
  cross join lateral (
    select greatest($7, case when c.event = '{PROGRESS}' then
      (select d.created_at + interval '1 second' from webhook_delivery d
       where d.account_id = $1 and d.webhook_no = c.webhook_no and d.instance_key = c.key and d.event = '{PROGRESS}'
       order by d.no desc limit 1) end) as at) q
  order by c.o
  returning webhook_no, next_at
), sooner as (
  select w.no, min(m.next_at) as at from made m join webhook w on w.account_id = $1 and w.no = m.webhook_no group by 1
), locked as materialized (
  select w.no, s.at from sooner s join webhook w on w.account_id = $1 and w.no = s.no
  order by w.no for no key update of w
)
update webhook w set due_at = least(w.due_at, l.at) from locked l where w.account_id = $1 and w.no = l.no
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """An endpoint that listens."""

    no: int
    format: str
    events: list[str]


@dataclass(frozen=True, slots=True)
class Fed:
    """A row of the feed, and the endpoints it concerns."""

    workflow_no: int
    xid: str
    no: int
    keys: list[UUID]
    first_seqs: list[int]
    last_seqs: list[int]
    at: datetime
    hooks: list[int]


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """An event for one endpoint. `key`: the instance, if it is about one."""

    webhook_no: int
    event: str
    event_id: str
    key: UUID | None
    body: str


async def subscribed(db: Database) -> set[UUID]:
    """Accounts with an endpoint that listens."""
    return {row["account_id"] for row in await db.engine.fetch(SUBSCRIBED)}


async def mark(db: Database) -> str:
    """From where on :func:`news` has to look."""
    return await db.engine.fetchval(MARK)


async def news(db: Database, mark: str, accounts: Sequence[UUID]) -> tuple[set[UUID], str]:
    """Which of `accounts` have grown since `mark`, and the next mark."""
    row = await db.engine.fetchrow(NEWS, mark, accounts)
    assert row is not None
    return set(row["accounts"]), row["mark"]


async def begin(db: Database, account_id: UUID, now: datetime, until: datetime) -> tuple[str, int] | None:
    """Read for an account, until then nobody else does; where to go on. None: nobody listens, or somebody reads."""
    row = await db.engine.fetchrow(BEGIN, account_id, now, until)
    return None if row is None else (row["xid"], row["no"])


async def hooks(db: Database, account_id: UUID) -> list[Hook]:
    """The endpoints of the account that listen."""
    return [Hook(**dict(row)) for row in await db.engine.fetch(HOOKS, account_id)]


async def feed(db: Database, account_id: UUID, after: tuple[str, int], limit: int) -> list[Fed]:
    """The next rows of the account's feed, of all its workflows."""
    rows = await db.engine.fetch(FEED, account_id, *after, limit)
    return [
        Fed(
            row["workflow_no"],
            row["xid"],
            row["no"],
            row["keys"],
            row["first_seqs"],
            row["last_seqs"],
            row["at"],
            row["hooks"],
        )
        for row in rows
    ]


async def deliver(
    db: Database,
    account_id: UUID,
    read: tuple[str, int],
    next_: tuple[str, int],
    new: Sequence[NewDelivery],
    now: datetime,
    expires_at: datetime,
) -> bool:
    """Put deliveries up and move on in the feed, both or neither. False: somebody else has moved on meanwhile."""
    async with db.engine.acquire() as connection, connection.transaction():
        if await connection.fetchval(MOVE, account_id, *read, *next_) is None:
            return False
        reports = [one for one in new if one.event == PROGRESS]
        fresh: set[tuple[int, UUID]] = set()
        if reports:
            columns = [[getattr(one, name) for one in reports] for name in ("webhook_no", "key", "event_id", "body")]
            fresh = {tuple(row) for row in await connection.fetch(FRESHEN, account_id, *columns)}
        rest = [one for one in new if one.event != PROGRESS or (one.webhook_no, one.key) not in fresh]
        if rest:
            names = ("webhook_no", "event", "event_id", "key", "body")
            columns = [[getattr(one, name) for one in rest] for name in names]
            await connection.execute(DELIVER, account_id, *columns, now, expires_at)
    return True


# --- sending -----------------------------------------------------------------------------------------------------

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


# --- housekeeping ------------------------------------------------------------------------------------------------

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
