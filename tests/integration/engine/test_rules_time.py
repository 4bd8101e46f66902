"""One clock: the database's, whatever a host thinks; it is looked at, never waited for."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from instances.engine import store
from instances.engine.claims import ZERO
from instances.engine.journal_writer import Next
from instances.lifecycle import Kind, Phase, Status
from instances.runtimes.protocol import RunContext, Sleep, StepKey, StepKind
from tenants.clock import Clock, ManualClock
from tests.support.engine import Engine
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, nap, naps, one_step, wait
from tests.support.unreliable import UnreliableDatabase

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_wall_clock_is_read_nowhere() -> None:
    """Neither in the engine nor in what it stands on: a skewed host would wake its timers early or spin on them."""
    wall = re.compile(r"\btime\.time\(|datetime\.(now|utcnow|today)\(|date\.today\(")
    files = [
        path for package in ("tenants", "versions", "instances", "jobs") for path in (CHECKOUT / package).rglob("*.py")
    ]
    assert len(files) > 50
    found = [
        f"{path.name}: {line.strip()}" for path in files for line in path.read_text().splitlines() if wall.search(line)
    ]
    assert found == []


def test_sql_takes_the_time_as_a_parameter() -> None:
    """So that tests move it, and so that it can be an index condition; answers tell the database's own time."""
    for script in store.function_scripts():
        code = "\n".join(line.partition("--")[0] for line in script.splitlines())
        for found in re.finditer(r".*\b(now\(\)|clock_timestamp\(\)|current_timestamp).*", code):
            assert re.search(r"clock_timestamp\(\)\s*;?$", found.group().strip()), found.group()


# --- skewed clocks ---------------------------------------------------------------------------------------------


def naps_shortly(run: RunContext) -> Steps:
    yield [nap("n", seconds=0.5)]
    yield [wait("w", "never", seconds=0.5)]
    return "1"


@pytest.mark.parametrize("minutes", [-5, -0.02, 0, 0.02])
async def test_a_worker_whose_clock_is_off_neither_spins_nor_fires_early(
    engine: Engine, unreliable: UnreliableDatabase, minutes: float
) -> None:
    """What it takes over from the database's answers is the time that counts: two waits of half a second each."""
    now = await engine.db.now()
    engine.client._clock = Clock(now)
    await engine.define("w", naps_shortly)
    await engine.worker(Clock(now + timedelta(minutes=minutes)), db=unreliable)
    key = await engine.create("w")
    row = await engine.until(key, Status.COMPLETE)
    assert row["ended_at"] - row["started_at"] >= timedelta(seconds=1)
    assert abs(row["ended_at"] - await engine.db.now()) < timedelta(seconds=5)
    assert unreliable.statements[store.CLAIM] < 40
    assert unreliable.statements[store.FLUSH] < 20
    assert (await engine.kinds(key)).count(Kind.WAIT_TIMED_OUT) == 1


async def test_a_run_woken_by_a_clock_that_is_ahead_is_not_parked_again_and_again(engine: Engine) -> None:
    """Two workers five minutes apart: what one calls due the other may not, but the two must not play ball with it."""
    await engine.define("w", naps)
    key = await engine.create("w")
    behind = await Puppet.enter(engine)
    row = await behind.claim_one()
    await behind.flush(row, Next.ROLL_BACK)
    due = engine.clock.now() + timedelta(seconds=60)
    await behind.flush(row, Next.PARK, due=due)
    ahead = ManualClock(engine.clock.now() + timedelta(minutes=5))
    await store.claim(behind.connection, 0, [7], 10, ZERO, [], ahead.now())
    assert (await engine.live(key))["phase"] == Phase.READY  # type: ignore[index]
    again = await behind.claim_one()
    assert again["woken_at"] == due, "for its claimer it is due, and it goes on instead of parking"


