"""Many writers over the same rows: no deadlock, no number twice, and one bad change harms nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.client import EngineClient
from instances.engine.group_commit import Unstorable
from instances.engine.journal_writer import Flush, JournalWriter, Next
from instances.engine.requests import NewInstance, SendEvent
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import Attempt, Do, RunContext
from tests.support.engine import Engine, step
from tests.support.invariants import consistent
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, calls_child, one_step
from tests.support.unreliable import UnreliableDatabase

# --- locks -----------------------------------------------------------------------------------------------------


class Crowd:
    """Connections that touch the same runs in every way there is, in random order.

    They forgive no error but the one that says that a family grew while it was being locked: send it again.
    """

    def __init__(self, engine: Engine, parents: dict[UUID, UUID | None], seed: int) -> None:
        self.engine = engine
        self.parents = parents
        self.keys = list(parents)
        self.dice = random.Random(seed)
        self.done = self.again = 0
        self.stop = False

    def some(self, n: int) -> list[UUID]:
        return self.dice.sample(self.keys, n)

    async def repeat(self, act: Callable[[Puppet], Awaitable[Any]]) -> None:
        puppet = await Puppet.enter(self.engine)
        while not self.stop:
            try:
                await act(puppet)
                self.done += 1
            except asyncpg.SerializationError:
                self.again += 1

    async def flush(self, puppet: Puppet) -> None:
        rows = await puppet.connection.fetch(
            "select l.*, i.parent_key from live l join instance i using (account_id, key) where l.key = any ($1)",
            self.some(15),
        )
        nexts = (Next.KEEP, Next.KEEP, Next.PARK, Next.RELEASE, Next.COMPLETE, Next.ERRORED, Next.ROLL_BACK)
        await puppet.send(*(puppet.change(row, self.dice.choice(nexts), entries=1) for row in rows))

    async def events(self, puppet: Puppet) -> None:
        keys = sorted(self.some(15), key=lambda key: self.dice.random())
        n = len(keys)
        account, now = self.engine.account, self.engine.clock.now()
        await puppet.connection.fetch(
            store.SEND_EVENTS, [account] * n, keys, ["t"] * n, ["1"] * n, [None] * n, 50, 10_000, now
        )

    async def terminate(self, puppet: Puppet) -> None:
        await puppet.connection.fetch(
            store.TERMINATE, self.engine.account, self.some(8), self.dice.random() < 0.5, self.engine.clock.now()
        )

    async def command(self, puppet: Puppet) -> None:
        statement = self.dice.choice([store.PAUSE, store.RESUME, store.ROLL_BACK])
        await puppet.connection.fetch(statement, self.engine.account, self.some(1)[0], self.engine.clock.now())

    async def restart(self, puppet: Puppet) -> None:
        await puppet.connection.fetch(
            store.RESTART, self.engine.account, self.some(1)[0], None, None, self.engine.clock.now()
        )

    async def delete(self, puppet: Puppet) -> None:
        """And create them anew, under the same keys."""
        keys = self.some(2)
        account, now = self.engine.account, self.engine.clock.now()
        await puppet.connection.fetch(store.DELETE, account, keys, now)
        for key in keys:
            parent = self.parents.get(key)
            await puppet.connection.fetch(
                store.CREATE,
                *([account], ["w"], [key], [str(key)], [None], [1], [None], [None], [None], [None], [parent]),
                *([None], [int(parent is not None)], [None], now, [parent], [None], [None]),
            )

    async def claim(self, puppet: Puppet) -> None:
        await puppet.claim(self.dice.randint(1, 20))

    async def take_over(self, puppet: Puppet) -> None:
        await puppet.connection.execute(
            "delete from worker where id = (select owner from live where phase = 1 limit 1)"
        )
        await puppet.take_over()
        now = self.engine.clock.now()
        held = await puppet.connection.fetch("select account_id, key, epoch, owner from live where phase = 1 limit 5")
        for row in held:
            await puppet.connection.execute(
                store.GIVE_BACK, row["owner"], [row["account_id"]], [row["key"]], [row["epoch"]], now
            )


async def family(engine: Engine) -> dict[UUID, UUID | None]:
    """Ten parents with two children each, and the parents' keys lie between those of the children."""
    await engine.define("w", one_step)
    elder = [engine.ids.uuid7() for _ in range(10)]
    parents: dict[UUID, UUID | None] = {}
    for parent in await engine.create_many("w", 10):
        parents[parent] = None
        for key in (elder.pop(), engine.ids.uuid7()):
            parents[key] = parent
            item = NewInstance(
                account_id=engine.account, key=key, instance_id=str(key), handle="w", parent_key=parent, depth=1
            )
            await engine.client.create([item])
    return parents


