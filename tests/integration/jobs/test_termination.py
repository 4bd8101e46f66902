"""Ending and deleting many: the cut, the filter, the chunks, crashes between and within them, workers side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.lifecycle import Kind, Status
from jobs.retention.store import expire
from jobs.termination import store
from jobs.termination import terminator as terminator_module
from jobs.termination.requests import TerminationJobs
from jobs.termination.terminator import LATE_CREATES, Terminator
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids

ALICE_ELSEWHERE = UUID(int=0xE15E)


class Bell:
    """Notes what is rung."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    async def ring(self, job: str, refs: Sequence[Any] = ()) -> None:
        self.rung.append(job)


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def jobs(db: Database, clock: ManualClock, ids: Ids, bell: Bell) -> TerminationJobs:
    return TerminationJobs(db, clock, ids, bell)


@pytest.fixture
def told() -> list[tuple[int, list[tuple[UUID, UUID]]]]:
    return []


@pytest.fixture
def terminator(db: Database, clock: ManualClock, told: list) -> Terminator:
    return Terminator(db, clock, lambda worker, runs: told.append((worker, runs)))


async def run_all(terminator: Terminator) -> int:
    """Tick until nothing moves; how many ticks it took."""
    ticks = 1
    while await terminator.tick():
        ticks += 1
    return ticks


async def test_all_unfinished_instances_end_and_only_they(world, neighbour, jobs, terminator, bell) -> None:
    ended, *running = await world.create(6)
    await world.end([ended])
    [other] = await neighbour.create()
    started = await jobs.start(world.account, world.workflow, "terminate_all")
    assert not started.already_running
    assert bell.rung == ["terminate_all"]
    assert await jobs.running(world.account, world.workflow)
    assert not await jobs.running(world.account, neighbour.workflow)

    await run_all(terminator)

    statuses = await world.statuses()
    assert statuses.pop(other) is Status.QUEUED
    assert statuses.pop(ended) is Status.COMPLETE
    assert statuses == dict.fromkeys(running, Status.TERMINATED)
    assert not await jobs.running(world.account, world.workflow)
    assert await world.admin.fetchval("select done from termination_job") == 5
    assert await world.counters() == {Status.COMPLETE: 1, Status.TERMINATED: 5}


async def test_what_is_created_after_the_start_lives_on(world, jobs, terminator, clock) -> None:
    [before] = await world.create()
    await jobs.start(world.account, world.workflow, "terminate_all")
    clock.advance(0.001)
    [after] = await world.create()
    await run_all(terminator)
    assert await world.statuses() == {before: Status.TERMINATED, after: Status.QUEUED}


async def test_only_the_asked_statuses_end(world, jobs, terminator) -> None:
    queued, running, paused = await world.create(3)
    await world.hold([running], owner=4)
    await world.engine.pause(world.account, paused)
    await jobs.start(world.account, world.workflow, "terminate_all", statuses=[Status.PAUSED, Status.RUNNING])
    await run_all(terminator)
    assert await world.statuses() == {
        queued: Status.QUEUED,
        running: Status.TERMINATED,
        paused: Status.TERMINATED,
    }


async def test_holders_are_told_by_worker(world, jobs, terminator, told) -> None:
    keys = await world.create(4)
    await world.hold(keys[:2], owner=7)
    await world.hold(keys[2:3], owner=8)
    await jobs.start(world.account, world.workflow, "terminate_all")
    await run_all(terminator)
    assert {worker: {key for _, key in runs} for worker, runs in told} == {7: set(keys[:2]), 8: {keys[2]}}


async def test_one_that_rolls_back_is_asked_to_stop_not_ended(world, jobs, terminator) -> None:
    [key] = await world.create()
    await world.hold([key], owner=3)
    await world.admin.execute("update live set status = 5, want = 0 where key = $1", key)
    await jobs.start(world.account, world.workflow, "terminate_all")
    await run_all(terminator)
    assert await world.statuses() == {key: Status.ROLLING_BACK}
    assert await world.admin.fetchval("select want from live") == 3
    assert await world.admin.fetchval("select done from termination_job") == 0
    assert not await jobs.running(world.account, world.workflow)


async def test_a_second_start_finds_the_first(world, jobs, terminator) -> None:
    await world.create()
    first = await jobs.start(world.account, world.workflow, "terminate_all")
    second = await jobs.start(world.account, world.workflow, "terminate_all", statuses=[Status.PAUSED])
    assert second.id == first.id
    assert second.already_running
    await run_all(terminator)
    third = await jobs.start(world.account, world.workflow, "terminate_all")
    assert not third.already_running


