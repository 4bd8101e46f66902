"""A child that its parent gives up ends, in the same commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from instances.engine.client import EngineClient
from instances.engine.journal_writer import Next
from instances.engine.requests import Created, NewInstance
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Broken,
    Cancel,
    Child,
    Retry,
    RunContext,
)
from tests.support.engine import Engine, Script, step
from tests.support.families import BORED, DAY, KID, End, kid_of, kids_of, nothing_is_left, waiting_family
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, one_step, outcome, wait


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
