"""The connection dies after the commit: nothing is written twice, nothing is kept that nobody knows of."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from instances.engine import store
from instances.engine.client import EngineClient
from instances.engine.journal_writer import Next
from instances.engine.requests import Create, NewInstance, SendEvent
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import Attempt, Do, RunContext
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, one_step, wait
from tests.support.unreliable import UnreliableDatabase

GAVE_BACK = "gave back runs of a claim that never arrived"


def twenty_steps(run: RunContext) -> Steps:
    for n in range(20):
        yield [step("a", n + 1)]
    return "1"


# --- flushes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("next", [Next.KEEP, Next.PARK, Next.ROLL_BACK])
async def test_a_flush_sent_again_is_answered_and_not_applied_again(engine: Engine, puppet: Puppet, next: Next) -> None:
    await engine.define("w", awaits_go)
    key = await engine.create("w")
    await engine.client.send_event(engine.account, key, "go", "1")
    row = await puppet.claim_one()
    no = await engine.admin.fetchval("select no from inbox")
    change = puppet.change(row, next, entries=2, consumed=[no])
    [first] = await puppet.send(change)
    after = (await engine.live(key), await engine.journal(key))
    assert first.done is (next is not Next.KEEP)

    [second] = await puppet.send(change)

    assert second.accepted and second.done is first.done
    assert (await engine.live(key), await engine.journal(key)) == after
    assert (await engine.kinds(key)).count(Kind.LOG) == 2


@pytest.mark.parametrize("next", [Next.SETTLE_PAUSE, Next.RELEASE, Next.COMPLETE, Next.ERRORED])
async def test_a_last_flush_sent_again_tells_the_holder_that_it_is_over(
    engine: Engine, puppet: Puppet, next: Next
) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    if next is Next.SETTLE_PAUSE:
        await engine.client.pause(engine.account, key)
    change = puppet.change(row, next, entries=1, body="1")
    await puppet.send(change)
    after = (await engine.live(key), await engine.journal(key), await engine.admin.fetch("select * from counter"))
    assert not (await puppet.send(change))[0].accepted
    assert (
        await engine.live(key),
        await engine.journal(key),
        await engine.admin.fetch("select * from counter"),
    ) == after


async def test_a_refused_park_sent_again_stays_refused(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await engine.client.send_event(engine.account, key, "go", None)
    change = puppet.change(row, Next.PARK, entries=1)
    for _ in range(2):
        [answer] = await puppet.send(change)
        assert answer.accepted and not answer.done
    assert (await engine.kinds(key)).count(Kind.LOG) == 1


async def test_an_older_flush_that_arrives_late_is_not_applied(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    first, second = puppet.change(row, entries=1), puppet.change(row, entries=1)
    await puppet.send(second)
    await puppet.send(first)
    assert (await engine.kinds(key)).count(Kind.LOG) == 1


async def test_runs_whose_flushes_lose_their_answers_write_each_entry_once(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    unreliable.lose(store.FLUSH, times=30, every=2)
    await engine.worker(db=unreliable)
    await engine.define("w", twenty_steps)
    keys = await engine.create_many("w", 5)
    for key in keys:
        await engine.until(key, Status.COMPLETE)
        journal = await engine.journal(key)
        assert [row["seq"] for row in journal] == list(range(1, len(journal) + 1))
        counts = Counter(row["kind"] for row in journal)
        assert counts == {
            Kind.QUEUED: 1,
            Kind.STARTED: 1,
            Kind.STEP_STARTED: 20,
            Kind.STEP_COMPLETED: 20,
            Kind.COMPLETED: 1,
        }
    assert unreliable.statements[store.FLUSH] > 60


async def test_the_journal_writer_survives_the_death_of_its_connection(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """A real death: the server ends the session, at any moment."""
    await engine.worker(db=unreliable)
    await engine.define("w", twenty_steps)
    keys = await engine.create_many("w", 3)
    kill = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where application_name = 'millrace-journal' and datname = current_database()"
    )
    for _ in range(8):
        assert await engine.admin.fetchval(kill) in (0, 1)
        await asyncio.sleep(0.05)
    for key in keys:
        await engine.until(key, Status.COMPLETE)
        assert len(await engine.journal(key)) == 43


# --- claims ----------------------------------------------------------------------------------------------------


async def test_runs_of_a_lost_claim_are_given_back(engine: Engine, unreliable: UnreliableDatabase) -> None:
    """The database says the worker holds them; it does not know. They would eat the account's slots for ever."""
    await engine.admin.execute("update account set concurrency = 1")
    unreliable.lose(store.CLAIM, times=2)
    await engine.define("w", one_step)
    keys = await engine.create_many("w", 3)
    with capture_logs() as lines:
        worker = await engine.worker(db=unreliable, lease_seconds=0.6)
        for key in keys:
            await engine.until(key, Status.COMPLETE)
    assert worker.held == 0
    assert [line["runs"] for line in lines if line["event"] == GAVE_BACK] == [1, 1]


async def test_a_claim_that_is_on_its_way_is_not_given_back(engine: Engine, unreliable: UnreliableDatabase) -> None:
    arrived, looked = asyncio.Event(), asyncio.Event()

    async def slow_claim(sent: str, answer: Any) -> None:
        if sent == store.CLAIM and len(answer) > 1:
            await arrived.wait()
        elif sent == store.HELD and answer:
            looked.set()

    unreliable.hooks.append(slow_claim)
    await engine.define("w", one_step)
    key = await engine.create("w")
    await engine.worker(db=unreliable, lease_seconds=0.1)
    await looked.wait()
    await asyncio.sleep(0.05)
    arrived.set()
    await engine.until(key, Status.COMPLETE)
    assert unreliable.statements[store.GIVE_BACK] == 0
    journal = await engine.journal(key)
    assert [row["kind"] for row in journal].count(Kind.STARTED) == 1