async def test_what_is_not_due_for_a_worker_is_left_to_its_time(engine: Engine) -> None:
    """A run made ready by a worker that is ahead is nothing for one that is behind, and none of its haste."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    puppet = await Puppet.enter(engine)
    await puppet.flush(await puppet.claim_one(), Next.PARK, due=engine.clock.now() + timedelta(minutes=2))
    ahead = engine.clock.now() + timedelta(minutes=5)
    await store.claim(puppet.connection, 0, [7], 10, ZERO, [], ahead)
    rows = await puppet.claim_all()
    assert len(rows) == 1 and not rows[0]["more"]
    engine.clock.advance(120)  # type: ignore[attr-defined]
    assert [row["key"] for row in await puppet.claim()] == [key]


async def test_the_time_of_a_run_never_goes_back(engine: Engine) -> None:
    """Its second holder's clock is behind the first one's; entries and timers go on from what is written."""
    clock = engine.clock
    assert isinstance(clock, ManualClock)

    def script(run: RunContext) -> Steps:
        yield [nap("n", seconds=100)]
        yield [nap("n", 2, seconds=10)]
        return "1"

    await engine.define("w", script)
    first = await engine.worker(ManualClock(clock.now() + timedelta(seconds=300)), lease_seconds=1e6)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await first.drain(0)
    await first.stop()
    engine.workers.clear()
    engine.bell.workers.clear()
    await engine.worker(lease_seconds=1e6)
    await engine.advance(399)
    assert await engine.status(key) is Status.WAITING
    await engine.advance(1)
    await engine.written(key, Kind.SLEEP_STARTED, 2)
    await engine.until(key, Status.WAITING)
    await engine.advance(10)
    await engine.until(key, Status.COMPLETE)
    times = [row["at"] for row in await engine.journal(key)]
    assert times[1:] == sorted(times[1:])


# --- the clock itself ------------------------------------------------------------------------------------------


class Host:
    """A host's monotonic clock and the database's, both moved by hand."""

    def __init__(self) -> None:
        self.monotonic = 0.0
        self.database = ManualClock()
        self.clock = Clock(self.database.now(), monotonic=lambda: self.monotonic)

    def pass_(self, seconds: float) -> None:
        self.monotonic += seconds
        self.database.advance(seconds)

    @property
    def ahead(self) -> float:
        return (self.clock.now() - self.database.now()).total_seconds()


def test_the_clock_follows_the_database_forward_at_once() -> None:
    host = Host()
    host.database.advance(300)
    assert host.ahead == -300
    host.clock.observe(host.database.now())
    assert host.ahead == 0


def test_the_clock_never_steps_back_and_follows_all_the_same() -> None:
    """The database's clock was set back by five minutes, say by a failover to a host that was right."""
    host = Host()
    host.database.advance(-300)
    last = host.clock.now()
    for _ in range(2000):
        host.pass_(0.6)
        host.clock.observe(host.database.now())
        now = host.clock.now()
        assert now >= last
        last = now
    assert host.ahead < 2, "within twenty minutes of idle looks it is right again"


def test_a_late_answer_does_not_move_the_clock() -> None:
    host = Host()
    said = host.database.now()
    host.pass_(0.5)
    host.clock.observe(said)
    assert host.ahead == 0


# --- sleeps ----------------------------------------------------------------------------------------------------


async def test_sleeping_until_the_past_ends_at_once(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        yield [Sleep(StepKey(StepKind.SLEEP, "s"), until=1000)]
        return "1"

    await engine.define("w", script)
    await engine.worker()
    await engine.until(await engine.create("w"), Status.COMPLETE)


async def test_a_short_wait_stays_in_memory_and_a_long_one_leaves(engine: Engine) -> None:
    """Within the grace a run is not worth a claim; beyond it a run is worth nobody's memory."""

    def script(run: RunContext) -> Steps:
        yield [nap("short", seconds=0.15)]
        yield [nap("long", seconds=0.5)]
        return "1"

    await engine.define("w", script)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.SLEEP_STARTED)
    await asyncio.sleep(0.05)
    assert worker.held == 1 and await engine.status(key) is Status.RUNNING
    await engine.advance(0.15)
    await engine.until(key, Status.WAITING)
    await engine.eventually(lambda: worker.held == 0)
    await engine.advance(0.5)
    await engine.until(key, Status.COMPLETE)


async def test_a_run_leaves_at_once_when_others_wait_for_its_slot(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        yield [nap("short", seconds=0.15)]
        return "1"

    await engine.define("w", script, concurrency=1)
    keys = await engine.create_many("w", 3)
    await engine.worker()
    waiting = "select count(*) filter (where status = 2) = 2 and count(*) filter (where status = 1) = 1 from live"
    await engine.eventually(lambda: engine.admin.fetchval(waiting))
    await engine.advance(0.15)
    for key in keys:
        await engine.until(key, Status.COMPLETE)


async def test_many_sleepers_cost_a_claim_nothing(engine: Engine, puppet: Puppet, admin: asyncpg.Connection) -> None:
    """Due timers are found by their index, however many sleep."""
    await engine.define("w", one_step)
    await engine.create_many("w", 50)
    few = await puppet.claim_pages()
    await admin.execute(
        "insert into live (account_id, key, workflow_key, runtime, status, phase, ready_at, epoch, modified_at)"
        " select account_id, gen_random_uuid(), workflow_key, 0, 2, 2, $1, 0, $1"
        " from live, generate_series(1, 400)",
        engine.clock.now() + timedelta(days=1),
    )
    await engine.create_many("w", 50)
    assert await puppet.claim_pages() < 2 * few
