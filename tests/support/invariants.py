"""What holds of the tables of the engine at any moment."""

from __future__ import annotations

import asyncpg


async def consistent(admin: asyncpg.Connection) -> None:
    """What holds at any moment, however runs were treated."""
    torn = await admin.fetch(
        "select key, count(*), max(seq) from journal group by key having count(*) <> max(seq) or min(seq) <> 1"
    )
    assert torn == [], "numbers without gaps, from 1"
    unequal = await admin.fetch(
        "select i.key from instance i left join live l using (account_id, key) where (l.key is null) = (i.status = 0)"
        " or coalesce(l.seq, i.seq) <> (select max(seq) from journal j where j.key = i.key)"
    )
    assert unequal == [], "unfinished runs have a live row, finished ones have none, and seq is the last entry's"
    counters = await admin.fetch(
        "select status, sum(n)::int as n from counter group by 1 having sum(n) <> 0 order by 1"
    )
    counts = await admin.fetch("select status, count(*)::int as n from instance where status > 0 group by 1 order by 1")
    assert [*map(tuple, counters)] == [*map(tuple, counts)]
    unread = await admin.fetch(
        "select l.key from live l where unread <> (select count(*) from inbox q where q.key = l.key"
        " and q.type not like 'child:%')"
    )
    assert unread == [], "unread events are counted"
    assert (
        await admin.fetchval("select count(*) from inbox q where not exists (select from live where key = q.key)") == 0
    )
