"""Firing schedules on a real database: exactly once through crashes and crowds, caught up, without overlap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine.client import EngineClient
from instances.engine.requests import NewInstance
from jobs.schedules import store
from jobs.schedules.firing import CATCH_UP, FireSchedules, _decide
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.errors import AccountNotFound
from tenants.limits import Limits

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def open_limits(_account: UUID) -> Limits:
    return Limits()


@pytest.fixture
def firing(db: Database, clock: ManualClock, engine: EngineClient) -> FireSchedules:
    return FireSchedules(db, clock, engine, open_limits)


async def add(world: Any, next_at: datetime = START + MINUTE, **fields: Any) -> UUID:
    """A schedule of the world's workflow, every minute unless told otherwise."""
    values = {"cron": "* * * * *", **fields}
    schedule = world.ids.uuid7()
    names = ", ".join(values)
    marks = ", ".join(f"${number}" for number in range(6, 6 + len(values)))
    await world.admin.execute(
        f"insert into schedule (account_id, id, workflow_key, next_at, created_at, {names})"
        f" values ($1, $2, $3, $4, $5, {marks})",
        world.account,
        schedule,
        world.workflow,
        next_at,
        START,
        *values.values(),
    )
    return schedule


async def row(world: Any, schedule: UUID) -> Any:
    return await world.admin.fetchrow("select next_at, runs, last_key from schedule where id = $1", schedule)


async def fired(world: Any) -> list[datetime]:
    """Scheduled times of the instances there are, in order."""
    rows = await world.admin.fetch("select trigger_detail from instance where trigger_source = 4 order by key")
    return [datetime.fromtimestamp(json.loads(row[0])["scheduledTime"] / 1000, UTC) for row in rows]


async def keys(world: Any) -> list[UUID]:
    return [one["key"] for one in await world.admin.fetch("select key from instance order by key")]


async def run_all(firing: FireSchedules) -> None:
    while await firing.tick():
        pass


async def test_nothing_fires_before_its_time(world, firing, clock) -> None:
    await add(world)
    clock.advance(59.999)
    assert not await firing.tick()
    assert await fired(world) == []


async def test_a_firing_creates_the_instance_cloudflare_describes(world, firing, clock) -> None:
    schedule = await add(world, input='{"n":1}')
    clock.advance(60.5)
    await run_all(firing)
    instance = await world.admin.fetchrow("select * from instance")
    milliseconds = int((START + MINUTE).timestamp() * 1000)
    assert instance["instance_id"] == f"* * * * *-{milliseconds}"
    assert json.loads(instance["trigger_detail"]) == {"cron": "* * * * *", "scheduledTime": milliseconds}
    assert (instance["trigger_source"], instance["input"]) == (4, '{"n":1}')
    assert instance["key"].version == 7
    assert instance["key"].int >> 80 == milliseconds  # lists are ordered by key
    assert tuple(await row(world, schedule)) == (START + 2 * MINUTE, 1, instance["key"])


async def test_intervals_keep_their_beat(world, firing, clock) -> None:
    schedule = await add(world, START + timedelta(seconds=7), cron=None, interval_ms=10_000)
    clock.advance(8.3)
    await run_all(firing)
    clock.advance(20)
    await run_all(firing)
    assert await fired(world) == [START + timedelta(seconds=7 + 10 * n) for n in range(3)]
    assert (await row(world, schedule))["next_at"] == START + timedelta(seconds=37)
    assert (await world.admin.fetchval("select instance_id from instance limit 1")).startswith(f"{schedule}-")


async def test_time_zones(world, firing, clock) -> None:
    await add(world, datetime(2026, 3, 28, 8, tzinfo=UTC), cron="0 9 * * *", timezone="Europe/Berlin")
    clock.advance((datetime(2026, 3, 30, tzinfo=UTC) - START).total_seconds())
    await run_all(firing)
    assert [moment.hour for moment in await fired(world)] == [8, 7]  # summer time begins on the 29th


