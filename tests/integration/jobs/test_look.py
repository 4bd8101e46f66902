"""One look tells what is due, and wakes the loops that see to it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import get_args

import pytest

from jobs.doorbell import NoDoorbell
from jobs.loops import store
from jobs.loops.look import LookForWork
from jobs.loops.loop import Loop
from jobs.loops.store import Duty
from jobs.termination.requests import TerminationJobs
from tenants.clock import ManualClock
from tenants.database import Database


async def schedule_in(world, seconds: float) -> None:
    await world.admin.execute(
        "insert into schedule (account_id, id, workflow_key, next_at, created_at, cron)"
        " values ($1, $2, $3, $4, $5, '* * * * *')",
        world.account,
        world.ids.uuid7(),
        world.workflow,
        world.clock.now() + timedelta(seconds=seconds),
        world.clock.now(),
    )


async def terminate(world, db: Database) -> None:
    await TerminationJobs(db, world.clock, world.ids, NoDoorbell()).start(
        world.account, world.workflow, "terminate_all"
    )


async def retire_in(world, seconds: float) -> None:
    [key] = await world.create(success_retention_ms=int(seconds * 1000))
    await world.end([key])


async def listen(world, due_in: float | None = None) -> None:
    """An endpoint that listens; with something to send in a while."""
    await world.admin.execute(
        "insert into webhook (account_id, id, url, events, secret, created_at, due_at)"
        " values ($1, $2, 'https://example.com', '{*}', '', $3, $4)",
        world.account,
        world.ids.uuid7(),
        world.clock.now(),
        None if due_in is None else world.clock.now() + timedelta(seconds=due_in),
    )


async def test_nothing_is_due(world, db, clock) -> None:
    await world.create(3)
    await schedule_in(world, 5)
    await retire_in(world, 5)
    assert await store.duties_due(db, clock.now()) == []


async def test_each_duty_is_told_when_it_is_due(world, db, clock) -> None:
    await schedule_in(world, 1)
    clock.advance(1)
    assert await store.duties_due(db, clock.now()) == ["schedules"]
    await retire_in(world, 1)
    clock.advance(1)
    assert await store.duties_due(db, clock.now()) == ["schedules", "retention"]
    await terminate(world, db)
    assert await store.duties_due(db, clock.now()) == ["termination", "schedules", "retention"]
    await world.admin.execute("update termination_job set finished_at = now()")
    assert await store.duties_due(db, clock.now()) == ["schedules", "retention"]
    await listen(world, 1)
    assert await store.duties_due(db, clock.now()) == ["schedules", "retention", "webhook_events"]
    clock.advance(1)
    assert (await store.duties_due(db, clock.now()))[2:] == ["webhook_events", "webhook_deliveries"]


@pytest.mark.parametrize("duty", get_args(Duty))
async def test_what_is_due_is_woken_and_nothing_else(world, db: Database, clock: ManualClock, duty: Duty) -> None:
    done: asyncio.Queue[str] = asyncio.Queue()

    def loop(name: Duty) -> Loop:
        async def tick() -> bool:
            done.put_nowait(name)
            return False

        return Loop(name, tick, interval=3600, chance=lambda: 1.0)

    loops = {name: loop(name) for name in get_args(Duty)}
    for each in loops.values():
        await each.start()
    make = {"termination": terminate(world, db), "schedules": schedule_in(world, 0), "retention": retire_in(world, 0)}
    make |= {"webhook_events": listen(world), "webhook_deliveries": listen(world, 0)}
    await make.pop(duty)
    for unused in make.values():
        unused.close()
    await LookForWork(db, clock, loops).tick()
    async with asyncio.timeout(10):
        woken = {await done.get()}
        if duty == "webhook_deliveries":  # who is sent to listens, too
            woken.add(await done.get())
            woken.remove("webhook_events")
    assert woken == {duty}
    assert done.empty()
    for each in loops.values():
        await each.stop()


async def test_the_look_reads_no_table_through(db: Database, admin) -> None:
    """Also when the plan was made while the tables were empty."""
    async with db.engine.acquire() as connection:
        await connection.execute(f"prepare look(timestamptz) as {store._DUTIES_DUE}")
        rows = await connection.fetch("explain execute look(now())")
        await connection.execute("deallocate look")
    plan = "\n".join(row[0] for row in rows)
    assert all(
        index in plan
        for index in ("instance_retain", "schedule_due", "termination_job_", "webhook_active", "webhook_due")
    )
    assert "Seq Scan" not in plan
