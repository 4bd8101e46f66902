"""Who may run next: limits, fairness between accounts and lanes, and everything without a doorbell."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.journal_writer import Next
from instances.engine.requests import Create, NewInstance
from instances.engine.worker import IDLE_SECONDS
from instances.lifecycle import Kind, Phase, Status
from instances.runtimes.protocol import Attempt, Do, RunContext
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, naps, one_step, outcome, wait
from tests.support.unreliable import UnreliableDatabase

# --- limits ----------------------------------------------------------------------------------------------------


async def limit(engine: Engine, *, account: int | None = None, workflow: int | None = None) -> None:
    await engine.admin.execute("update account set concurrency = $1", account)
    await engine.admin.execute("update workflow set concurrency = $1", workflow)


async def watch(dsn: str, stop: asyncio.Event) -> tuple[int, int]:
    """The most runs that held a slot in one snapshot, and how often was looked."""
    reader = await asyncpg.connect(dsn)
    most = looks = 0
    while not stop.is_set():
        most = max(most, await reader.fetchval("select count(*) from live where phase = 1") or 0)
        looks += 1
        await asyncio.sleep(0)
    await reader.close()
    return most, looks


@pytest.mark.parametrize("which", ["account", "workflow"])
async def test_a_limit_holds_against_a_crowd_of_claimers(engine: Engine, dsn: str, which: str) -> None:
    await engine.define("w", one_step)
    await limit(engine, **{which: 10})
    await engine.create_many("w", 300)
    dice, stop = random.Random(20260101), asyncio.Event()
    watching = asyncio.create_task(watch(dsn, stop))

    async def claimer() -> None:
        puppet = await Puppet.enter(engine)
        while await puppet.connection.fetchval("select exists (select from live)"):
            for row in await puppet.claim(20):
                nexts = (Next.COMPLETE, Next.COMPLETE, Next.RELEASE, Next.PARK)
                next = dice.choice(nexts)
                await puppet.flush(row, next, entries=1, due=engine.clock.now())

    await asyncio.gather(*(claimer() for _ in range(8)))
    stop.set()
    most, looks = await watching
    assert looks > 50
    assert most == 10, "never more, and all of it used"
    assert await engine.admin.fetchval("select count(*) from instance where status = 6") == 300


async def test_both_limits_hold_at_once(engine: Engine, puppet: Puppet) -> None:
    for handle in ("a", "b", "c"):
        await engine.define(handle, one_step)
    await limit(engine, account=10, workflow=4)
    for handle in ("a", "b", "c"):
        await engine.create_many(handle, 20)
    rows = await puppet.claim()
    assert len(rows) == 10
    assert max(Counter(row["workflow_key"] for row in rows).values()) == 4
    assert await puppet.claim() == []
    await puppet.flush(rows[0], Next.COMPLETE)
    assert len(await puppet.claim()) == 1


@pytest.mark.parametrize("next", [Next.PARK, Next.RELEASE, Next.COMPLETE, Next.ERRORED])
async def test_a_slot_goes_with_the_run_that_leaves(engine: Engine, puppet: Puppet, next: Next) -> None:
    await engine.define("w", one_step)
    await limit(engine, account=1)
    await engine.create_many("w", 2)
    row = await puppet.claim_one()
    assert await puppet.claim() == []
    await puppet.flush(row, next, body="1")
    assert len(await puppet.claim()) == 1


async def test_what_wakes_or_restarts_takes_no_slot_by_itself(engine: Engine, puppet: Puppet) -> None:
    """Only the claim raises the number of running instances."""
    await engine.define("w", one_step)
    keys = await engine.create_many("w", 4)
    rows = {row["key"]: row for row in await puppet.claim()}
    await limit(engine, account=1)
    await puppet.send(
        puppet.change(rows[keys[0]], Next.PARK, awaits=["go"]),
        puppet.change(rows[keys[1]], Next.COMPLETE),
        puppet.change(rows[keys[2]], Next.PARK, due=engine.clock.now()),
    )
    await engine.client.pause(engine.account, keys[2])
    await engine.client.send_event(engine.account, keys[0], "go", None)
    await engine.client.restart(engine.account, keys[1])
    await engine.client.resume(engine.account, keys[2])
    assert await engine.admin.fetchval("select count(*) from live where phase = 1") == 1
    assert await puppet.claim() == []
    assert await engine.admin.fetchval("select count(*) from live where phase = 0") == 3


async def test_compensations_need_no_free_slot(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    keys = await engine.create_many("w", 2)
    rows = {row["key"]: row for row in await puppet.claim()}
    await puppet.flush(rows[keys[0]], Next.PARK)
    await limit(engine, account=1, workflow=1)
    await engine.client.terminate(engine.account, keys[0], rollback=True)
    assert (await puppet.claim_one())["key"] == keys[0]


async def test_a_disabled_account_runs_nothing(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    await engine.create("w")
    await engine.admin.execute("update account set disabled_at = created_at")
    assert await puppet.claim() == []
    await engine.admin.execute("update account set disabled_at = null")
    assert len(await puppet.claim()) == 1


# --- fairness --------------------------------------------------------------------------------------------------


async def test_a_capped_lane_does_not_hide_its_neighbour(engine: Engine, puppet: Puppet) -> None:
    """The oldest rows are all of the capped workflow; the claim must not read past them one by one."""
    for handle, cap in (("a", 1), ("b", None), ("c", 1)):
        await engine.define(handle, one_step, concurrency=cap)
    for handle in "ac":
        await engine.create_many(handle, 1500)
    assert len(await puppet.claim(5)) == 2, "one of each capped lane"
    engine.clock.advance(1)
    [young] = await engine.create_many("b", 1)
    pages = await puppet.claim_pages()
    assert (await engine.live(young))["phase"] == Phase.HELD  # type: ignore[index]
    assert pages < 500, "a claim costs by lanes, not by rows"


async def test_woken_runs_come_before_new_ones_and_older_before_younger(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    woken = await engine.create_many("w", 2)
    for row in await puppet.claim():
        await puppet.flush(row, Next.PARK, awaits=["go"])
    new = []
    for _ in range(3):
        engine.clock.advance(1)
        new.append(await engine.create("w"))
    for key in reversed(woken):
        engine.clock.advance(1)
        await engine.client.send_event(engine.account, key, "go", None)
    order = [(await puppet.claim(1))[0]["key"] for _ in range(5)]
    assert order == [*reversed(woken), *new]


async def test_accounts_are_served_in_turn(engine: Engine, puppet: Puppet) -> None:
    """One account's backlog does not slow another's start: each gets its share of every claim."""
    accounts = [engine.account] + [await engine.add_account() for _ in range(20)]
    for account in accounts:
        await engine.define("w", one_step, account=account)
        await engine.create_many("w", 1000 if account == engine.account else 2, account=account)
    rows = await puppet.claim(100)
    share = Counter(row["account_id"] for row in rows)
    assert all(share[account] == 2 for account in accounts[1:])
    assert share[engine.account] >= 5


async def test_the_start_of_the_round_moves_on(engine: Engine) -> None:
    """A worker with one slot serves every account, not always the one with the lowest id."""
    accounts = [engine.account] + [await engine.add_account() for _ in range(9)]
    ran: list[UUID] = []

    async def body(do: Do, _: Attempt) -> str | None:
        ran.append(do.data)
        return None

    def script(run: RunContext) -> Steps:
        yield [step("a", data=run.account_id)]
        return "1"

    for account in accounts:
        await engine.define("w", script, body, account=account)
        await engine.create_many("w", 5, account=account)
    await engine.worker(slots=1)
    await engine.eventually(lambda: len(ran) == 50)
    for n in range(5):
        assert len({*ran[10 * n : 10 * n + 10]}) == 10, ran


@pytest.mark.parametrize("slots", [1, 3, 100])
async def test_accounts_at_their_limit_do_not_starve_the_others(engine: Engine, slots: int) -> None:
    """Ready rows that may not run must not be all a worker ever looks at, however few slots it has."""
    for _ in range(30):
        account = await engine.add_account(concurrency=0)
        await engine.define("w", one_step, account=account)
        await engine.create_many("w", 2, account=account)
    free = [engine.account, await engine.add_account()]
    for account in free:
        await engine.define("w", one_step, account=account)
    keys = [key for account in free for key in await engine.create_many("w", 4, account=account)]
    await engine.worker(slots=slots)
    done = "select count(*) = $2 from instance where status = 6 and key = any ($1)"
    await engine.eventually(lambda: engine.admin.fetchval(done, keys, len(keys)), seconds=10)


async def test_a_full_worker_keeps_room_for_accounts_that_hold_little(engine: Engine) -> None:
    """Long steps of one account may not take the last tenth of the slots."""
    gate = asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        await gate.wait()
        return '"done"'

    small = await engine.add_account()
    await engine.define("w", one_step, body)
    await engine.define("w", one_step, account=small)
    await engine.create_many("w", 60)
    worker = await engine.worker(slots=20)
    await engine.eventually(lambda: worker.held >= 18)
    for _ in range(3):
        worker.wake()
        await asyncio.sleep(0.02)
    key = await engine.create("w", account=small)
    worker.wake()
    done = "select status = 6 from instance where key = $1"
    await engine.eventually(lambda: engine.admin.fetchval(done, key), seconds=5)
    gate.set()
    left = "select count(*) = 0 from live"
    await engine.eventually(lambda: engine.admin.fetchval(left))


async def test_claims_go_on_while_there_is_more(engine: Engine) -> None:
    """That an account's share of one claim was small is no reason to wait for the next look."""
    gate = asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        await gate.wait()
        return None

    for _ in range(20):
        account = await engine.add_account(concurrency=0)
        await engine.define("w", one_step, account=account)
        await engine.create_many("w", 1, account=account)
    await engine.define("w", one_step, body)
    await engine.create_many("w", 150)
    engine.bell.silent = True
    worker = await engine.worker()
    await engine.eventually(lambda: worker.held == 150, seconds=3)
    gate.set()
    await engine.eventually(lambda: worker.held == 0)