async def test_overlapping_statements_never_deadlock(engine: Engine) -> None:
    """Bare connections: a deadlock would be an error here, and it would be counted by the server."""
    seed = 20260101
    crowd = Crowd(engine, await family(engine), seed)
    acts = [
        crowd.flush,
        crowd.events,
        crowd.terminate,
        crowd.command,
        crowd.restart,
        crowd.claim,
        crowd.take_over,
        crowd.delete,
    ]
    people = [asyncio.create_task(crowd.repeat(act)) for act in (*acts, crowd.flush, crowd.events)]
    _done, _ = await asyncio.wait(people, timeout=3, return_when=asyncio.FIRST_EXCEPTION)
    crowd.stop = True
    await asyncio.gather(*people)
    assert crowd.done > 100 > crowd.again
    await engine.admin.execute("select pg_stat_clear_snapshot()")
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert await engine.admin.fetchval(deadlocks) == 0
    await consistent(engine.admin)


async def twins(engine: Engine) -> tuple[asyncpg.Connection, asyncpg.Connection]:
    """Two connections that count in the same rows."""
    seen: dict[int, asyncpg.Connection] = {}
    while True:
        connection = await engine.db.dedicated("twin")
        other = seen.setdefault(connection.get_server_pid() % 15, connection)
        if other is not connection:
            for each in seen.values():
                if each is not other:
                    await each.close()
            return other, connection


@pytest.mark.parametrize("restart_first", [True, False])
async def test_a_restart_and_a_deletion_of_one_instance_come_one_after_the_other(
    engine: Engine, restart_first: bool
) -> None:
    """Both touch the instance and its counter; in different order they would wait for each other."""
    await engine.define("w", one_step)
    finished, running = await engine.create_many("w", 2)
    await engine.client.terminate(engine.account, finished)
    restarting, deleting = await twins(engine)
    now = engine.clock.now()

    async def delete() -> None:
        try:
            await deleting.fetch(store.DELETE, engine.account, [finished, running], now)
        except asyncpg.SerializationError:  # restarted meanwhile: it is to be sent again
            await deleting.fetch(store.DELETE, engine.account, [finished, running], now)

    async def restart() -> None:
        await restarting.fetch(store.RESTART, engine.account, finished, None, None, now)

    acts = [(restart, restarting), (delete, deleting)]
    async with engine.admin.transaction():
        await engine.admin.execute("select from instance where key = $1 for update", finished)
        tasks: list[asyncio.Task[None]] = []
        for act, connection in acts if restart_first else reversed(acts):
            tasks.append(asyncio.create_task(act()))
            await engine.blocked(connection)
    await asyncio.gather(*tasks)
    for table in ("instance", "live", "journal"):
        assert await engine.admin.fetchval(f"select count(*) from {table}") == 0, "deleted is deleted"
    await restarting.close()
    await deleting.close()
    await consistent(engine.admin)


async def test_a_deadlock_is_retried_and_reaches_nobody(engine: Engine, unreliable: UnreliableDatabase) -> None:
    """There is none by construction; should there be one, the statement is sent again as a whole."""
    client = EngineClient(unreliable, engine.clock, engine.bell)
    await client.start()
    raised = 0

    async def deadlock(sent: str, _: Any) -> None:
        nonlocal raised
        if sent in (store.SEND_EVENTS, store.PAUSE, store.FLUSH) and raised < 6:
            raised += 1
            if raised % 2:
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            raise asyncpg.SerializationError("could not serialize access")

    await engine.define("w", one_step)
    key = await engine.create("w")
    unreliable.hooks.append(deadlock)
    # The hook comes after the commit, so the second try finds its work done; what counts is that nobody hears of it.
    assert await client.send_event(engine.account, key, "t", None, dedupe="d") is SendEvent.DUPLICATE
    assert raised == 6
    unreliable.hooks.remove(deadlock)
    raised = 0
    unreliable.hooks.append(deadlock)
    assert (await client.pause(engine.account, key)).status is Status.PAUSED
    await client.stop()


# --- numbers ---------------------------------------------------------------------------------------------------