async def test_a_job_under_way_takes_on_what_is_asked_of_it(world, jobs, terminator, clock, monkeypatch) -> None:
    """The answer says that one is running already; it must not mean less than what was asked."""
    monkeypatch.setattr(terminator_module, "CHUNK", 2)
    early = await world.create(3)
    paused, running = await world.create(2)
    await world.engine.pause(world.account, paused)
    await world.hold([running], owner=4)
    await jobs.start(world.account, world.workflow, "terminate_all", statuses=[Status.QUEUED])
    assert await terminator.tick()
    assert sum(status is Status.TERMINATED for status in (await world.statuses()).values()) == 2
    clock.advance(1)
    [late] = await world.create()
    both = await jobs.start(world.account, world.workflow, "terminate_all", statuses=[Status.PAUSED, Status.QUEUED])
    assert both.already_running
    await run_all(terminator)
    assert await world.statuses() == dict.fromkeys([*early, paused, late], Status.TERMINATED) | {
        running: Status.RUNNING
    }
    assert await world.admin.fetchval("select done from termination_job") == 5

    await world.create()
    await jobs.start(world.account, world.workflow, "terminate_all", statuses=[Status.PAUSED])
    await jobs.start(world.account, world.workflow, "terminate_all")
    await run_all(terminator)
    assert set((await world.statuses()).values()) == {Status.TERMINATED}


async def test_starts_at_the_same_moment_make_one_job(world, jobs) -> None:
    started = await asyncio.gather(*(jobs.start(world.account, world.workflow, "terminate_all") for _ in range(8)))
    assert len({job.id for job in started}) == 1
    assert sum(not job.already_running for job in started) == 1


async def test_listed_instances_end(world, neighbour, jobs, terminator, bell) -> None:
    keys = await world.create(5)
    [foreign] = await neighbour.create()
    await jobs.start(world.account, world.workflow, "terminate_batch", keys=[*keys[1:4], keys[1], foreign])
    assert bell.rung == ["terminate_batch"]
    assert not await jobs.running(world.account, world.workflow)  # only jobs that end everything count
    await run_all(terminator)
    statuses = await world.statuses()
    assert {key for key, status in statuses.items() if status is Status.TERMINATED} == set(keys[1:4])


async def test_listed_instances_are_deleted(world, jobs, terminator, bell) -> None:
    keys = await world.create(3)
    await world.end(keys[:1])
    await jobs.start(world.account, world.workflow, "delete_batch", keys=keys[:2])
    assert bell.rung == ["delete_batch"]
    await run_all(terminator)
    assert list(await world.statuses()) == keys[2:]
    assert await world.count("journal") == 1


async def test_another_accounts_job_is_invisible(world, jobs, admin, clock, ids) -> None:
    await jobs.start(world.account, world.workflow, "terminate_all")
    stranger = ids.account_id()
    assert not await jobs.running(stranger, world.workflow)
    async with jobs._db.scope(stranger) as connection:
        assert await connection.fetchval("select count(*) from termination_job") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store.start_job(
                connection, world.account, ids.uuid7(), world.workflow, "terminate_all", None, None, clock.now()
            )


async def test_work_is_done_in_chunks_and_resumed_after_a_crash_between_them(
    world, jobs, terminator, monkeypatch
) -> None:
    monkeypatch.setattr(terminator_module, "CHUNK", 10)
    keys = await world.create(35)
    await jobs.start(world.account, world.workflow, "terminate_all")
    assert await terminator.tick()
    assert await terminator.tick()
    statuses = await world.statuses()
    assert [key for key in keys if statuses[key] is Status.TERMINATED] == keys[:20]  # oldest first
    progress = await world.admin.fetchrow("select done, position, finished_at from termination_job")
    assert tuple(progress) == (20, keys[19], None)

    # The worker is gone. Another one, which knows nothing, goes on where the row says.
    heir = Terminator(terminator._db, terminator._clock, lambda *_: None)
    await run_all(heir)
    assert set((await world.statuses()).values()) == {Status.TERMINATED}
    assert await world.admin.fetchval("select done from termination_job") == 35


async def test_a_chunk_and_its_progress_are_one(world, jobs, terminator, monkeypatch, admin) -> None:
    """The worker's connection is cut while the chunk's statement waits for a lock: nothing of it remains."""
    monkeypatch.setattr(terminator_module, "CHUNK", 10)
    keys = await world.create(20)
    await jobs.start(world.account, world.workflow, "terminate_all")
    async with admin.transaction():
        await admin.execute("select from live where key = $1 for update", keys[5])
        doomed = asyncio.create_task(terminator.tick())
        blocked = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        while (pid := await admin.fetchval(blocked)) is None:
            await asyncio.sleep(0.005)
            await admin.execute("select pg_stat_clear_snapshot()")
        await admin.execute("select pg_terminate_backend($1)", pid)
        await asyncio.wait({doomed})
        assert set((await world.statuses()).values()) == {Status.QUEUED}
        assert await world.admin.fetchval("select done from termination_job") == 0
    await run_all(terminator)
    assert set((await world.statuses()).values()) == {Status.TERMINATED}
    assert await world.admin.fetchval("select done from termination_job") == 20


async def test_workers_side_by_side_end_each_instance_once(world, jobs, terminator, db, clock, monkeypatch) -> None:
    monkeypatch.setattr(terminator_module, "CHUNK", 7)
    await world.create(150)
    await jobs.start(world.account, world.workflow, "terminate_all")
    others = [Terminator(db, clock, lambda *_: None) for _ in range(3)]

    async def until_over(worker: Terminator) -> None:
        while await jobs.running(world.account, world.workflow):
            await worker.tick()

    await asyncio.gather(*(until_over(worker) for worker in (terminator, *others)))
    assert await world.admin.fetchval("select done from termination_job") == 150
    ends = await world.admin.fetch("select count(*) from journal where kind = $1 group by key", int(Kind.TERMINATED))
    assert [row["count"] for row in ends] == [1] * 150
    assert await world.counters() == {Status.TERMINATED: 150}