# --- lanes -----------------------------------------------------------------------------------------------------


async def test_a_worker_claims_only_what_it_can_run(engine: Engine, puppet: Puppet) -> None:
    await engine.define("scripts", one_step, runtime=1)
    await engine.define("documents", one_step)
    theirs, mine = await engine.create("scripts"), await engine.create("documents")
    assert [row["key"] for row in await puppet.claim()] == [mine]
    closing = (await puppet.claim_all())[-1]
    assert not closing["more"], "what it cannot run is nothing to hurry for"
    assert await engine.status(theirs) is Status.QUEUED
    assert {row["key"] for row in await puppet.claim(runtimes=[1, 2])} == {theirs}


async def test_what_wakes_stays_with_those_who_can_run_it(engine: Engine, puppet: Puppet) -> None:
    await engine.define("scripts", one_step, runtime=1)
    key = await engine.create("scripts")
    [row] = await puppet.claim(runtimes=[1])
    await puppet.flush(row, Next.PARK, due=engine.clock.now())
    assert await puppet.claim(runtimes=[0]) == []
    assert [row["key"] for row in await puppet.claim(runtimes=[1])] == [key]


async def test_a_restart_on_another_runtime_changes_the_lane(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    await puppet.flush(await puppet.claim_one(), Next.COMPLETE)
    await engine.define("w", one_step, runtime=1)
    await engine.client.restart(engine.account, key)
    assert await puppet.claim() == []
    assert len(await puppet.claim(runtimes=[1])) == 1


async def test_a_version_that_cannot_be_opened_is_left_to_others_and_not_failed(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """An older release, a host without a sandbox: not the run's fault, and no reason to claim it again at once."""
    await engine.define("w", one_step)
    await engine.define("broken", one_step)
    broken_source = next(source for source in engine.runtime.scripts if source.startswith("broken"))
    program = engine.runtime.scripts.pop(broken_source)
    keys = await engine.create_many("broken", 3)
    await engine.worker(db=unreliable)
    await engine.until(await engine.create("w"), Status.COMPLETE)
    await engine.eventually(lambda: unreliable.statements[store.REFUSE])
    await engine.eventually(
        lambda: engine.admin.fetchval("select bool_and(phase = 0 and ready_at > $1) from live", engine.clock.now())
    )
    for key in keys:
        row = await engine.live(key)
        assert row is not None and row["takeovers"] == 0
        assert await engine.status(key) is Status.QUEUED
    for _ in range(10):
        engine.workers[0].wake()
        await asyncio.sleep(0.01)
    assert unreliable.statements[store.REFUSE] == 1
    engine.runtime.scripts[broken_source] = program
    await engine.advance(5)
    for key in keys:
        await engine.until(key, Status.COMPLETE)


# --- without a doorbell ----------------------------------------------------------------------------------------


async def test_everything_works_without_a_doorbell(engine: Engine) -> None:
    """Redis is away and nobody rings: the loops find every change within about a second each."""
    assert IDLE_SECONDS <= 1

    def script(run: RunContext) -> Steps:
        [message] = yield [wait("w", "go", seconds=3600)]
        yield [step("a")]
        return outcome(message)

    engine.bell.silent = True
    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING, seconds=4)
    await engine.client.send_event(engine.account, key, "go", None)
    await engine.until(key, Status.COMPLETE, seconds=4)
    await engine.client.restart(engine.account, key)
    await engine.until(key, Status.WAITING, seconds=4)


async def test_commands_reach_a_running_step_without_a_doorbell(engine: Engine) -> None:
    """The holder reads the signals of what it holds at each renewal."""
    entered: list[str] = []
    gates = {"1": asyncio.Event(), "2": asyncio.Event()}

    async def body(do: Do, _: Attempt) -> str | None:
        entered.append(do.data)
        await gates[do.data].wait()
        return None

    def script(run: RunContext) -> Steps:
        yield [step("a", data=run.input)]
        yield [wait("w", "go")]
        return "1"

    engine.bell.silent = True
    await engine.define("w", script, body)
    worker = await engine.worker()
    paused, ended = await engine.create("w", input="1"), await engine.create("w", input="2")
    await engine.eventually(lambda: len(entered) == 2)
    await engine.client.pause(engine.account, paused)
    await engine.client.terminate(engine.account, ended)
    gates["1"].set()
    await engine.until(paused, Status.PAUSED, seconds=4)
    gates["2"].set()
    await engine.eventually(lambda: worker.held == 0, seconds=4)
    assert await engine.status(ended) is Status.TERMINATED


async def test_timers_are_kept_without_a_doorbell(engine: Engine) -> None:
    engine.bell.silent = True
    await engine.define("w", naps)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING, seconds=4)
    await engine.eventually(lambda: worker.held == 0)
    engine.clock.advance(60)  # type: ignore[attr-defined]
    await engine.until(key, Status.COMPLETE, seconds=4)


