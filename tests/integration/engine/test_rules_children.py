"""Children: made once, whatever dies; their end reaches the parent, however it comes about; none is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.client import Create, Created, EngineClient, NewInstance
from instances.engine.journal_writer import Next
from instances.engine.runs import children
from instances.engine.runs.children import MAX_DEPTH
from instances.lifecycle import Control, Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    BeginRollback,
    Broken,
    Cancel,
    Child,
    Do,
    EndRollback,
    Fail,
    Failure,
    Retry,
    RollbackRequested,
    RunContext,
    StepFailure,
    StepKey,
    StepKind,
)
from jobs.doorbell import NoDoorbell
from jobs.retention.retiring import RetireInstances
from jobs.termination.requests import TerminationJobs
from jobs.termination.terminator import Terminator
from tests.support.engine import Engine, Script, ScriptFailed, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, calls_child, nap, one_step, outcome, wait

DAY = 86_400


def can_be_undone(run: RunContext) -> Steps:
    """Waits for `go`; asked to roll back, it waits for `undone` first."""
    [message] = yield [wait("w", "go")]
    if isinstance(message, RollbackRequested):
        yield [wait("undo", "undone", seconds=DAY)]
        yield [EndRollback(True)]
    return outcome(message)


async def kids_of(engine: Engine, parent: UUID) -> list[UUID]:
    rows = await engine.admin.fetch("select key from instance where parent_key = $1 order by created_at, key", parent)
    return [row["key"] for row in rows]


async def kid_of(engine: Engine, parent: UUID) -> UUID:
    """The one child of a parent, once it is there."""
    [kid] = await engine.eventually(lambda: kids_of(engine, parent))
    return kid


async def waiting_family(engine: Engine, child: Script = awaits_go, parent: Script = calls_child) -> tuple[UUID, UUID]:
    """A parent that waits, and its child that waits."""
    await engine.define("child", child)
    await engine.define("parent", parent)
    await engine.worker()
    key = await engine.create("parent")
    await engine.until(key, Status.WAITING)
    kid = await kid_of(engine, key)
    await engine.until(kid, Status.WAITING)
    return key, kid


async def nothing_is_left(engine: Engine) -> None:
    await engine.eventually(lambda: all(worker.held == 0 for worker in engine.workers))
    assert await engine.admin.fetchval("select count(*) from live") == 0
    assert await engine.admin.fetchval("select count(*) from inbox") == 0


# --- once ------------------------------------------------------------------------------------------------------


class DyingClient(EngineClient):
    """Its caller never hears that the create was committed."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.db, engine.clock, engine.bell)
        self.committed = asyncio.Event()

    async def create(self, items: Sequence[NewInstance]) -> list[Created]:
        await super().create(items)
        self.committed.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]


@asynccontextmanager
async def dying(engine: Engine) -> AsyncIterator[UUID]:
    """A parent whose worker dies at the end of the block, before it has heard that the child was created."""
    client = DyingClient(engine)
    await client.start()
    victim = await engine.worker(client=client)
    key = await engine.create("parent")
    await client.committed.wait()
    yield key
    await victim.stop()
    engine.workers.remove(victim)
    engine.bell.workers.remove(victim)
    await client.stop()


async def test_a_child_is_made_once_when_its_parents_worker_dies_before_it_knows(engine: Engine) -> None:
    await engine.define("child", awaits_go)
    await engine.define("parent", calls_child)
    async with dying(engine) as key:
        kid = await kid_of(engine, key)
    await engine.worker()
    await engine.until(kid, Status.WAITING)
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, kid, "go", None)
    await engine.until(key, Status.COMPLETE)
    assert await kids_of(engine, key) == [kid]
    assert (await engine.kinds(key)).count(Kind.STEP_STARTED) == 1


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_child_that_ended_before_its_parent_heard_of_it_is_not_run_again(engine: Engine, deleted: bool) -> None:
    ran: list[UUID] = []

    def child(run: RunContext) -> Steps:
        ran.append(run.key)
        yield [step("a")]
        return '"result"'

    await engine.define("child", child)
    await engine.define("parent", calls_child)
    async with dying(engine) as key:
        kid = await kid_of(engine, key)
        await engine.until(kid, Status.COMPLETE)
        if deleted:
            await engine.client.delete(engine.account, [kid])
    await engine.worker()
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"result"'
    assert ran == [kid]
    assert await kids_of(engine, key) == ([] if deleted else [kid])


