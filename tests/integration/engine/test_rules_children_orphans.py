"""A parent that ends leaves no child running."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from instances.engine.runs.children import MAX_DEPTH
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Child,
    Do,
    RunContext,
)
from tests.support.engine import Engine, Script, ScriptFailed, step
from tests.support.families import DAY, End, completed, kid_of, kids_of, nothing_is_left, races, run_job, waiting_family
from tests.support.scripts import Steps, awaits_go, nap, one_step, outcome, wait


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
    await run_job(engine, key, "terminate_all")


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