async def test_an_idle_worker_looks_seldom(engine: Engine, unreliable: UnreliableDatabase) -> None:
    """Runs that sleep, runs that may not run, and runs for others: no reason to look all the time."""
    await engine.define("w", naps)
    await engine.define("others", naps, runtime=1)
    await engine.create_many("others", 5)
    capped = await engine.add_account(concurrency=0)
    await engine.define("w", naps, account=capped)
    await engine.create_many("w", 5, account=capped)
    key = await engine.create("w")
    await engine.worker(db=unreliable)
    await engine.until(key, Status.WAITING)
    await asyncio.sleep(0.1)
    unreliable.statements.clear()
    await asyncio.sleep(1.5)
    assert unreliable.statements[store.CLAIM] <= 5


# --- creation --------------------------------------------------------------------------------------------------


async def test_a_create_runs_the_version_that_is_current(engine: Engine) -> None:
    """Resolved in the statement: nothing created after a deployment answered runs the version before it."""
    keys: list[UUID] = []
    for version in range(3):

        def script(run: RunContext, version: int = version) -> Steps:
            yield [step("a")]
            return str(version)

        await engine.define("w", script)
        keys.append(await engine.create("w"))
    await engine.worker()
    assert [(await engine.until(key, Status.COMPLETE))["output"] for key in keys] == ["0", "1", "2"]