async def test_a_child_whose_end_its_parent_was_told_is_not_made_again(engine: Engine, puppet: Puppet) -> None:
    """Created by a holder, deleted, and created by the next one, who finds the news in the parent's inbox."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    item = child_of(engine, key, epoch=row["epoch"])
    for _ in range(2):
        assert [made.outcome for made in await engine.client.create([item])] == [Create.CREATED]
    await engine.client.delete(engine.account, [item.key])
    assert [made.outcome for made in await engine.client.create([item])] == [Create.CREATED]
    assert await kids_of(engine, key) == []


async def test_a_childs_end_is_not_taken_while_it_is_being_made_again(engine: Engine) -> None:
    """Its parent's new holder finds the child's end at once, while its own attempt to create the child is under way."""
    ran: list[UUID] = []
    gate, asked = asyncio.Event(), asyncio.Event()

    class SlowClient(EngineClient):
        async def create(self, items: Sequence[NewInstance]) -> list[Created]:
            asked.set()
            await gate.wait()
            return await super().create(items)

    def child(run: RunContext) -> Steps:
        ran.append(run.key)
        yield [step("a")]
        return '"result"'

    def parent(run: RunContext) -> Steps:
        [message] = yield [step("kid", child=Child("child", None))]
        yield [wait("w", "hurry", seconds=DAY)]
        return outcome(message)

    await engine.define("child", child)
    await engine.define("parent", parent)
    async with dying(engine) as key:
        kid = await kid_of(engine, key)
        await engine.until(kid, Status.COMPLETE)
        await engine.client.delete(engine.account, [kid])
    client = SlowClient(engine.db, engine.clock, engine.bell)
    await client.start()
    await engine.worker(client=client)
    await asked.wait()
    await asyncio.sleep(0.05)
    gate.set()
    await engine.until(key, Status.WAITING)
    assert await kids_of(engine, key) == []
    await engine.client.send_event(engine.account, key, "hurry", None)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"result"'
    assert ran == [kid]
    await client.stop()


async def test_two_children_of_one_name_are_two(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        messages = yield [step("kid", n, child=Child("child", str(n))) for n in (1, 2, 3)]
        while len(messages) < 3:
            messages = messages + (yield [])
        return json.dumps(sorted(json.loads(m.value) for m in messages))

    def child(run: RunContext) -> Steps:
        yield [step("a")]
        return run.input

    await engine.define("child", child)
    await engine.define("parent", parent)
    await engine.worker()
    key = await engine.create("parent")
    assert json.loads((await engine.until(key, Status.COMPLETE))["output"]) == [1, 2, 3]


async def test_a_retried_step_has_a_new_child(engine: Engine) -> None:
    kids: list[UUID] = []

    def parent(run: RunContext) -> Steps:
        [message] = yield [step("kid", child=Child("child", None), retry=Retry(1, 0))]
        return outcome(message)

    def child(run: RunContext) -> Steps:
        kids.append(run.key)
        yield [step("a")]
        if len(kids) == 1:
            raise ScriptFailed("the first one fails")
        return '"second"'

    await engine.define("child", child)
    await engine.define("parent", parent)
    await engine.worker()
    key = await engine.create("parent")
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"second"'
    assert len({*kids}) == 2


async def test_a_child_that_cannot_be_stored_fails_its_step_for_good(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        [message] = yield [step("kid", child=Child("child", '"a \0 in the middle"'), retry=Retry(5, 0))]
        return outcome(message)

    await engine.define("child", one_step)
    await engine.define("parent", parent)
    await engine.worker()
    row = await engine.until(await engine.create("parent"), Status.ERRORED)
    assert "the child's input cannot be stored" in row["error"]


# --- the end reaches the parent --------------------------------------------------------------------------------

End = Callable[[Engine, UUID], Awaitable[Any]]


async def completed(engine: Engine, kid: UUID) -> None:
    await engine.client.send_event(engine.account, kid, "go", "1")
    await engine.until(kid, Status.COMPLETE)


async def retired(engine: Engine, kid: UUID) -> None:
    """Ended, and gone before the parent, which is paused, could look."""
    await completed(engine, kid)
    await engine.admin.execute("update instance set retain_until = ended_at where key = $1", kid)
    assert await RetireInstances(engine.db, engine.clock).tick() is False
    assert await engine.admin.fetchval("select count(*) from instance where key = $1", kid) == 0


async def terminated(engine: Engine, kid: UUID) -> None:
    await engine.client.terminate(engine.account, kid)


async def terminated_with_others(engine: Engine, kid: UUID) -> None:
    await engine.client.terminate_many(engine.account, [kid])


async def deleted(engine: Engine, kid: UUID) -> None:
    await engine.client.delete(engine.account, [kid])


async def _by_job(engine: Engine, kid: UUID, kind: Any, **options: Any) -> None:
    jobs = TerminationJobs(engine.db, engine.clock, engine.ids, NoDoorbell())
    workflow: Any = await engine.admin.fetchval("select workflow_key from instance where key = $1", kid)
    await jobs.start(engine.account, workflow, kind, **options)
    terminator = Terminator(engine.db, engine.clock, lambda worker, runs: None)
    while await terminator.tick():
        pass
    engine.workers[0].wake()


async def terminated_with_all(engine: Engine, kid: UUID) -> None:
    await _by_job(engine, kid, "terminate_all")


async def deleted_in_a_batch(engine: Engine, kid: UUID) -> None:
    await _by_job(engine, kid, "delete_batch", keys=[kid])


async def rolled_back(engine: Engine, kid: UUID) -> None:
    await engine.client.terminate(engine.account, kid, rollback=True)
    await engine.client.send_event(engine.account, kid, "undone", None)


async def timed_out(engine: Engine, kid: UUID) -> None:
    await engine.advance(60)


ENDS: list[End] = [
    completed,
    retired,
    terminated,
    terminated_with_others,
    deleted,
    terminated_with_all,
    deleted_in_a_batch,
    rolled_back,
    timed_out,
]


@pytest.mark.parametrize(
    ("end", "paused"),
    [*((end, False) for end in ENDS if end is not retired), *((end, True) for end in ENDS)],
    ids=lambda value: value.__name__ if callable(value) else ["waiting", "paused"][value],
)
async def test_the_end_of_a_child_reaches_its_parent(engine: Engine, end: End, paused: bool) -> None:
    key, kid = await waiting_family(engine, can_be_undone)
    if paused:
        await engine.client.pause(engine.account, key)
    await end(engine, kid)
    if paused:
        await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 1 from live"))
        assert await engine.status(key) is Status.PAUSED
        await engine.client.resume(engine.account, key)
    if end in (completed, retired):
        assert json.loads((await engine.until(key, Status.COMPLETE))["output"])["payload"] == 1
    else:
        error = (await engine.until(key, Status.ERRORED))["error"]
        assert ("timed out" if end is timed_out else "the child instance was terminated") in error
    await nothing_is_left(engine)
    assert len(await kids_of(engine, key)) == (0 if end in (retired, deleted, deleted_in_a_batch) else 1)


async def test_a_child_that_ends_while_its_parent_is_in_memory_is_heard(engine: Engine) -> None:
    """No park in between: the parent is busy with another step when the child ends."""
    gate = asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        await gate.wait()
        return '"busy"'

    def parent(run: RunContext) -> Steps:
        messages = yield [step("kid", child=Child("child", None)), step("busy")]
        while len(messages) < 2:
            messages = messages + (yield [])
        return json.dumps([m.key.name for m in messages])

    await engine.define("child", one_step)
    await engine.define("parent", parent, body)
    await engine.worker()
    key = await engine.create("parent")
    await engine.written(key, Kind.STEP_COMPLETED, 1)
    gate.set()
    assert json.loads((await engine.until(key, Status.COMPLETE))["output"]) == ["kid", "busy"]


async def test_a_child_without_a_workflow_fails_its_step_for_good(engine: Engine) -> None:
    await engine.define("parent", calls_child)
    await engine.worker()
    row = await engine.until(await engine.create("parent"), Status.ERRORED)
    assert 'there is no workflow \\"child\\"' in row["error"]


async def test_a_child_whose_workflow_is_not_active_fails_its_step_for_good(engine: Engine) -> None:
    await engine.define("child", one_step)
    await engine.define("parent", calls_child)
    await engine.admin.execute("update workflow set status = 'draft' where handle = 'child'")
    await engine.worker()
    row = await engine.until(await engine.create("parent"), Status.ERRORED)
    assert 'the workflow \\"child\\" is not active' in row["error"]


async def test_a_failing_child_tells_why(engine: Engine) -> None:
    async def body(_: Do, __: Attempt) -> str | None:
        raise StepFailure(Failure("CardDeclined", "no money"))

    await engine.define("child", one_step, body)
    await engine.define("parent", calls_child)
    await engine.worker()
    assert "no money" in (await engine.until(await engine.create("parent"), Status.ERRORED))["error"]


# --- a parent that ends leaves none behind ---------------------------------------------------------------------


def races(run: RunContext) -> Steps:
    """Goes on with whatever comes first, the child or `hurry`."""
    yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
    return "1"


def fails_in_a_hurry(run: RunContext) -> Steps:
    yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
    raise ScriptFailed("no patience")


def breaks_in_a_hurry(run: RunContext) -> Steps:
    """Asks for something that cannot be stored."""
    yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
    yield [step("a", fingerprint="\0")]
    return None


async def by_its_parents_end(engine: Engine, key: UUID) -> None:
    await engine.client.send_event(engine.account, key, "hurry", None)


async def by_terminate(engine: Engine, key: UUID) -> None:
    assert (await engine.client.terminate(engine.account, key)).status is Status.TERMINATED


async def by_batch(engine: Engine, key: UUID) -> None:
    assert await engine.client.terminate_many(engine.account, [key]) == 2


async def by_job(engine: Engine, key: UUID) -> None:
    await _by_job(engine, key, "terminate_all")


async def by_delete(engine: Engine, key: UUID) -> None:
    await engine.client.delete(engine.account, [key])


async def by_poison(engine: Engine, key: UUID) -> None:
    """Workers died of the parent: it is ended without its session being asked."""
    await engine.convict(key)
    await engine.client.send_event(engine.account, key, "hurry", None)


LEAVINGS = [
    (races, by_its_parents_end, Status.COMPLETE),
    (fails_in_a_hurry, by_its_parents_end, Status.ERRORED),
    (breaks_in_a_hurry, by_its_parents_end, Status.ERRORED),
    (races, by_poison, Status.ERRORED),
    (races, by_terminate, Status.TERMINATED),
    (races, by_batch, Status.TERMINATED),
    (races, by_job, Status.TERMINATED),
    (races, by_delete, None),
]


@pytest.mark.parametrize(
    ("parent", "end", "status"), LEAVINGS, ids=[f"{p.__name__}-{e.__name__}" for p, e, _ in LEAVINGS]
)
async def test_a_parent_that_ends_leaves_no_child_running(
    engine: Engine, parent: Script, end: End, status: Status | None
) -> None:
    key, kid = await waiting_family(engine, parent=parent)
    await end(engine, key)
    if status is not None:
        await engine.until(key, status)
    assert await engine.status(kid) is Status.TERMINATED
    assert await engine.kinds(kid) == [Kind.QUEUED, Kind.STARTED, Kind.WAIT_STARTED, Kind.TERMINATED]
    await nothing_is_left(engine)
    announced = await engine.admin.fetchval(
        "select count(*) from feed where $1 = any (keys) and last_seqs @> '{4}'", kid
    )
    assert announced == 1, "its end is told like any other"


@pytest.mark.parametrize("end", [by_terminate, by_its_parents_end, by_delete], ids=lambda f: f.__name__)
async def test_the_whole_family_ends(engine: Engine, end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(run: RunContext) -> Steps:
        if run.depth == 4:
            yield [nap("bottom", seconds=3600)]
        yield [step("kid", child=Child("w", None)), wait("w", "hurry", seconds=DAY)]
        return None

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 5 from live where phase = 2"))
    await end(engine, key)
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 0 from live"))
    kids = await engine.admin.fetch("select status from instance where key <> $1", key)
    assert [row["status"] for row in kids] == [Status.TERMINATED] * 4
    await nothing_is_left(engine)


async def test_a_family_as_deep_as_it_may_be_ends_as_a_whole(engine: Engine) -> None:
    await engine.define("w", one_step)
    key = parent = await engine.create("w")
    for depth in range(1, MAX_DEPTH + 1):
        [parent] = await engine.create_many("w", 1, parent_key=parent, depth=depth)
    assert await engine.client.terminate_many(engine.account, [key]) == MAX_DEPTH + 1
    await nothing_is_left(engine)


async def test_a_held_child_stops_soon_after_its_parents_end_without_a_doorbell(engine: Engine) -> None:
    """Its holder reads what it holds at each renewal: what is not there any more is stopped in the middle of a step."""
    cancelled = asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await engine.define("child", one_step, body)
    await engine.define("parent", races)
    worker = await engine.worker()
    key = await engine.create("parent")
    kid = await kid_of(engine, key)
    await engine.written(kid, Kind.STEP_STARTED)
    engine.bell.silent = True
    await engine.client.terminate(engine.account, key)
    async with asyncio.timeout(4):
        await cancelled.wait()
    await engine.eventually(lambda: worker.held == 0)


def forgets(run: RunContext) -> Steps:
    """Begins a child it does not wait for."""
    [message] = yield [step("kid", child=Child("child", None, wait=False))]
    yield [wait("w", "hurry", seconds=DAY)]
    return outcome(message)


@pytest.mark.parametrize("end", [by_its_parents_end, by_terminate, by_delete], ids=lambda f: f.__name__)
async def test_a_child_nobody_waits_for_lives_on(engine: Engine, end: End) -> None:
    await engine.define("child", awaits_go)
    await engine.define("parent", forgets)
    await engine.worker()
    key = await engine.create("parent")
    await engine.until(key, Status.WAITING)
    [done] = [row for row in await engine.journal(key) if row["kind"] == Kind.STEP_COMPLETED]
    kid = UUID(json.loads(done["payload"])["id"])
    await end(engine, key)
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 1 from live"))
    await engine.until(kid, Status.WAITING)
    await engine.client.send_event(engine.account, kid, "go", None)
    await engine.until(kid, Status.COMPLETE)


@pytest.mark.parametrize("from_seq", [None, 3], ids=["wholly", "from the step"])
async def test_a_restarted_parent_has_a_new_child_and_the_old_one_ends(engine: Engine, from_seq: int | None) -> None:
    key, first = await waiting_family(engine)
    await engine.client.restart(engine.account, key, from_seq=from_seq)
    assert await engine.status(first) is Status.TERMINATED
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 2 from live where phase = 2"))
    [second] = [kid for kid in await kids_of(engine, key) if kid != first]
    await completed(engine, second)
    await engine.until(key, Status.COMPLETE)
    await nothing_is_left(engine)


# --- given up --------------------------------------------------------------------------------------------------

KID = StepKey(StepKind.DO, "kid")
BORED = Failure("Bored", "not interested any more")


def loses_patience(run: RunContext) -> Steps:
    """Gives its child up when `hurry` comes, and waits on."""
    yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
    [message] = yield [Cancel(KID, BORED), wait("w", "go", 2, seconds=DAY)]
    return outcome(message)


def has_a_deadline(run: RunContext) -> Steps:
    """Its child has half a minute."""
    [message] = yield [step("kid", child=Child("child", None), total_timeout=30_000, retry=Retry(3, 0))]
    assert isinstance(message, Broken) and message.timed_out
    [message] = yield [wait("w", "go", 2, seconds=DAY)]
    return outcome(message)


async def by_choice(engine: Engine, key: UUID) -> None:
    await engine.client.send_event(engine.account, key, "hurry", None)


async def by_deadline(engine: Engine, key: UUID) -> None:
    await engine.advance(30)


GIVEN_UP = pytest.mark.parametrize(
    ("parent", "give_up"), [(loses_patience, by_choice), (has_a_deadline, by_deadline)], ids=["cancelled", "timed out"]
)


@GIVEN_UP
async def test_a_child_that_is_given_up_ends_and_its_parent_goes_on(
    engine: Engine, parent: Script, give_up: End
) -> None:
    key, kid = await waiting_family(engine, parent=parent)
    await give_up(engine, key)
    await engine.until(kid, Status.TERMINATED)
    await engine.until(key, Status.WAITING)
    assert (await engine.kinds(key)).count(Kind.STEP_FAILED) == 1
    assert await engine.admin.fetchval("select count(*) from inbox") == 0, "its end is no news"
    assert len(await kids_of(engine, key)) == 1
    await engine.client.send_event(engine.account, key, "go", "1")
    await engine.until(key, Status.COMPLETE)
    await nothing_is_left(engine)


@GIVEN_UP
async def test_giving_up_and_the_childs_end_are_one_commit(
    engine: Engine, dsn: str, parent: Script, give_up: End
) -> None:
    """Whoever sees that the parent gave up sees that the child has ended."""
    key, kid = await waiting_family(engine, parent=parent)
    seen: list[tuple[bool, bool]] = []
    looking = asyncio.Event()

    async def look() -> None:
        reader = await asyncpg.connect(dsn)
        while not looking.is_set():
            row = await reader.fetchrow(
                "select exists (select from journal where key = $1 and kind = $3) as given_up,"
                " exists (select from live where key = $2) as alive",
                *(key, kid, int(Kind.STEP_FAILED)),
            )
            assert row is not None
            seen.append((row["given_up"], row["alive"]))
        await reader.close()

    looks = asyncio.create_task(look())
    await engine.eventually(lambda: len(seen) > 3)
    await give_up(engine, key)
    await engine.eventually(lambda: seen[-1] == (True, False))
    looking.set()
    await looks
    assert {*seen} == {(False, True), (True, False)}


@pytest.mark.parametrize("parent", [loses_patience, has_a_deadline], ids=["cancelled", "timed out"])
async def test_a_child_given_up_while_it_is_being_made_does_not_come_later(engine: Engine, parent: Script) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    class SlowClient(EngineClient):
        async def create(self, items: Sequence[NewInstance]) -> list[Created]:
            asked.set()
            await gate.wait()
            return await super().create(items)

    await engine.define("child", awaits_go)
    await engine.define("parent", parent)
    client = SlowClient(engine.db, engine.clock, engine.bell)
    await client.start()
    await engine.worker(client=client)
    key = await engine.create("parent")
    await asked.wait()
    await engine.client.send_event(engine.account, key, "hurry", None)
    await engine.advance(30)
    await asyncio.sleep(0.05)
    assert Kind.STEP_FAILED not in await engine.kinds(key), "not before it is known what is given up"
    gate.set()
    await engine.until(key, Status.WAITING)
    assert Kind.STEP_FAILED in await engine.kinds(key)
    assert await engine.status(await kid_of(engine, key)) is Status.TERMINATED
    await client.stop()


async def test_a_stale_worker_gives_up_nobodys_child(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    await engine.client.pause(engine.account, kid)
    heir = await Puppet.enter(engine)
    await engine.admin.execute("delete from worker where id <> $1", heir.worker_id)
    await heir.take_over()
    assert not (await puppet.flush(row, entries=1, given_up=[(kid, False)])).accepted
    assert not (await puppet.flush(row, Next.COMPLETE)).accepted
    assert await engine.status(kid) is Status.PAUSED
    again = await heir.claim_one()
    assert (await heir.flush(again, given_up=[(kid, False)])).accepted
    assert await engine.status(kid) is Status.TERMINATED


async def test_each_run_of_a_batch_gives_up_its_own_children(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    stale, other = await engine.create_many("w", 2)
    rows = {row["key"]: row for row in await puppet.claim()}
    kids = [*await engine.create_many("w", 2, parent_key=stale), *await engine.create_many("w", 2, parent_key=other)]
    await engine.client.restart(engine.account, stale)
    kids[:2] = await engine.create_many("w", 2, parent_key=stale)
    changes = [
        puppet.change(rows[stale], given_up=[(kids[0], False)]),
        puppet.change(rows[other], given_up=[(kids[2], False)]),
    ]
    assert [answer.accepted for answer in await puppet.send(*changes)] == [False, True]
    statuses = [await engine.status(kid) for kid in kids]
    assert statuses == [Status.QUEUED, Status.QUEUED, Status.TERMINATED, Status.QUEUED]


@pytest.mark.parametrize("next", [Next.COMPLETE, Next.ERRORED])
async def test_an_end_that_is_refused_ends_no_child(engine: Engine, puppet: Puppet, next: Next) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, entries=1)
    await engine.client.terminate(engine.account, key, rollback=True)
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    assert not (await puppet.flush(row, next)).done
    assert await engine.status(kid) is Status.QUEUED
    assert (await puppet.flush(row, Next.TERMINATED)).done
    assert await engine.status(kid) is Status.TERMINATED


async def test_a_parent_and_its_child_may_end_in_one_commit(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    rows = {row["key"]: row for row in await puppet.claim()}
    changes = [puppet.change(rows[key], Next.COMPLETE, body="1"), puppet.change(rows[kid], Next.ERRORED, body="2")]
    assert [answer.done for answer in await puppet.send(*changes)] == [True, True]
    assert (await engine.status(key), await engine.status(kid)) == (Status.COMPLETE, Status.ERRORED)
    assert (
        await engine.admin.fetchval("select count(*) from feed where $1 = any (keys) and last_seqs @> '{2}'", kid) == 1
    )
    await nothing_is_left(engine)


# --- rolling back ----------------------------------------------------------------------------------------------


def gives_up_on_rollback(run: RunContext) -> Steps:
    """As documents do: asked to roll back, what only waits is given up."""
    [message] = yield [step("kid", child=Child("child", None))]
    if isinstance(message, RollbackRequested):
        yield [Cancel(KID, BORED), wait("undo", "undone", seconds=DAY)]
        yield [EndRollback(True)]
        return None
    return outcome(message)


@pytest.mark.parametrize("first", ["parent", "child"])
async def test_children_roll_back_with_their_parent(engine: Engine, first: str) -> None:
    """Each at its own pace: the end of one does not cut the other short."""
    key, kid = await waiting_family(engine, can_be_undone, gives_up_on_rollback)
    await engine.client.terminate(engine.account, key, rollback=True)
    assert await engine.status(kid) is Status.ROLLING_BACK
    for each in (key, kid) if first == "parent" else (kid, key):
        await engine.client.send_event(engine.account, each, "undone", None)
        row = await engine.until(each, Status.TERMINATED)
        assert json.loads(row["rollback"])["outcome"] == "complete"
    await nothing_is_left(engine)


async def test_a_child_that_never_started_ends_when_its_parent_is_rolled_back(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    await puppet.flush(await puppet.claim_one(), entries=1)
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    await engine.client.terminate(engine.account, key, rollback=True)
    assert (await engine.status(key), await engine.status(kid)) == (Status.ROLLING_BACK, Status.TERMINATED)


async def test_what_is_given_up_by_a_run_that_undoes_itself_rolls_back(engine: Engine) -> None:
    def parent(run: RunContext) -> Steps:
        yield [step("kid", child=Child("child", None)), wait("w", "hurry", seconds=DAY)]
        yield [BeginRollback(BORED), Cancel(KID, BORED), wait("undo", "undone", seconds=DAY)]
        yield [EndRollback(True), Fail(BORED)]
        return None

    key, kid = await waiting_family(engine, can_be_undone, parent)
    await engine.client.send_event(engine.account, key, "hurry", None)
    await engine.until(kid, Status.ROLLING_BACK)
    await engine.until(key, Status.ROLLING_BACK)
    await engine.client.send_event(engine.account, key, "undone", None)
    await engine.until(key, Status.ERRORED)
    assert await engine.status(kid) is Status.ROLLING_BACK, "it finishes what it began"
    await engine.client.send_event(engine.account, kid, "undone", None)
    await engine.until(kid, Status.TERMINATED)
    await nothing_is_left(engine)


UNDO = StepKey(StepKind.ROLLBACK, "kid")


def undoes_with_a_child(run: RunContext) -> Steps:
    """Its compensation is a child that has half a minute."""
    yield [wait("w", "hurry", seconds=DAY)]
    messages = yield [BeginRollback(BORED), Do(UNDO, child=Child("child", None), total_timeout=30_000)]
    complete = not any(isinstance(message, Broken) for message in messages)
    yield [wait("x", "on", seconds=DAY)]
    yield [EndRollback(complete), Fail(BORED)]
    return None


async def compensating(engine: Engine) -> tuple[UUID, UUID]:
    await engine.define("child", can_be_undone)
    await engine.define("parent", undoes_with_a_child)
    await engine.worker()
    key = await engine.create("parent")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "hurry", None)
    kid = await kid_of(engine, key)
    await engine.until(kid, Status.WAITING)
    return key, kid


async def test_a_compensation_that_is_a_child_is_no_forward_work(engine: Engine) -> None:
    """A compensation that takes too long is ended, not undone."""
    key, kid = await compensating(engine)
    await engine.advance(30)
    await engine.until(kid, Status.TERMINATED)
    await engine.client.send_event(engine.account, key, "on", None)
    await engine.until(key, Status.ERRORED)
    await nothing_is_left(engine)


async def test_the_compensation_in_flight_finishes_when_a_rollback_is_stopped(engine: Engine) -> None:
    key, kid = await compensating(engine)
    assert (await engine.client.terminate(engine.account, key)).status is Status.ROLLING_BACK
    assert await engine.status(kid) is Status.WAITING
    await engine.client.delete(engine.account, [key])
    assert await engine.status(kid) is Status.TERMINATED, "a delete ends everything"


async def test_a_child_that_rolls_back_by_itself_is_left_to_it(engine: Engine) -> None:
    """Its parent ends without a rollback, or is begun anew: what the child began to undo is undone."""
    key, kid = await waiting_family(engine, can_be_undone, races)
    await engine.client.terminate(engine.account, kid, rollback=True)
    await engine.client.restart(engine.account, key)
    assert await engine.status(kid) is Status.ROLLING_BACK
    await engine.eventually(lambda: engine.admin.fetchval("select count(*) = 3 from live where phase = 2"))
    await engine.client.send_event(engine.account, key, "hurry", None)
    await engine.until(key, Status.COMPLETE)
    assert await engine.status(kid) is Status.ROLLING_BACK
    await engine.client.send_event(engine.account, kid, "undone", None)
    await engine.until(kid, Status.TERMINATED)
    await nothing_is_left(engine)


# --- a parent that has ended gets no child ---------------------------------------------------------------------


def child_of(engine: Engine, parent: UUID, *, wait: bool = True, epoch: int | None = None) -> NewInstance:
    return NewInstance(
        account_id=engine.account,
        key=(key := engine.ids.uuid7()),
        instance_id=str(key),
        handle="w",
        parent_key=parent if wait else None,
        maker_key=parent,
        maker_epoch=epoch,
        depth=1,
    )


async def ended(engine: Engine, puppet: Puppet, row: Any) -> None:
    assert (await puppet.flush(row, Next.COMPLETE)).done


async def stopped(engine: Engine, puppet: Puppet, row: Any) -> None:
    await engine.client.terminate(engine.account, row["key"])


async def removed(engine: Engine, puppet: Puppet, row: Any) -> None:
    await engine.client.delete(engine.account, [row["key"]])


async def restarted(engine: Engine, puppet: Puppet, row: Any) -> None:
    assert (await engine.client.restart(engine.account, row["key"])).outcome is Control.DONE


async def taken_over(engine: Engine, puppet: Puppet, row: Any) -> None:
    heir = await Puppet.enter(engine)
    await engine.admin.execute("delete from worker where id <> $1", heir.worker_id)
    assert len(await heir.take_over()) == 1


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "does not wait"])
@pytest.mark.parametrize("how", [ended, stopped, removed, restarted, taken_over], ids=lambda f: f.__name__)
async def test_a_holder_that_lost_its_run_makes_no_child_for_it(
    engine: Engine, puppet: Puppet, how: Any, waits: bool
) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    mine = child_of(engine, key, wait=waits, epoch=row["epoch"])
    await how(engine, puppet, row)
    before = await engine.admin.fetch("select key from instance")
    assert [made.outcome for made in await engine.client.create([mine])] == [Create.ORPHAN]
    assert await engine.admin.fetch("select key from instance") == before


async def test_an_orphan_in_a_batch_does_not_harm_the_others(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key, other = await engine.create_many("w", 2)
    await engine.client.terminate(engine.account, key)
    items = [child_of(engine, key), child_of(engine, other), child_of(engine, key, wait=False)]
    made = await asyncio.gather(*(engine.client.create([item]) for item in items), engine.client.create(items))
    answers = [[created.outcome for created in each] for each in made]
    assert answers[:3] == [[Create.ORPHAN], [Create.CREATED], [Create.ORPHAN]]
    assert answers[3] == [Create.ORPHAN, Create.CREATED, Create.ORPHAN]
    assert await kids_of(engine, other) == [items[1].key]


Ending = Callable[[Engine, Puppet, Any], tuple[str, list[Any]]]


def terminate_statement(engine: Engine, puppet: Puppet, row: Any) -> tuple[str, list[Any]]:
    return store.TERMINATE, [engine.account, [row["key"]], False, engine.clock.now()]


def delete_statement(engine: Engine, puppet: Puppet, row: Any) -> tuple[str, list[Any]]:
    return store.DELETE, [engine.account, [row["key"]], engine.clock.now()]


def roll_back_statement(engine: Engine, puppet: Puppet, row: Any) -> tuple[str, list[Any]]:
    return store.ROLL_BACK, [engine.account, row["key"], engine.clock.now()]


def restart_statement(engine: Engine, puppet: Puppet, row: Any) -> tuple[str, list[Any]]:
    return store.RESTART, [engine.account, row["key"], None, None, engine.clock.now()]


def end_statement(engine: Engine, puppet: Puppet, row: Any) -> tuple[str, list[Any]]:
    from instances.engine.journal_writer import _columns

    return store.FLUSH, _columns([puppet.change(row, Next.COMPLETE)])


def create_statement(engine: Engine, item: NewInstance) -> tuple[str, list[Any]]:
    columns = [
        [engine.account],
        [item.handle],
        [item.key],
        [item.instance_id],
        [None],
        [3],
        [None],
        [None],
        [None],
        [None],
    ]
    more = [[item.parent_key], ["kid-1"], [1], [None], engine.clock.now(), [item.maker_key], [item.maker_epoch]]
    return store.CREATE, [*columns, *more]


ENDINGS: list[Ending] = [end_statement, terminate_statement, delete_statement, restart_statement, roll_back_statement]


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e is not roll_back_statement], ids=lambda f: f.__name__)
async def test_a_child_made_while_its_parent_ends_is_refused(engine: Engine, puppet: Puppet, ending: Ending) -> None:
    """The end is not committed yet when the create begins: it waits, and then sees it."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    statement, arguments = ending(engine, puppet, row)
    maker = await engine.db.dedicated("maker")
    async with puppet.connection.transaction():
        await puppet.connection.fetch(statement, *arguments)
        create, columns = create_statement(engine, child_of(engine, key, epoch=row["epoch"]))
        making = asyncio.create_task(maker.fetch(create, *columns))
        await engine.blocked(maker)
    assert [made["outcome"] for made in await making] == [Create.ORPHAN]
    assert await kids_of(engine, key) == []
    await maker.close()


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda f: f.__name__)
async def test_a_child_made_just_before_its_parent_ends_ends_with_it(
    engine: Engine, puppet: Puppet, ending: Ending
) -> None:
    """The child is not committed yet when the end begins: it waits, and then sees it."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, entries=1)
    maker = await engine.db.dedicated("maker")
    making = maker.transaction()
    await making.start()
    create, columns = create_statement(engine, child_of(engine, key, epoch=row["epoch"]))
    assert [made["outcome"] for made in await maker.fetch(create, *columns)] == [Create.CREATED]

    async def end() -> None:
        statement, arguments = ending(engine, puppet, row)
        try:
            await puppet.connection.fetch(statement, *arguments)
        except asyncpg.SerializationError:
            await puppet.connection.fetch(statement, *arguments)

    ends = asyncio.create_task(end())
    await engine.blocked(puppet.connection)
    await making.commit()
    await ends
    assert await engine.admin.fetchval("select count(*) from live where key <> $1", key) == 0
    if ending is not delete_statement:
        assert await engine.status(await kid_of(engine, key)) is Status.TERMINATED
    await maker.close()


async def test_a_family_that_grew_by_somebody_busy_is_locked_again(engine: Engine, puppet: Puppet) -> None:
    """What came late is not waited for while other locks are held: that could be a deadlock."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    [late] = await engine.create_many("w", 1)
    maker, busy = await engine.db.dedicated("maker"), await engine.db.dedicated("busy")
    making, keeping = maker.transaction(), busy.transaction()
    await making.start()
    await maker.execute("select from live where key = $1 for share", kid)
    await maker.execute("update instance set parent_key = $2 where key = $1", late, kid)
    await keeping.start()
    await busy.execute("select from live where key = $1 for update", late)
    statement, arguments = terminate_statement(engine, puppet, {"key": key})
    ends = asyncio.create_task(puppet.connection.fetch(statement, *arguments))
    await engine.blocked(puppet.connection)
    await making.commit()
    with pytest.raises(asyncpg.SerializationError):
        await ends
    assert await engine.admin.fetchval("select count(*) from live") == 3
    again = asyncio.create_task(engine.client.terminate_many(engine.account, [key]))
    await asyncio.sleep(0.02)
    await keeping.commit()
    assert await again == 3
    await nothing_is_left(engine)
    await maker.close()
    await busy.close()


