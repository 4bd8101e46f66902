"""Children roll back with their parent, each at its own pace."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from instances.lifecycle import Status
from instances.runtimes.protocol import (
    BeginRollback,
    Broken,
    Cancel,
    Child,
    Do,
    EndRollback,
    Fail,
    RollbackRequested,
    RunContext,
    StepKey,
    StepKind,
)
from tests.support.engine import Engine, step
from tests.support.families import BORED, DAY, KID, can_be_undone, kid_of, nothing_is_left, races, waiting_family
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, one_step, outcome, wait


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
