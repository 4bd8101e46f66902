"""Who lost a run writes nothing: takeovers, commands that end or replace a run, leases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.client import Control
from instances.engine.journal_writer import Next
from instances.engine.requests import Create, NewInstance
from instances.engine.runs import breath
from instances.lifecycle import Kind, Phase, Status
from instances.runtimes.protocol import Attempt, CommandMessage, Do, Message, Retry, RunContext, StoredVersion
from tests.support import engine as harness
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, one_step, outcome, wait
from tests.support.unreliable import UnreliableDatabase

TRANSITIONS = [Next.KEEP, Next.PARK, Next.SETTLE_PAUSE, Next.ROLL_BACK, Next.RELEASE, Next.COMPLETE, Next.ERRORED]


@pytest.mark.parametrize("next", TRANSITIONS)
async def test_a_stale_flush_that_waits_for_a_takeover_writes_nothing(engine: Engine, next: Next) -> None:
    """The flush was sent before the takeover committed: its snapshot still shows the old epoch."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    holder, heir = await Puppet.enter(engine, lease=1), await Puppet.enter(engine)
    row = await holder.claim_one()
    engine.clock.advance(2)
    takeover = heir.connection.transaction()
    await takeover.start()
    assert await heir.take_over() == [(engine.account, key)]
    stale = asyncio.create_task(holder.send(holder.change(row, next, entries=2)))
    await engine.blocked(holder.connection)
    await takeover.commit()
    before = await engine.live(key)

    [answer] = await stale

    assert not answer.accepted
    assert not answer.done
    assert await engine.kinds(key) == [Kind.QUEUED]
    assert await engine.live(key) == before
    assert before["status"] == Status.QUEUED and before["takeovers"] == 1
    # The heir's first entry gets the number the stale one would have had.
    [again] = await heir.claim()
    await heir.flush(again, entries=1)
    assert [r["seq"] for r in await engine.journal(key)] == [1, 2]


async def test_a_stale_change_in_a_batch_does_not_harm_the_others(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    keys = await engine.create_many("w", 3)
    rows = {row["key"]: row for row in await puppet.claim()}
    await engine.client.terminate(engine.account, keys[1])
    answers = await puppet.send(*(puppet.change(rows[key], Next.COMPLETE, entries=1, body="1") for key in keys))
    assert [answer.accepted for answer in answers] == [True, False, True]
    assert [await engine.status(key) for key in keys] == [Status.COMPLETE, Status.TERMINATED, Status.COMPLETE]
    assert await engine.kinds(keys[1]) == [Kind.QUEUED, Kind.TERMINATED]


Command = Callable[[Engine, UUID], Awaitable[Any]]


async def _terminate(engine: Engine, key: UUID) -> None:
    assert (await engine.client.terminate(engine.account, key)).status is Status.TERMINATED


async def _terminate_many(engine: Engine, key: UUID) -> None:
    assert await engine.client.terminate_many(engine.account, [key]) == 1


async def _restart(engine: Engine, key: UUID) -> None:
    assert (await engine.client.restart(engine.account, key)).outcome is Control.DONE


async def _restart_from(engine: Engine, key: UUID) -> None:
    assert (await engine.client.restart(engine.account, key, from_seq=2)).outcome is Control.DONE


async def _delete(engine: Engine, key: UUID) -> None:
    assert await engine.client.delete(engine.account, [key]) == {key}


async def _take_over(engine: Engine, key: UUID) -> None:
    heir = await Puppet.enter(engine)
    await engine.admin.execute("delete from worker where id <> $1", heir.worker_id)
    assert await heir.take_over() == [(engine.account, key)]


async def _give_back(engine: Engine, key: UUID) -> None:
    row = await engine.live(key)
    assert row is not None
    await engine.db.engine.execute(
        store.GIVE_BACK, row["owner"], [engine.account], [key], [row["epoch"]], engine.clock.now()
    )


FENCES: list[Command] = [_terminate, _terminate_many, _restart, _restart_from, _delete, _take_over, _give_back]


@pytest.mark.parametrize("next", [Next.KEEP, Next.PARK, Next.COMPLETE, Next.ERRORED])
@pytest.mark.parametrize("command", FENCES, ids=lambda f: f.__name__.strip("_"))
async def test_what_ends_or_replaces_a_run_fences_its_holder(
    engine: Engine, puppet: Puppet, command: Command, next: Next
) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, entries=1)
    await command(engine, key)
    before = (await engine.live(key), await engine.journal(key), await _instance(engine, key))
    assert before[0] is None or before[0]["epoch"] > row["epoch"]

    assert not (await puppet.flush(row, next, entries=1, body='"stale"')).accepted

    assert (await engine.live(key), await engine.journal(key), await _instance(engine, key)) == before