async def test_a_run_that_leaves_while_its_worker_looks_is_no_lost_claim(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """What was read says that it is held, and by the time it is compared the run has left: nothing to tell anybody."""
    gate, read = asyncio.Event(), asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        await gate.wait()
        return None

    async def leave(sent: str, answer: Any) -> None:
        if sent == store.HELD and answer and not read.is_set():
            read.set()
            gate.set()
            await engine.eventually(lambda: worker.held == 0)

    await engine.define("w", one_step, body)
    key = await engine.create("w")
    with capture_logs() as lines:
        worker = await engine.worker(db=unreliable, lease_seconds=0.6)
        await engine.eventually(lambda: worker.held == 1)
        unreliable.hooks.append(leave)
        await engine.eventually(lambda: unreliable.statements[store.GIVE_BACK])
        renewals = unreliable.statements[store.RENEW]
        await engine.eventually(lambda: unreliable.statements[store.RENEW] > renewals)
        await engine.until(key, Status.COMPLETE)
    assert GAVE_BACK not in [line["event"] for line in lines]


# --- creates and events ----------------------------------------------------------------------------------------


@pytest.fixture
async def client(engine: Engine, unreliable: UnreliableDatabase) -> Any:
    client = EngineClient(unreliable, engine.clock, engine.bell)
    await client.start()
    yield client
    await client.stop()


async def test_a_create_sent_again_succeeds_and_tells_others_apart(
    engine: Engine, unreliable: UnreliableDatabase, client: EngineClient
) -> None:
    await engine.define("w", one_step)
    await engine.create("w", id="taken")
    unreliable.lose(store.CREATE)

    def item(id: str) -> NewInstance:
        return NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id=id, handle="w")

    items = [item("mine"), item("taken"), item("mine"), item("also mine")]
    answers = await client.create(items)
    assert unreliable.statements[store.CREATE] == 2
    assert [a.outcome for a in answers] == [Create.CREATED, Create.EXISTS, Create.DUPLICATE, Create.CREATED]
    assert answers[0].no is not None and answers[0].workflow_key is not None
    assert await engine.kinds(items[0].key) == [Kind.QUEUED]
    assert await engine.admin.fetchval("select count(*) from live") == 3


async def test_a_create_sent_again_succeeds_even_when_its_instance_is_done(
    engine: Engine, unreliable: UnreliableDatabase, client: EngineClient
) -> None:
    """The run may be over before the second try: that is no reason to run it again, or to refuse."""
    await engine.define("w", one_step)
    await engine.worker()
    unreliable.lose(store.CREATE)

    async def ended(sent: str, _: Any) -> None:
        if sent == store.CREATE:
            engine.workers[0].wake()
            await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 1 from instance where status = 6"))

    unreliable.hooks.insert(0, ended)
    [answer] = await client.create(
        [NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id="x", handle="w")]
    )
    assert answer.outcome is Create.CREATED
    assert (await engine.admin.fetchval("select count(*) from instance")) == 1


async def test_an_event_sent_again_is_one_event(
    engine: Engine, unreliable: UnreliableDatabase, client: EngineClient
) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    unreliable.lose(store.SEND_EVENTS)
    sends = [client.send_event(engine.account, key, "t", str(n)) for n in range(3)]
    assert await asyncio.gather(*sends) == [SendEvent.STORED] * 3
    assert unreliable.statements[store.RECEIVED] == 1
    rows = await engine.admin.fetch("select payload from inbox order by no")
    assert [row["payload"] for row in rows] == ["0", "1", "2"]


async def test_an_event_sent_again_after_it_was_consumed_is_one_event(
    engine: Engine, unreliable: UnreliableDatabase, client: EngineClient
) -> None:
    """A fast worker reads it before the sender tries again: the second wait must not get it, too."""

    def script(run: RunContext) -> Steps:
        yield [wait("w", "go", 1)]
        yield [wait("w", "go", 2)]
        return "1"

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    unreliable.lose(store.SEND_EVENTS)

    async def consumed(sent: str, _: Any) -> None:
        if sent == store.SEND_EVENTS and unreliable.statements[sent] == 1:
            engine.workers[0].wake()
            await engine.written(key, Kind.WAIT_COMPLETED)

    unreliable.hooks.insert(0, consumed)
    assert await client.send_event(engine.account, key, "go", None) is SendEvent.STORED
    assert unreliable.statements[store.SEND_EVENTS] == 1, "the journal was asked first"
    await engine.until(key, Status.WAITING)
    assert (await engine.kinds(key)).count(Kind.EVENT_RECEIVED) == 1


async def test_a_writer_whose_server_is_away_goes_on_when_it_is_back(
    engine: Engine, unreliable: UnreliableDatabase, client: EngineClient
) -> None:
    await engine.define("w", one_step)
    away = 3

    async def refused(sent: str, _: Any) -> None:
        nonlocal away
        if sent == store.CREATE and away:
            away -= 1
            raise asyncpg.CannotConnectNowError("the database system is starting up")

    unreliable.hooks.append(refused)
    [answer] = await client.create(
        [NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id="x", handle="w")]
    )
    assert answer.outcome is Create.CREATED
    assert away == 0