async def test_whoever_comes_late_fires_nothing_whatever_became_of_the_instance(world, firing, clock, db) -> None:
    """A worker read what is due and froze; another fired it, and the instance ended and was deleted."""
    schedule = await add(world, max_runs=3)
    clock.advance(61)
    due = await store.due_schedules(db, clock.now(), 10)
    await run_all(firing)
    await world.admin.execute(
        "select * from delete_instances($1, $2, $3)", world.account, await keys(world), clock.now()
    )
    assert await fired(world) == []
    moves = [_decide(one, clock.now(), None) for one in due]
    assert moves[0].instance is not None
    assert await store.fire_schedules(db, moves, clock.now()) == {}
    assert await fired(world) == []
    assert tuple(await row(world, schedule))[:2] == (START + 2 * MINUTE, 1)


async def test_what_cannot_be_stored_moves_nothing(world, firing, clock) -> None:
    schedule = await add(world, input='"before"')
    await world.admin.execute("alter table instance add constraint no_input check (input is null)")
    try:
        clock.advance(61)
        with pytest.raises(asyncpg.CheckViolationError):
            await firing.tick()
        assert tuple(await row(world, schedule)) == (START + MINUTE, 0, None)
    finally:
        await world.admin.execute("alter table instance drop constraint no_input")
    await run_all(firing)
    assert await fired(world) == [START + MINUTE]


async def test_schedules_of_one_expression_fire_each(world, firing, clock) -> None:
    """Their instances cannot all have the id made of it."""
    first = await add(world, cron="0 9 * * *", timezone="Europe/Berlin", next_at=START + MINUTE, input='"Berlin"')
    second = await add(world, cron="0 9 * * *", timezone="Europe/Paris", next_at=START + MINUTE, input='"Paris"')
    clock.advance(61)
    await run_all(firing)
    found = await world.admin.fetch("select instance_id, input from instance order by input")
    milliseconds = int((START + MINUTE).timestamp() * 1000)
    assert [tuple(one) for one in found] == [
        (f"0 9 * * *-{milliseconds}", '"Berlin"'),
        (f"{second}-{milliseconds}", '"Paris"'),
    ]
    assert (await row(world, first))["runs"] == (await row(world, second))["runs"] == 1


async def test_input_that_was_left_out_is_an_empty_object(world, firing, clock) -> None:
    await add(world)
    clock.advance(61)
    await run_all(firing)
    assert await world.admin.fetchval("select input from instance") == "{}"


async def test_new_instances_are_announced(world, clock, db) -> None:
    announced: list[NewInstance] = []

    class Client:
        def announce(self, created: Sequence[NewInstance]) -> None:
            announced.extend(created)

    await add(world)
    clock.advance(61)
    await run_all(FireSchedules(db, clock, Client(), open_limits))
    assert [one.key for one in announced] == await keys(world)


async def test_workers_side_by_side_fire_once(world, clock, db, engine) -> None:
    schedules = [await add(world, cron=None, interval_ms=60_000) for _ in range(5)]
    clock.advance(61)
    workers = [FireSchedules(db, clock, engine, open_limits) for _ in range(6)]
    await asyncio.gather(*(run_all(worker) for worker in workers))
    assert await fired(world) == [START + MINUTE] * 5
    assert [(await row(world, schedule))["runs"] for schedule in schedules] == [1] * 5


async def test_an_instance_with_the_firings_id_is_the_firing(world, firing, clock) -> None:
    """A replaced schedule (a new row for the same expression) does not fire a second time."""
    before = await add(world)
    clock.advance(61)
    await run_all(firing)
    await world.admin.execute("delete from schedule where id = $1", before)
    again = await add(world)
    await run_all(firing)
    assert await fired(world) == [START + MINUTE]
    assert (await row(world, again))["next_at"] == START + 2 * MINUTE


async def test_missed_firings_are_caught_up(world, firing, clock) -> None:
    await add(world)
    clock.advance(5 * 60 + 1)
    await run_all(firing)
    assert await fired(world) == [START + n * MINUTE for n in range(1, 6)]


