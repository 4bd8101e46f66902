"""Every SQL statement with which instances are followed.

The two that look for growth span accounts: one of each serves all followers of a process, every second. They return
places in the arrays given, nothing of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from instances.projections.entries import Entry
from tenants.database import Database

# Ended ones have no live row any more: their followers find out.
GROWN = """
select c.o from unnest($1::uuid[], $2::uuid[], $3::bigint[]) with ordinality as c(a, k, seq, o)
left join lateral (select l.seq from live l where l.account_id = c.a and l.key = c.k) l on true
where l.seq is null or l.seq > c.seq"""

FED = """
select c.o from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) with ordinality as c(a, w, xid, no, o)
where exists (select from feed f where f.account_id = c.a and f.workflow_key = c.w
              and (f.xid, f.no) > (c.xid::xid8, c.no) and f.xid < pg_snapshot_xmin(pg_current_snapshot()))"""

NOW = "select pg_snapshot_xmin(pg_current_snapshot())::text, pg_current_snapshot()::text"

# What transactions that are over have told; a transaction still running may yet add rows behind those left out here.
# `past`: it was told before the follower came, although something older was still running then.
FEED = """
select f.xid::text as xid, f.no, f.keys, f.first_seqs, f.last_seqs,
       pg_visible_in_snapshot(f.xid, $6::text::pg_snapshot) as past
from feed f
where f.account_id = $1 and f.workflow_key = $2 and (f.xid, f.no) > ($3::text::xid8, $4)
  and f.xid < pg_snapshot_xmin(pg_current_snapshot())
order by f.xid, f.no limit $5"""

ENTRIES = """
select j.key, i.transaction_id, j.seq, j.run, j.kind, j.name, j.count, j.attempt, j.at, j.payload
from unnest($2::uuid[], $3::bigint[], $4::bigint[]) with ordinality as c(key, first, last, o)
join instance i on i.account_id = $1 and i.key = c.key
cross join lateral (select * from journal j where j.account_id = $1 and j.key = c.key
                    and j.seq between c.first and c.last) j
order by c.o, j.seq"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the feed of a workflow. `since`: what was over when the follower came, as a snapshot."""

    xid: str
    no: int
    since: str


@dataclass(frozen=True, slots=True)
class Told:
    """An entry of some instance of a workflow."""

    key: UUID
    transaction_id: str
    entry: Entry


async def grown(db: Database, accounts: Sequence[UUID], keys: Sequence[UUID], seqs: Sequence[int]) -> list[int]:
    """Places (from 0) of the instances that have entries after these seqs, or have ended."""
    return [row["o"] - 1 for row in await db.engine.fetch(GROWN, accounts, keys, seqs)]


async def fed(db: Database, accounts: Sequence[UUID], workflows: Sequence[UUID], marks: Sequence[Mark]) -> list[int]:
    """Places of the workflows whose feed goes on after these marks."""
    xids, numbers = [mark.xid for mark in marks], [mark.no for mark in marks]
    return [row["o"] - 1 for row in await db.engine.fetch(FED, accounts, workflows, xids, numbers)]


async def now(connection: asyncpg.Connection) -> Mark:
    """The end of every feed, as of now."""
    [row] = await connection.fetch(NOW)
    return Mark(row[0], 0, row[1])


async def feed(
    connection: asyncpg.Connection, account_id: UUID, workflow_key: UUID, after: Mark, limit: int
) -> tuple[list[Told], Mark, bool]:
    """Entries the next `limit` rows of the feed tell of, in order; the mark behind them; whether there were any."""
    rows = await connection.fetch(FEED, account_id, workflow_key, after.xid, after.no, limit, after.since)
    if not rows:
        return [], after, False
    changes: list[Any] = [
        change
        for row in rows
        if not row["past"]
        for change in zip(row["keys"], row["first_seqs"], row["last_seqs"], strict=True)
    ]
    mark = Mark(rows[-1]["xid"], rows[-1]["no"], after.since)
    if not changes:
        return [], mark, True
    keys, firsts, lasts = (list(column) for column in zip(*changes, strict=True))
    found = await connection.fetch(ENTRIES, account_id, keys, firsts, lasts)
    told = [Told(key, transaction_id, Entry(*entry)) for key, transaction_id, *entry in found]
    return told, mark, True