@pytest.mark.parametrize("gone", ["deleted", "unknown", "another account's"])
async def test_a_create_needs_a_workflow(engine: Engine, gone: str) -> None:
    await engine.define("w", one_step)
    account = await engine.add_account() if gone == "another account's" else engine.account
    if gone == "deleted":
        await engine.admin.execute("update workflow set deleted_at = created_at")
    item = NewInstance(
        account_id=account, key=engine.ids.uuid7(), instance_id="x", handle="nope" if gone == "unknown" else "w"
    )
    assert (await engine.client.create([item]))[0].outcome is Create.NO_WORKFLOW
    assert await engine.admin.fetchval("select count(*) from instance") == 0


async def test_only_active_workflows_are_started(engine: Engine) -> None:
    await engine.define("w", one_step)
    items = [
        NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id=id, handle="w") for id in ("a", "b")
    ]
    assert (await engine.client.create(items[:1]))[0].outcome is Create.CREATED
    for status in ("inactive", "draft", "archived"):
        await engine.admin.execute("update workflow set status = $1", status)
        # What is repeated because its answer was lost was created: that is still the answer.
        assert [one.outcome for one in await engine.client.create(items)] == [Create.CREATED, Create.INACTIVE]
    assert await engine.admin.fetchval("select count(*) from instance") == 1
    await engine.admin.execute("update workflow set status = 'active'")
    assert (await engine.client.create(items[1:]))[0].outcome is Create.CREATED


