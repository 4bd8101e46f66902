"""Every statement about figures of all accounts: counters, mean durations, the backlog."""

from __future__ import annotations

from datetime import datetime

from tenants.database import Database

# Counters of finished instances have a row per writer slot; many are folded into slot 0, which belongs to background
# work. Writers hold one row at most while they wait for none of ours (skip locked), so nobody waits in a circle.
_FOLD_COUNTERS = """
with crowded as materialized (
  select account_id, workflow_key, status from counter where slot > 0
  group by 1, 2, 3 having count(*) >= $1 order by 1, 2, 3 limit $2
), locked as materialized (
  select c.account_id, c.workflow_key, c.status, c.slot from crowded g
  cross join lateral (
    select x.account_id, x.workflow_key, x.status, x.slot from counter x
    where x.account_id = g.account_id and x.workflow_key = g.workflow_key and x.status = g.status and x.slot > 0
    for update skip locked) c
), gone as (
  delete from counter c using locked k
  where c.account_id = k.account_id and c.workflow_key = k.workflow_key and c.status = k.status and c.slot = k.slot
  returning c.account_id, c.workflow_key, c.status, c.n, c.us
), summed as (
  insert into counter (account_id, workflow_key, slot, status, n, us)
  select account_id, workflow_key, 0, status, sum(n), sum(us) from gone group by 1, 2, 4 order by 1, 2, 4
  on conflict (account_id, workflow_key, status, slot) do update
  set n = counter.n + excluded.n, us = counter.us + excluded.us
  returning 1
)
select count(*) from summed
"""

_FIRST_CURSOR = """
insert into feed_cursor (name, xid, no) values ($1, pg_snapshot_xmin(pg_current_snapshot()), 0)
on conflict (name) do nothing
"""

_ANYTHING_NEW = """
select 1 from feed_cursor c cross join lateral (
  select from feed f where (f.xid, f.no) > (c.xid, c.no) and f.xid < pg_snapshot_xmin(pg_current_snapshot())
  order by f.xid, f.no limit 1) f
where c.name = $1
"""

# Mean duration of a document's nodes, an exponential mean over about `$3` runs. A sample is enough: when the feed ran
# ahead, the oldest part is passed over. One worker at a time (the cursor's row is locked or skipped).
_MEASURE_NODES = """
with mark as materialized (
  select name, xid, no from feed_cursor where name = $1 for update skip locked
), grown as materialized (
  select f.* from mark cross join lateral (
    select f.account_id, f.workflow_key, f.xid, f.no, f.keys, f.first_seqs, f.last_seqs from feed f
    where (f.xid, f.no) > (mark.xid, mark.no) and f.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by f.xid desc, f.no desc limit $2) f
), runs as materialized (
  select g.account_id, g.workflow_key, k.key, k.first, k.last from grown g
  cross join lateral (select v.runtime from workflow w join version v on v.account_id = w.account_id
                      and v.version_key = w.current_version
                      where w.account_id = g.account_id and w.workflow_key = g.workflow_key) v
  cross join lateral (select * from unnest(g.keys, g.first_seqs, g.last_seqs) as k(key, first, last) limit 5) k
  where v.runtime = 0
), steps as materialized (
  select r.account_id, r.workflow_key, r.first, e.* from runs r
  cross join lateral (
    select j.seq, j.kind, j.name, max(j.at) filter (where j.kind = 2) over (
             partition by j.name, j.count, j.run order by j.seq) as started, j.at
    from journal j
    where j.account_id = r.account_id and j.key = r.key and j.kind in (2, 6)
      and j.seq between r.first - 200 and r.last) e
), fresh as materialized (
  select account_id, workflow_key, name as node, count(*) as n,
         avg(extract(epoch from at - started) * 1000)::float8 as mean
  from steps where kind = 6 and seq >= first and started is not null
  group by 1, 2, 3 order by 1, 2, 3
), written as (
  insert into node_statistics (account_id, workflow_key, node, runs, mean_ms)
  select account_id, workflow_key, node, n, mean from fresh
  on conflict (account_id, workflow_key, node) do update
  set mean_ms = node_statistics.mean_ms + (excluded.mean_ms - node_statistics.mean_ms)
                * least(1.0, excluded.runs::float8 / least($3, node_statistics.runs + excluded.runs)),
      runs = node_statistics.runs + excluded.runs
  returning 1
), moved as (
  update feed_cursor c set xid = g.xid, no = g.no
  from (select xid, no from grown order by xid desc, no desc limit 1) g where c.name = $1
)
select (select count(*) from grown) as rows, (select count(*) from written) as nodes
"""

# Reads every row. As a sample of all of them it does so page by page, in one process: engine connections are made to
# use an index, which takes far longer, and a scan that is shared out costs three processes for what nobody waits for.
_BACKLOG = """
select status, count(*) as n, min(ready_at) filter (where phase = 0 and ready_at <= $1) as oldest
from live tablesample system (100) group by 1
"""


async def fold_counters(db: Database, at_least: int, limit: int) -> int:
    """Fold counters spread over `at_least` slots or more into one; returns how many (workflow, status) were folded."""
    async with db.fresh_plans() as connection:
        return await connection.fetchval(_FOLD_COUNTERS, at_least, limit)


async def measure_nodes(db: Database, cursor: str, limit: int, window: int) -> int:
    """Take up to `limit` new rows of the feed into the nodes' mean durations; returns how many nodes were updated."""
    if await db.engine.fetchval(_ANYTHING_NEW, cursor) is None:
        return 0
    async with db.fresh_plans() as connection:
        row = await connection.fetchrow(_MEASURE_NODES, cursor, limit, window)
    return row["nodes"]


async def open_cursor(db: Database, cursor: str) -> None:
    """Have the cursor exist; a new one begins with what happens from now on."""
    await db.engine.execute(_FIRST_CURSOR, cursor)


async def backlog(db: Database, now: datetime) -> tuple[dict[int, int], datetime | None]:
    """Unfinished instances of all accounts by status, and since when the oldest that could run has been ready."""
    rows = await db.engine.fetch(_BACKLOG, now)
    return {row["status"]: row["n"] for row in rows}, min((r["oldest"] for r in rows if r["oldest"]), default=None)