async def test_a_grandchild_made_while_the_family_is_being_locked_ends_with_it(engine: Engine, puppet: Puppet) -> None:
    """The family grew at its lower end, behind what was locked first."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    maker = await engine.db.dedicated("maker")
    making = maker.transaction()
    await making.start()
    create, columns = create_statement(engine, child_of(engine, kid))
    await maker.fetch(create, *columns)
    ends = asyncio.create_task(engine.client.terminate_many(engine.account, [key]))
    waits = "select count(*) = 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    await engine.eventually(lambda: engine.admin.fetchval(waits))
    await making.commit()
    assert await ends == 3
    await nothing_is_left(engine)
    await maker.close()


async def test_a_parent_that_is_gone_gets_no_child_any_more(engine: Engine) -> None:
    """The whole engine: its worker does not know yet that it was ended, and creates the child it was about to."""
    gate, about_to = asyncio.Event(), asyncio.Event()

    class SlowClient(EngineClient):
        async def create(self, items: Sequence[NewInstance]) -> list[Created]:
            about_to.set()
            await gate.wait()
            return await super().create(items)

    await engine.define("child", awaits_go)
    await engine.define("parent", calls_child)
    client = SlowClient(engine.db, engine.clock, engine.bell)
    await client.start()
    engine.bell.silent = True
    await engine.worker(client=client)
    key = await engine.create("parent")
    await about_to.wait()
    await engine.client.terminate(engine.account, key)
    gate.set()
    await nothing_is_left(engine)
    assert await kids_of(engine, key) == []
    await client.stop()


# --- depth -----------------------------------------------------------------------------------------------------


def calls_itself(run: RunContext) -> Steps:
    [message] = yield [step("kid", child=Child("w", None))]
    return outcome(message)


async def test_children_are_nested_only_so_deep(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_DEPTH == 16
    monkeypatch.setattr(children, "MAX_DEPTH", 4)
    await engine.define("w", calls_itself)
    await engine.worker()
    key = await engine.create("w")
    row = await engine.until(key, Status.ERRORED)
    assert "nested 4 deep" in row["error"]
    assert await engine.admin.fetchval("select count(*) from instance") == 5
