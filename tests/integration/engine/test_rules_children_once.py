"""Children are made once, whatever dies, one for each call; and only so deep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from instances.engine.client import EngineClient
from instances.engine.requests import Create, Created, NewInstance
from instances.engine.runs import children
from instances.engine.runs.children import MAX_DEPTH
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Child,
    Retry,
    RunContext,
)
from tests.support.engine import Engine, ScriptFailed, step
from tests.support.families import DAY, child_of, kid_of, kids_of
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, calls_child, one_step, outcome, wait

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