async def test_two_creates_of_one_id_make_one_instance(engine: Engine) -> None:
    await engine.define("w", one_step)

    def item(id: str) -> NewInstance:
        return NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id=id, handle="w")

    crowds = [engine.client.create([item(f"{n % 7}"), item(f"own {n}")]) for n in range(21)]
    answers: list[list[Any]] = await asyncio.gather(*crowds)
    outcomes = Counter(pair[0].outcome for pair in answers)
    assert outcomes == {Create.CREATED: 7, Create.EXISTS: 14}
    assert {pair[1].outcome for pair in answers} == {Create.CREATED}
    assert await engine.admin.fetchval("select count(*) from journal where kind = $1", int(Kind.QUEUED)) == 28


async def test_hot_tables_have_no_foreign_keys(admin: asyncpg.Connection) -> None:
    """They cost two to twelve times the throughput; the create statement checks what they would."""
    tables = ["instance", "live", "journal", "inbox", "feed", "counter"]
    query = "select conrelid::regclass::text from pg_constraint where contype = 'f' and conrelid = any ($1::regclass[])"
    assert await admin.fetch(query, tables) == []


async def test_an_ordinary_flush_changes_no_index(engine: Engine, puppet: Puppet) -> None:
    """Neither the number of the entry, nor the time, nor the lease is indexed: updates stay on their page.

    So few that all their versions fit there, whether or not somebody's snapshot keeps the old ones alive.
    """
    await engine.define("w", awaits_go)
    await engine.create_many("w", 5)
    rows = await puppet.claim()
    updates = "select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables where relname = 'live'"

    async def measure() -> asyncpg.Record:
        await puppet.connection.execute("select pg_stat_force_next_flush()")
        row = await engine.admin.fetchrow(updates)
        assert row is not None
        return row

    before = await measure()
    for _ in range(5):
        await puppet.send(*(puppet.change(row, entries=2) for row in rows))
    after = await measure()
    assert after["all"] - before["all"] == 25
    assert after["hot"] - before["hot"] == 25