async def _instance(engine: Engine, key: UUID) -> asyncpg.Record | None:
    return await engine.admin.fetchrow("select * from instance where key = $1", key)


async def test_an_epoch_is_never_used_twice(engine: Engine, puppet: Puppet) -> None:
    """Not even for a key that was deleted and created anew, as the child of a restarted parent may be."""
    await engine.define("w", one_step)
    key, seen = engine.ids.uuid7(), []

    async def create() -> None:
        item = NewInstance(account_id=engine.account, key=key, instance_id="x", handle="w")
        [created] = await engine.client.create([item])
        assert created.outcome is Create.CREATED

    async def epoch() -> None:
        row = await engine.live(key)
        assert row is not None
        seen.append(row["epoch"])

    for _ in range(2):
        await create()
        await epoch()
        for command in (_restart, _give_back, _take_over):
            puppet = await Puppet.enter(engine)
            await puppet.claim_one()
            await epoch()
            await command(engine, key)
            await epoch()
        await engine.client.delete(engine.account, [key])
    assert seen == sorted(set(seen))


async def test_pause_resume_and_rollback_requests_leave_the_run_to_its_holder(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await engine.client.pause(engine.account, key)
    await engine.client.resume(engine.account, key)
    await engine.client.terminate(engine.account, key, rollback=True)
    live = await engine.live(key)
    assert live is not None
    assert (live["epoch"], live["owner"]) == (row["epoch"], puppet.worker_id)
    assert (await puppet.flush(row, entries=1)).accepted


async def test_old_and_new_holder_in_one_batch_get_their_own_answers(engine: Engine, puppet: Puppet) -> None:
    """A worker that still drives the old run when it claims the new one flushes both at once."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    old = await puppet.claim_one()
    await engine.client.restart(engine.account, key)
    new = await puppet.claim_one()
    for pair in ((old, new), (new, old)):
        answers = await puppet.send(*(puppet.change(row, entries=1) for row in pair))
        assert [answer.accepted for answer in answers] == [row is new for row in pair]
    assert (await engine.kinds(key)).count(Kind.LOG) == 2


async def test_a_restart_while_a_step_runs_drops_what_the_old_run_does(engine: Engine) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    entered: list[Attempt] = []

    async def body(_: Do, attempt: Attempt) -> str | None:
        n = len(entered)
        entered.append(attempt)
        await gates[n].wait()
        return f'"run {n + 1}"'

    worker = await engine.worker()
    await engine.define("w", one_step, body)
    key = await engine.create("w")
    await engine.eventually(lambda: len(entered) == 1)
    await engine.client.restart(engine.account, key)
    await engine.eventually(lambda: len(entered) == 2)
    gates[0].set()
    await asyncio.sleep(0.05)
    assert await engine.status(key) is Status.RUNNING
    gates[1].set()
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"run 2"'
    await engine.eventually(lambda: worker.held == 0)


async def test_a_frozen_workers_runs_resume_elsewhere_and_it_starts_anew(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """The lease is over while the process stands still; thawed, it finds its flush refused and registers again."""
    attempts: list[int] = []
    gate = asyncio.Event()

    async def body(_: Do, attempt: Attempt) -> str | None:
        attempts.append(attempt.number)
        if len(attempts) > 1:
            return '"heir"'
        await gate.wait()
        return '"frozen"'

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a", retry=Retry(3, 0))]
        return outcome(message)

    await engine.define("w", script, body)
    frozen = await engine.worker(db=unreliable)
    first_id = frozen.worker_id
    key = await engine.create("w")
    await engine.written(key, Kind.STEP_STARTED)
    unreliable.freeze()
    gate.set()
    heir = await engine.worker()
    engine.clock.advance(7)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"heir"'
    assert attempts == [1, 2]
    written = await engine.journal(key)

    unreliable.thaw()

    await engine.eventually(lambda: frozen.worker_id != first_id and frozen.held == 0)
    assert await engine.journal(key) == written
    await heir.drain(0)
    await engine.until(await engine.create("w"), Status.COMPLETE)


@pytest.mark.parametrize("how", ["its lease is over", "its session is gone"])
async def test_a_worker_that_comes_back_begins_nothing_others_may_have_done(
    engine: Engine, unreliable: UnreliableDatabase, how: str
) -> None:
    """Frozen between a commit and its answer: what follows from the answer has been done elsewhere since."""
    began: list[str] = []
    committed, thawed = asyncio.Event(), asyncio.Event()

    async def body(do: Do, _: Attempt) -> str | None:
        began.append(do.key.name)
        return f'"{do.key.name}"'

    def script(run: RunContext) -> Steps:
        for name in "ab":
            [message] = yield [step(name, retry=Retry(3, 0))]
        return outcome(message)

    async def stand_still(sent: str, _: Any) -> None:
        if sent == store.FLUSH and not thawed.is_set() and Kind.STEP_COMPLETED in await engine.kinds(key):
            committed.set()
            await thawed.wait()

    await engine.define("w", script, body)
    unreliable.hooks.append(stand_still)
    key = await engine.create("w")
    frozen = await engine.worker(db=unreliable)
    await committed.wait()
    unreliable.freeze()
    if how == "its session is gone":
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millrace-lease'"
        await engine.admin.execute(f"{kill} and datname = current_database()")
    await engine.worker()
    engine.clock.advance(2 if how == "its session is gone" else 7)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"b"'
    unreliable.thaw()
    thawed.set()
    await engine.eventually(lambda: frozen.held == 0)
    assert began == ["a", "b"]


async def test_nothing_is_claimed_in_the_name_of_a_worker_that_is_no_more(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """It lost its lease and registers again, which takes a while. What it claimed meanwhile would not be its own."""
    began: list[str] = []
    asked, answered = asyncio.Event(), asyncio.Event()

    async def body(do: Do, _: Attempt) -> str | None:
        began.append(do.key.name)
        return None

    async def take_long(sent: str, _: Any) -> None:
        if sent == store.REGISTER:
            asked.set()
            await answered.wait()

    await engine.define("w", one_step, body)
    worker = await engine.worker(db=unreliable, lease_seconds=0.1)
    unreliable.hooks.append(take_long)
    await engine.admin.execute("delete from worker")
    await asked.wait()
    key = await engine.create("w")
    worker.wake()
    await asyncio.sleep(0.05)
    assert (await engine.live(key))["phase"] == Phase.READY  # type: ignore[index]
    heir = await engine.worker()
    await engine.until(key, Status.COMPLETE)
    answered.set()
    await engine.until(await engine.create("w"), Status.COMPLETE)
    await heir.drain(0)
    await engine.until(await engine.create("w"), Status.COMPLETE)
    assert began == ["a"] * 3


async def test_a_worker_that_is_not_sure_of_its_lease_renews_it_and_goes_on(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """It does not wait for the next renewal, and no longer than the database is away."""
    began: list[str] = []

    async def body(do: Do, _: Attempt) -> str | None:
        began.append(do.key.name)
        return None

    def script(run: RunContext) -> Steps:
        yield [wait("w", "go")]
        yield [step("a")]
        return "1"

    await engine.define("w", script, body)
    worker = await engine.worker(db=unreliable, lease_seconds=600)
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    assert worker.certain
    engine.clock.advance(599)
    assert not worker.certain
    await engine.client.send_event(engine.account, key, "go", None)
    await engine.until(key, Status.COMPLETE, seconds=5)
    assert worker.certain
    assert began == ["a"]


async def test_a_worker_that_only_missed_renewals_keeps_its_runs(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """The lease is over, but nobody took the runs: the row is still there, and so is the right to them."""
    gate = asyncio.Event()

    async def body(_: Do, attempt: Attempt) -> str | None:
        await gate.wait()
        return str(attempt.number)

    await engine.define("w", one_step, body)
    worker = await engine.worker(db=unreliable)
    first_id = worker.worker_id
    key = await engine.create("w")
    await engine.written(key, Kind.STEP_STARTED)
    unreliable.freeze()
    engine.clock.advance(60)
    unreliable.thaw()
    gate.set()
    assert (await engine.until(key, Status.COMPLETE))["output"] == "1"
    assert worker.worker_id == first_id


async def test_a_run_lost_while_its_session_has_its_turn_begins_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn may be had in another process; what it answers is nobody's business any more, however soon it comes."""
    monkeypatch.setattr(breath, "BREATH", 60)
    turning, turned = asyncio.Event(), asyncio.Event()
    begun: list[str] = []

    class Session(harness._Session):
        async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
            commands = await super().turn(messages)
            turning.set()
            await turned.wait()
            return commands

    class Program(harness._Program):
        async def start(self, run: RunContext, wake: Callable[[], None]) -> Session:
            return Session(self._script(run), self._body)

    class Runtime(harness.ScriptRuntime):
        async def open(self, version: StoredVersion) -> Program:
            return Program(*self.scripts[version.source])

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a", retry=Retry(3))]
        return outcome(message)

    async def body(do: Do, _: Attempt) -> str | None:
        begun.append(do.key.name)
        return None

    engine.runtime = Runtime()
    await engine.define("w", script, body)
    worker = await engine.worker(lease_seconds=0.6)
    key = await engine.create("w")
    await turning.wait()
    await engine.client.terminate(engine.account, key)
    await engine.eventually(lambda: all(run._work.fenced for run in worker._runs))
    turned.set()
    await engine.eventually(lambda: worker.held == 0)
    assert begun == []
