"""The end of a child reaches its parent, however it comes about."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Child,
    Do,
    Failure,
    RunContext,
    StepFailure,
)
from jobs.retention.retiring import RetireInstances
from tests.support.engine import Engine, step
from tests.support.families import (
    End,
    can_be_undone,
    completed,
    deleted,
    kids_of,
    nothing_is_left,
    run_job,
    waiting_family,
)
from tests.support.scripts import Steps, calls_child, one_step


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


async def terminated_with_all(engine: Engine, kid: UUID) -> None:
    await run_job(engine, kid, "terminate_all")


async def deleted_in_a_batch(engine: Engine, kid: UUID) -> None:
    await run_job(engine, kid, "delete_batch", keys=[kid])


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