async def test_entries_of_all_writers_share_one_sequence(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    other = EngineClient(engine.db, engine.clock, engine.bell)
    await other.start()

    async def flushes() -> None:
        for _ in range(20):
            assert (await puppet.flush(row, entries=3)).accepted

    async def events(client: EngineClient) -> None:
        for _ in range(20):
            await client.send_event(engine.account, key, "t", None)

    async def commands() -> None:
        for _ in range(10):
            await engine.client.pause(engine.account, key)
            await engine.client.resume(engine.account, key)

    await asyncio.gather(flushes(), events(engine.client), events(other), commands())
    journal = await engine.journal(key)
    assert [entry["seq"] for entry in journal] == list(range(1, 1 + 1 + 60 + 40 + 20))
    await consistent(engine.admin)
    await other.stop()


async def test_the_sequence_goes_on_over_restarts_and_ends(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    for n in range(3):
        row = await puppet.claim_one()
        await puppet.flush(row, Next.COMPLETE if n % 2 else Next.ERRORED, entries=2, body="1")
        await engine.client.restart(engine.account, key)
    assert [entry["seq"] for entry in await engine.journal(key)] == list(range(1, 1 + 1 + 3 * 4))
    assert [entry["run"] for entry in await engine.journal(key)] == [1] * 4 + [2] * 4 + [3] * 4 + [4]
    await consistent(engine.admin)


# --- data ------------------------------------------------------------------------------------------------------

UNSTORABLE = '"a \0 in the middle"'


async def test_only_the_run_whose_change_cannot_be_stored_fails(engine: Engine) -> None:
    async def body(do: Do, _: Attempt) -> str | None:
        return UNSTORABLE if do.data == "7" else '"fine"'

    def script(run: RunContext) -> Steps:
        yield [step("a", data=run.input)]
        yield [step("b")]
        return "1"

    await engine.define("w", script, body)
    keys = [await engine.create("w", input=str(n)) for n in range(12)]
    worker = await engine.worker()
    for n, key in enumerate(keys):
        row = await engine.until(key, Status.ERRORED if n == 7 else Status.COMPLETE)
        if n == 7:
            assert "WorkflowInternalError" in row["error"]
    assert await engine.kinds(keys[7]) == [Kind.QUEUED, Kind.STARTED, Kind.STEP_STARTED, Kind.ERRORED]
    await engine.eventually(lambda: worker.held == 0 and worker.writer.backlog == 0)
    await consistent(engine.admin)


async def test_a_bad_change_fails_alone_and_the_rest_of_its_batch_commits(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    await engine.create_many("w", 9)
    rows = await puppet.claim()
    writer = JournalWriter(lambda: engine.db.dedicated("writer"), engine.clock)
    await writer.start()
    changes = [puppet.change(row, entries=1) for row in rows]
    for bad in (0, 4, 8):
        changes[bad].entries = [puppet.entry(UNSTORABLE)]
    answers = await asyncio.gather(*(writer.submit(change) for change in changes), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Unstorable)] == [0, 4, 8]
    assert await engine.admin.fetchval("select count(*) from journal where kind = $1", int(Kind.LOG)) == 6
    assert writer.backlog == 0
    await writer.stop()
    await consistent(engine.admin)


async def test_a_change_that_cannot_be_stored_is_not_quoted_in_the_log(
    engine: Engine, puppet: Puppet, capsys: pytest.CaptureFixture[str]
) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    for payload in ("secret \ud800", "secret \0"):
        with pytest.raises(Unstorable):
            await engine.client.send_event(engine.account, key, "t", payload)
    said = capsys.readouterr()
    assert "cannot be stored" in said.out + said.err
    assert "secret" not in said.out + said.err


async def test_a_dead_connection_is_replaced(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    kill = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = any ($1)"
        " and datname = current_database()"
    )
    for _ in range(3):
        killed: Any = await engine.admin.fetchval(kill, ["millrace-create", "millrace-event", "millrace-engine"])
        assert killed >= 2
        assert await engine.client.send_event(engine.account, key, "t", None) is SendEvent.STORED
        await engine.create("w")


# --- bounds ----------------------------------------------------------------------------------------------------


async def test_a_batch_is_bounded_and_cut_between_changes(engine: Engine, unreliable: UnreliableDatabase) -> None:
    await engine.define("w", one_step)
    await engine.create_many("w", 40)
    puppet = await Puppet.enter(engine)
    rows = await puppet.claim()
    writer = JournalWriter(lambda: unreliable.dedicated("writer"), engine.clock)
    await writer.start()
    sizes: list[int] = []

    async def measure(sent: str, answer: Any) -> None:
        if sent == store.FLUSH:
            sizes.append(len(answer))

    unreliable.hooks.append(measure)
    await asyncio.gather(*(writer.submit(puppet.change(row, entries=300)) for row in rows))
    assert sum(sizes) == 40
    assert max(sizes) == 3, "1,000 entries at most, and no change in two statements"
    huge: Flush = puppet.change(rows[0])
    huge.entries = [puppet.entry("x" * (5 << 20))]
    assert (await writer.submit(huge)).accepted, "a change may exceed the bound alone"
    await writer.stop()


async def test_claims_stop_while_the_writer_is_far_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.define("w", one_step)
    worker = await engine.worker()
    worker.writer.backlog = 4_001
    key = await engine.create("w")
    await asyncio.sleep(0.1)
    assert await engine.status(key) is Status.QUEUED
    worker.writer.backlog = 4_000
    await engine.until(key, Status.COMPLETE)


async def test_parents_and_children_in_one_crowd_complete(engine: Engine) -> None:
    """The whole engine: flushes of children lock their parents' rows."""
    await engine.define("child", one_step)
    await engine.define("parent", calls_child)
    for _ in range(2):
        await engine.worker()
    keys = await engine.create_many("parent", 40)
    for key in keys:
        await engine.until(key, Status.COMPLETE)
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert await engine.admin.fetchval(deadlocks) == 0
    await consistent(engine.admin)
