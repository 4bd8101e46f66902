"""Deleting what has outlived its time: whole, bounded, and never what is needed again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from instances.engine.client import Control
from instances.engine.requests import Create, NewInstance
from instances.lifecycle import Status
from jobs.retention import retiring, store
from jobs.retention.retiring import ExpireRows, RetireInstances
from tenants.clock import ManualClock
from tenants.database import Database


@pytest.fixture
def retire(db: Database, clock: ManualClock) -> RetireInstances:
    return RetireInstances(db, clock)


async def run_all(retire: RetireInstances) -> None:
    while await retire.tick():
        pass


async def test_an_instance_goes_when_its_retention_is_over(world, retire, clock) -> None:
    good, bad, stopped, unfinished = await world.create(4, success_retention_ms=60_000, error_retention_ms=600_000)
    await world.end([good], Status.COMPLETE)
    await world.end([bad], Status.ERRORED)
    await world.end([stopped], Status.TERMINATED)
    clock.advance(59.9)
    await run_all(retire)
    assert len(await world.statuses()) == 4
    clock.advance(0.2)
    await run_all(retire)
    assert await world.statuses() == {bad: Status.ERRORED, unfinished: Status.QUEUED}
    assert await world.counters() == {Status.ERRORED: 1}
    clock.advance(10**9)
    await run_all(retire)
    assert await world.statuses() == {unfinished: Status.QUEUED}


async def test_everything_of_an_instance_goes_and_nothing_else(world, retire, clock, admin) -> None:
    gone, kept = await world.create(2, success_retention_ms=0)
    await world.end([gone])
    for key in (gone, kept):
        await admin.execute(
            "insert into notification (account_id, id, instance_key, node, message, created_at)"
            " values ($1, $2, $3, 'n', 'm', now())",
            world.account,
            world.ids.uuid7(),
            key,
        )
        await admin.execute(
            "insert into task (account_id, id, instance_key, node, title, priority, created_at)"
            " values ($1, $2, $3, 'n', 't', 'LOW', now())",
            world.account,
            world.ids.uuid7(),
            key,
        )
        await admin.execute(
            "insert into inbox (account_id, key, type, at) values ($1, $2, 'late', now())", world.account, key
        )
    clock.advance(1)
    await run_all(retire)
    for table, column in (
        ("instance", "key"),
        ("journal", "key"),
        ("inbox", "key"),
        ("notification", "instance_key"),
        ("task", "instance_key"),
    ):
        rows = await admin.fetch(f"select distinct {column} from {table}")
        assert [row[0] for row in rows] == [kept], table


async def test_an_id_is_free_again(world, retire, clock) -> None:
    [first] = await world.create(success_retention_ms=0)
    await world.end([first])
    clock.advance(1)
    await run_all(retire)
    again = NewInstance(account_id=world.account, key=world.ids.uuid7(), instance_id=str(first), handle=world.handle)
    assert (await world.engine.create([again]))[0].outcome is Create.CREATED


async def test_a_background_child_outlives_its_parent(world, retire, clock) -> None:
    [parent] = await world.create(success_retention_ms=0)
    [child] = await world.create(parent_key=parent)
    await world.end([parent])
    clock.advance(1)
    await run_all(retire)
    assert await world.statuses() == {child: Status.QUEUED}


async def test_a_batch_is_bounded_by_instances_and_entries(world, db, clock, admin) -> None:
    keys = await world.create(5, success_retention_ms=0)
    await world.end(keys)
    clock.advance(1)
    assert await store.retire_instances(db, clock.now(), 2, 1000) == (2, True)
    await admin.execute("update instance set seq = 90")
    assert await store.retire_instances(db, clock.now(), 10, 100) == (2, True)
    assert await store.retire_instances(db, clock.now(), 10, 100) == (1, False)
    assert await store.retire_instances(db, clock.now(), 10, 100) == (0, False)


async def test_a_giant_goes_alone(world, db, clock, admin) -> None:
    keys = await world.create(3, success_retention_ms=0)
    await world.end(keys)
    await admin.execute("update instance set seq = 1000000")
    clock.advance(1)
    assert await store.retire_instances(db, clock.now(), 10, 100) == (1, True)


async def test_what_is_being_restarted_is_left_alone(world, retire, clock, admin) -> None:
    [key] = await world.create(success_retention_ms=0)
    await world.end([key])
    clock.advance(1)
    async with admin.transaction():
        await admin.execute("select from restart_run($1, $2, null, null, $3)", world.account, key, clock.now())
        assert not await retire.tick()  # locked: skipped, not waited for
    assert not await retire.tick()  # and now it is not due any more
    assert await world.statuses() == {key: Status.QUEUED}
    assert await world.counters() == {}


async def test_a_restart_that_comes_too_late_finds_nothing(world, retire, clock, engine) -> None:
    [key] = await world.create(success_retention_ms=0)
    await world.end([key])
    clock.advance(1)
    await run_all(retire)
    assert (await engine.restart(world.account, key)).outcome is Control.NOT_LIVE
    assert await world.count("live") == 0


async def test_workers_side_by_side_retire_each_instance_once(world, db, clock, monkeypatch) -> None:
    monkeypatch.setattr(retiring, "BATCH", 10)
    keys = await world.create(200, success_retention_ms=0)
    await world.end(keys)
    clock.advance(1)
    await asyncio.gather(*(run_all(RetireInstances(db, clock)) for _ in range(4)))
    await run_all(RetireInstances(db, clock))
    assert await world.statuses() == {}
    assert await world.counters() == {}
    assert await world.count("journal") == 0


async def test_a_reader_sees_the_whole_instance_or_none_of_it(world, retire, clock, admin, db) -> None:
    keys = await world.create(30, success_retention_ms=0)
    await world.end(keys)
    clock.advance(1)
    looks = """
        select i.key, (select count(*) from journal j where j.account_id = i.account_id and j.key = i.key) as entries
        from instance i"""
    retiring = asyncio.create_task(run_all(retire))
    while not retiring.done():
        assert all(row["entries"] == 2 for row in await admin.fetch(looks))
    await retiring


class Tenants:
    """A package with outlived rows of its own."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    async def forget_expired(self, limit: int = 1000) -> int:
        gone = min(self.rows, limit)
        self.rows -= gone
        return gone


async def test_feed_rows_live_for_a_day(world, db, clock, admin) -> None:
    await admin.execute("delete from feed")
    for age in (timedelta(hours=23), timedelta(hours=25), timedelta(hours=49)):
        await admin.execute(
            "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
            " values ($1, $2, '{}', '{}', '{}', $3)",
            world.account,
            world.workflow,
            clock.now() - age,
        )
    assert not await ExpireRows(db, clock, Tenants(0)).tick()
    assert await world.count("feed") == 1


async def test_more_outlived_rows_than_a_batch_are_taken_at_once(db, clock) -> None:
    tenants = Tenants(2500)
    expire = ExpireRows(db, clock, tenants)
    while await expire.tick():
        pass
    assert tenants.rows == 0
