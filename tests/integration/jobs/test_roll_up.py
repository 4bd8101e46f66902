"""Folding counters, and mean durations of document nodes from the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.lifecycle import Kind
from jobs.figures import store
from jobs.figures.roll_up import CROWDED, FoldCounters, MeasureNodes
from tenants.database import Database


async def spread(world: Any, workflow: UUID, status: int, slots: int) -> None:
    await world.admin.execute(
        "insert into counter (account_id, workflow_key, slot, status, n) select $1, $2, s, $3, 10"
        " from generate_series(1, $4::int) s",
        world.account,
        workflow,
        status,
        slots,
    )


async def counters(world: Any) -> list[tuple[int, int, int]]:
    rows = await world.admin.fetch("select status, slot, n from counter order by status, slot")
    return [tuple(row) for row in rows]


async def test_counters_of_many_slots_are_folded_into_one(world, db) -> None:
    await spread(world, world.workflow, 6, CROWDED)
    await spread(world, world.workflow, 7, 2)
    await FoldCounters(db).tick()
    assert await counters(world) == [(6, 0, 10 * CROWDED), (7, 1, 10), (7, 2, 10)]
    await spread(world, world.workflow, 6, CROWDED)
    await FoldCounters(db).tick()
    assert await counters(world) == [(6, 0, 20 * CROWDED), (7, 1, 10), (7, 2, 10)]


async def test_a_row_in_use_is_not_waited_for(world, db, admin) -> None:
    await spread(world, world.workflow, 6, CROWDED)
    async with admin.transaction():
        await admin.execute("update counter set n = n + 1 where slot = 3")
        await FoldCounters(db).tick()
    assert await counters(world) == [(6, 0, 10 * (CROWDED - 1)), (6, 3, 11)]


async def test_folding_side_by_side_loses_nothing(world, db) -> None:
    for status in (6, 7, 8):
        await spread(world, world.workflow, status, 15)
    await asyncio.gather(*(FoldCounters(db).tick() for _ in range(5)))
    rows = await world.admin.fetch("select status, sum(n)::int as n from counter group by 1")
    assert {row["status"]: row["n"] for row in rows} == dict.fromkeys((6, 7, 8), 150)


async def grow(world: Any, key: UUID, steps: Sequence[tuple[str, float]], at: datetime) -> None:
    """Write steps (name, seconds) into the journal and one feed row for them, as a flush would."""
    first = await world.admin.fetchval("select coalesce(max(seq), 0) + 1 from journal where key = $1", key)
    seq = first
    for name, seconds in steps:
        for kind, moment in ((Kind.STEP_STARTED, at), (Kind.STEP_COMPLETED, at + timedelta(seconds=seconds))):
            await world.admin.execute(
                "insert into journal (account_id, key, seq, run, kind, name, count, at)"
                " values ($1, $2, $3, 1, $4, $5, 1, $6)",
                world.account,
                key,
                seq,
                int(kind),
                name,
                moment,
            )
            seq += 1
    await world.admin.execute(
        "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
        " values ($1, $2, array[$3::uuid], array[$4::bigint], array[$5::bigint], $6)",
        world.account,
        world.workflow,
        key,
        first,
        seq - 1,
        at,
    )


async def settled(world: Any) -> None:
    """Wait until the feed may be read to its end: transactions in other databases of the server hold it up, too."""
    ready = "select pg_snapshot_xmin(pg_current_snapshot()) > max(xid) from feed"
    async with asyncio.timeout(30):
        while not await world.admin.fetchval(ready):
            await asyncio.sleep(0.005)


async def means(world: Any) -> dict[str, tuple[int, float]]:
    rows = await world.admin.fetch("select node, runs, mean_ms from node_statistics")
    return {row["node"]: (row["runs"], pytest.approx(row["mean_ms"])) for row in rows}


@pytest.fixture
async def measure(db: Database) -> MeasureNodes:
    measure = MeasureNodes(db)
    await measure.tick()
    return measure


async def test_mean_durations_come_from_completed_steps(world, measure, clock) -> None:
    one, two = await world.create(2)
    await grow(world, one, [("pack", 2.0), ("ship", 10.0)], clock.now())
    await grow(world, two, [("pack", 4.0)], clock.now())
    await settled(world)
    await measure.tick()
    assert await means(world) == {"pack": (2, 3000), "ship": (1, 10_000)}
    await measure.tick()
    assert await means(world) == {"pack": (2, 3000), "ship": (1, 10_000)}  # nothing counts twice


async def test_a_mean_follows_the_last_fifty_runs(world, db, measure, clock) -> None:
    [key] = await world.create()
    await world.admin.execute(
        "insert into node_statistics values ($1, $2, 'pack', 5000, 1000)", world.account, world.workflow
    )
    await grow(world, key, [("pack", 51.0)], clock.now())
    await settled(world)
    await measure.tick()
    assert await means(world) == {"pack": (5001, 2000)}


async def test_the_end_of_a_step_counts_when_its_start_was_in_an_earlier_flush(world, measure, clock) -> None:
    [key] = await world.create()
    await grow(world, key, [("pack", 3.0)], clock.now())
    await world.admin.execute("update feed set first_seqs = last_seqs where last_seqs[1] > 1")
    await settled(world)
    await measure.tick()
    assert await means(world) == {"pack": (1, 3000)}


async def test_scripts_are_not_measured(world, measure, clock, admin) -> None:
    """Their step names are free text; there may be as many as steps."""
    await admin.execute("update version set runtime = 1")
    [key] = await world.create()
    await grow(world, key, [("pack", 3.0)], clock.now())
    await settled(world)
    await measure.tick()
    assert await means(world) == {}


async def test_a_flush_that_commits_late_is_not_missed(world, db, measure, clock, admin, dsn) -> None:
    slow = await asyncpg.connect(dsn)
    one, two = await world.create(2)
    try:
        async with slow.transaction():
            late = type(world)(slow, world.engine, world.clock, world.ids, world.account, world.workflow, world.handle)
            await grow(late, one, [("late", 1.0)], clock.now())
            await grow(world, two, [("early", 1.0)], clock.now())
            await measure.tick()
            assert await means(world) == {}  # what comes after an open transaction has to wait
        await settled(world)
        await measure.tick()
        assert await means(world) == {"late": (1, 1000), "early": (1, 1000)}
    finally:
        await slow.close()


async def test_when_the_feed_runs_ahead_the_newest_part_is_taken(world, db, measure, clock) -> None:
    [key] = await world.create()
    for number in range(4):
        await grow(world, key, [(f"step-{number}", 1.0)], clock.now())
    await settled(world)
    await store.measure_nodes(db, "node_statistics", 2, 50)
    assert set(await means(world)) == {"step-2", "step-3"}
    await store.measure_nodes(db, "node_statistics", 2, 50)
    assert set(await means(world)) == {"step-2", "step-3"}