async def test_a_big_job_does_not_hold_up_a_small_one(world, neighbour, jobs, terminator, monkeypatch) -> None:
    monkeypatch.setattr(terminator_module, "CHUNK", 5)
    await world.create(50)
    await neighbour.create(3)
    await jobs.start(world.account, world.workflow, "terminate_all")
    await jobs.start(world.account, neighbour.workflow, "terminate_all")
    await terminator.tick()
    assert not await jobs.running(world.account, neighbour.workflow)
    assert await jobs.running(world.account, world.workflow)


async def test_more_jobs_than_a_round_takes_all_get_their_turn(world, jobs, terminator, monkeypatch, clock) -> None:
    monkeypatch.setattr(terminator_module, "CHUNK", 1)
    monkeypatch.setattr(terminator_module, "JOBS_AT_ONCE", 2)
    keys = await world.create(9)
    for first in range(0, 9, 3):
        await jobs.start(world.account, world.workflow, "terminate_batch", keys=keys[first : first + 3])
    for _ in range(3):
        clock.advance(1)
        await terminator.tick()
    done = await world.admin.fetch("select done from termination_job order by created_at, id")
    assert [row["done"] for row in done] == [2, 2, 2]


async def test_one_job_that_fails_does_not_stop_the_others(world, neighbour, jobs, terminator, monkeypatch) -> None:
    await world.create()
    await neighbour.create()
    await jobs.start(world.account, world.workflow, "delete_workflow")
    await jobs.start(world.account, neighbour.workflow, "terminate_all")
    monkeypatch.setitem(
        store._CHUNKS, "delete_workflow", "select 1 / 0, $1::uuid, $2::uuid, $3::int, $4::timestamptz, $5::int"
    )
    await run_all(terminator)
    assert not await jobs.running(world.account, neighbour.workflow)
    assert await jobs.running(world.account, world.workflow)


async def test_a_deleted_workflow_goes_with_all_it_had(
    world, neighbour, jobs, terminator, clock, admin, monkeypatch
) -> None:
    monkeypatch.setattr(terminator_module, "CHUNK", 4)
    keys = await world.create(10)
    await world.end(keys[:5])
    await world.hold(keys[5:6], owner=9)
    await world.engine.send_event(world.account, keys[6], "go", None)
    [kept] = await neighbour.create()
    await admin.execute(
        "insert into schedule (account_id, id, workflow_key, cron, created_at) values ($1, $2, $3, '* * * * *', $4)",
        world.account,
        world.ids.uuid7(),
        world.workflow,
        clock.now(),
    )
    await admin.execute("update workflow set deleted_at = $2 where workflow_key = $1", world.workflow, clock.now())
    await jobs.start(world.account, world.workflow, "delete_workflow")

    await run_all(terminator)
    assert list(await world.statuses()) == [kept]
    assert await jobs.running(world.account, world.workflow)  # a create that is still on its way would be found

    await admin.execute("update workflow set deleted_at = null")
    await world.create()  # its statement began before the deletion and commits now
    await admin.execute("update workflow set deleted_at = $2 where workflow_key = $1", world.workflow, clock.now())
    clock.advance(LATE_CREATES.total_seconds())
    await run_all(terminator)
    assert not await jobs.running(world.account, world.workflow)
    assert await world.count("schedule") == 0
    assert await world.counters() == {}
    assert await world.count("journal") == 1
    assert await world.count("inbox") == 0
    assert await world.count("live") == 1


async def test_a_deletion_takes_a_bounded_number_of_journal_entries_at_once(
    world, jobs, terminator, monkeypatch, admin
) -> None:
    monkeypatch.setattr(terminator_module, "DELETED_ENTRIES", 100)
    keys = await world.create(6)
    await admin.execute("update live set seq = 60")
    await jobs.start(world.account, world.workflow, "delete_workflow")
    await terminator.tick()
    assert len(await world.statuses()) == 4  # 60 + 60 >= 100
    await run_all(terminator)
    assert not await world.statuses()
    assert keys


async def test_the_job_can_be_part_of_the_callers_transaction(world, jobs, db) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.scope(world.account, transaction=True) as connection:
            await jobs.start(world.account, world.workflow, "delete_workflow", connection=connection)
            raise ZeroDivisionError
    assert not await jobs.running(world.account, world.workflow)


async def test_finished_jobs_are_forgotten_after_a_week(world, jobs, terminator, db, clock) -> None:
    await jobs.start(world.account, world.workflow, "terminate_all")
    await run_all(terminator)
    await expire(db, clock.now() + timedelta(days=6), 1000)
    assert await world.count("termination_job") == 1
    await expire(db, clock.now() + timedelta(days=8), 1000)
    assert await world.count("termination_job") == 0
