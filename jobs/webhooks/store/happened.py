"""From the feed to deliveries: who listens, which accounts have news, what they are, and putting deliveries up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from jobs.webhooks.catalogue import PROGRESS
from tenants.database import Database

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
