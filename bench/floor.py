"""The floor: how many rows of the journal's shape this PostgreSQL takes from one connection, `rows` per transaction.

Nothing that stores one row per journal entry can be faster; how near the platform comes says what it costs.
"""

from __future__ import annotations

import time

import asyncpg

TABLE = """
drop table if exists bench_floor;
create table bench_floor (
  account_id uuid not null, key uuid not null, seq bigint not null, run int not null, kind smallint not null, name text,
  count int, attempt int, at timestamptz not null, payload text, primary key (account_id, key, seq));
"""
INSERT = """
insert into bench_floor (account_id, key, seq, run, kind, name, count, attempt, at, payload)
select '00000000-0000-0000-0000-000000000001', k, s, 1, 6, 's1', 1, 1, now(), '"success"'
from unnest($1::uuid[], $2::bigint[]) as x(k, s)
"""


async def rows_per_second(dsn: str, rows: int, seconds: float = 2.0) -> float:
    """Rows stored per second by one connection, `rows` per commit, ten per instance."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(TABLE)
        keys = await connection.fetchval("select array_agg(gen_random_uuid()) from generate_series(1, $1)", rows)
        columns = [keys[number // 10] for number in range(rows)]
        began, stored = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            await connection.execute(INSERT, columns, list(range(stored, stored + rows)))
            stored += rows
        return stored / (time.perf_counter() - began)
    finally:
        await connection.execute("drop table bench_floor")
        await connection.close()