@pytest.mark.parametrize("fields", [{}, {"cron": None, "interval_ms": 60_000}])
async def test_of_many_missed_firings_the_latest_ten_are_caught_up(world, firing, clock, fields) -> None:
    schedule = await add(world, **fields)
    clock.advance(7 * 86_400 + 30)
    await run_all(firing)
    now = START + timedelta(days=7)
    assert await fired(world) == [now - n * MINUTE for n in reversed(range(CATCH_UP))]
    assert (await row(world, schedule))["next_at"] == now + MINUTE


async def test_a_rare_schedule_fires_however_late(world, firing, clock) -> None:
    await add(world, START + timedelta(days=31), cron="0 0 1 * *")
    clock.advance(40 * 86_400)
    await run_all(firing)
    assert await fired(world) == [datetime(2026, 2, 1, tzinfo=UTC)]


async def test_firings_that_may_not_overlap_are_left_out(world, firing, clock) -> None:
    schedule = await add(world, overlap=False)
    clock.advance(60)
    await run_all(firing)
    clock.advance(60)
    await run_all(firing)
    assert await fired(world) == [START + MINUTE]  # the first one is still there
    assert tuple(await row(world, schedule))[:2] == (START + 3 * MINUTE, 1)
    await world.end([(await row(world, schedule))["last_key"]])
    clock.advance(60)
    await run_all(firing)
    assert await fired(world) == [START + MINUTE, START + 3 * MINUTE]


async def test_a_number_of_runs_ends_a_schedule(world, firing, clock) -> None:
    schedule = await add(world, max_runs=2)
    clock.advance(10 * 60)
    await run_all(firing)
    assert len(await fired(world)) == 2
    assert tuple(await row(world, schedule))[:2] == (None, 2)


async def test_a_deleted_workflow_fires_no_more(world, firing, clock, admin) -> None:
    schedule = await add(world)
    await admin.execute("update workflow set deleted_at = now()")
    clock.advance(61)
    await run_all(firing)
    assert await fired(world) == []
    assert (await row(world, schedule))["next_at"] is None


async def test_a_workflow_that_is_not_active_misses_its_firings(world, firing, clock, admin) -> None:
    """Whoever deactivates it stops its schedules; one that was about to fire at that moment creates nothing either."""
    schedule = await add(world)
    await admin.execute("update workflow set status = 'inactive'")
    clock.advance(61)
    await run_all(firing)
    assert await fired(world) == []
    assert (await row(world, schedule))["next_at"] == START + 2 * MINUTE
    assert (await row(world, schedule))["runs"] == 0


async def test_a_disabled_account_misses_its_firings_and_goes_on_later(world, firing, clock, admin) -> None:
    schedule = await add(world)
    await admin.execute("update account set disabled_at = now()")
    clock.advance(61)
    await run_all(firing)
    assert await fired(world) == []
    assert (await row(world, schedule))["next_at"] == START + 2 * MINUTE
    await admin.execute("update account set disabled_at = null")
    clock.advance(60)
    await run_all(firing)
    assert await fired(world) == [START + 2 * MINUTE]


async def test_a_schedule_that_cannot_be_read_stops_alone(world, firing, clock) -> None:
    broken = await add(world, cron="nonsense")
    lost = await add(world, timezone="Mars/Olympus")
    await add(world)
    clock.advance(61)
    await run_all(firing)
    assert await fired(world) == [START + MINUTE]
    assert (await row(world, broken))["next_at"] is None
    assert (await row(world, lost))["next_at"] is None


async def test_no_room_in_the_queue_leaves_the_firing_out(world, clock, db, engine) -> None:
    async def narrow(_account: UUID) -> Limits:
        return Limits(queued=1)

    schedule = await add(world, max_runs=5)
    firing = FireSchedules(db, clock, engine, narrow)
    clock.advance(121)
    await run_all(firing)
    assert await fired(world) == [START + MINUTE]
    assert tuple(await row(world, schedule))[:2] == (START + 3 * MINUTE, 1)


async def test_an_account_that_is_gone_holds_nobody_up(world, clock, db, engine) -> None:
    async def gone(_account: UUID) -> Limits:
        raise AccountNotFound()

    schedule = await add(world)
    clock.advance(61)
    await run_all(FireSchedules(db, clock, engine, gone))
    assert await fired(world) == []
    assert (await row(world, schedule))["next_at"] == START + 2 * MINUTE
