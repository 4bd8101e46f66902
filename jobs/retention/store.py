"""Every statement that deletes what has outlived its time, for all accounts."""

from __future__ import annotations

from datetime import datetime

from tenants.database import Database

# An instance stays until endpoints have been told of its end: while somebody reads the feed for the account, what he
# has not read of the workflow must be younger. (Times of processes may be a little apart.)
_TOLD = """
not exists (
  select from feed_cursor c cross join lateral (
    select f.at from feed f where f.account_id = {of}.account_id and f.workflow_key = {of}.workflow_key
      and (f.xid, f.no) > (c.xid, c.no) order by f.xid, f.no limit 1) f
  where c.name = 'webhooks/' || {of}.account_id and f.at <= {at} + interval '10 seconds')
"""

# All of an instance goes in one statement, so a reader sees the whole instance or none of it, and a crash leaves no
# orphans. `before` bounds the journal entries of one transaction. What is being restarted is locked and skipped. The
# cast keeps the planner from the index of finished instances, which it takes for small while its statistics are old.
_RETIRE = f"""
with due as materialized (
  select i.account_id, i.key, i.workflow_key, i.status, i.seq, i.started_at, i.ended_at from instance i
  where i.retain_until <= $1 and i.status::int >= 6 and {_TOLD.format(of="i", at="i.ended_at")}
  order by i.retain_until limit $2 for update skip locked
), fit as materialized (
  select * from (select due.*, sum(seq) over (order by account_id, key) - seq as before from due) q where before < $3
), gone as (
  delete from instance i using fit where i.account_id = fit.account_id and i.key = fit.key
), counted as (
  insert into counter (account_id, workflow_key, slot, status, n, us)
  select account_id, workflow_key, 0, status, -count(*), -sum(took_us(started_at, ended_at)) from fit
  group by 1, 2, 4 order by 1, 2, 4
  on conflict (account_id, workflow_key, status, slot) do update
  set n = counter.n + excluded.n, us = counter.us + excluded.us
), entries as (
  delete from journal j using fit where j.account_id = fit.account_id and j.key = fit.key
), unread as (
  delete from inbox q using fit where q.account_id = fit.account_id and q.key = fit.key
), notices as (
  delete from notification n using fit where n.account_id = fit.account_id and n.instance_key = fit.key
), tasks as (
  delete from task t using fit where t.account_id = fit.account_id and t.instance_key = fit.key
)
select (select count(*) from fit) as retired, (select count(*) from due) as due
"""

# Rows of short-lived kinds: table, and when a row is old ($1: now). Those of `tenants` are its own service's.
_EXPIRED = {
    "feed": """at < $1::timestamptz - interval '1 day' and not exists (select from feed_cursor c
               where c.name = 'webhooks/' || feed.account_id and (feed.xid, feed.no) > (c.xid, c.no))""",
    "termination_job": "finished_at < $1::timestamptz - interval '7 days'",
}

_DELETE_EXPIRED = """
delete from {table} where ctid = any (array(select ctid from {table} where {condition} limit $2 for update skip locked))
"""

_EXPIRE = {table: _DELETE_EXPIRED.format(table=table, condition=condition) for table, condition in _EXPIRED.items()}


async def retire_instances(db: Database, now: datetime, limit: int, entries: int) -> tuple[int, bool]:
    """Delete up to `limit` instances whose retention is over, with about `entries` journal entries at most.

    Returns how many went and whether more may be waiting.
    """
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_RETIRE, now, limit, entries)
    return row["retired"], row["due"] == limit or row["retired"] < row["due"]


async def expire(db: Database, now: datetime, limit: int) -> dict[str, int]:
    """Delete up to `limit` outlived rows of each short-lived kind; how many went, by table."""
    gone: dict[str, int] = {}
    for table, statement in _EXPIRE.items():
        answer = await db.engine.execute(statement, now, limit)
        gone[table] = int(answer.rsplit(" ", 1)[-1])
    return gone
