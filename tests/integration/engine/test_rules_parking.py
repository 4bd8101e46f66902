"""A parked run keeps its epoch until it is claimed; nothing sent under it is applied twice, or to another turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine import store
from instances.engine.journal_writer import Next
from instances.engine.requests import SendEvent
from instances.lifecycle import Kind, Phase, Status
from tests.support.engine import Engine
from tests.support.puppet import Puppet
from tests.support.scripts import awaits_go
from tests.support.unreliable import UnreliableDatabase

Way = Callable[[Engine, UUID], Awaitable[Any]]


async def stays(_engine: Engine, _key: UUID) -> None:
    """Nothing happens."""


async def an_event(engine: Engine, key: UUID) -> None:
    assert await engine.client.send_event(engine.account, key, "go", "1") is SendEvent.STORED


async def a_timer(engine: Engine, _key: UUID) -> None:
    await engine.advance(60)


async def pause_and_resume(engine: Engine, key: UUID) -> None:
    await engine.client.pause(engine.account, key)
    await engine.client.resume(engine.account, key)


async def a_pause(engine: Engine, key: UUID) -> None:
    await engine.client.pause(engine.account, key)


async def a_rollback(engine: Engine, key: UUID) -> None:
    await engine.client.terminate(engine.account, key, rollback=True)


WAKES: list[Way] = [an_event, a_timer, pause_and_resume, a_rollback]


async def parked(engine: Engine, puppet: Puppet) -> tuple[UUID, Any, list[Any]]:
    """A parked run: its key, the claimed row of the turn that is over, and what that turn sent."""
    await engine.define("w", awaits_go)
    key = await engine.create("w")
    row = await puppet.claim_one()
    due = engine.clock.now() + timedelta(minutes=1)
    sent = [puppet.change(row, entries=1), puppet.change(row, Next.PARK, entries=1, awaits=["go"], due=due)]
    assert [(await puppet.send(change))[0].done for change in sent] == [False, True]
    live = await engine.live(key)
    assert live is not None
    assert (live["phase"], live["owner"], live["epoch"]) == (Phase.PARKED, None, row["epoch"])
    return key, row, sent


async def everything(engine: Engine, key: UUID) -> Any:
    instance = await engine.admin.fetchrow("select * from instance where key = $1", key)
    return await engine.live(key), await engine.journal(key), instance, await engine.admin.fetch("select * from inbox")


@pytest.mark.parametrize("way", [stays, a_pause, *WAKES], ids=lambda way: way.__name__)
async def test_what_the_turn_sent_arrives_again_before_the_next_claim(engine: Engine, puppet: Puppet, way: Way) -> None:
    """A lost answer, or the last statement of a dead connection: it is answered, and changes nothing."""
    key, _, sent = await parked(engine, puppet)
    await way(engine, key)
    before = await everything(engine, key)
    for change in (*sent, *reversed(sent)):
        [answer] = await puppet.send(change)
        assert answer.accepted
        assert answer.done is (change.next is Next.PARK)
    assert await everything(engine, key) == before


@pytest.mark.parametrize("same_worker", [True, False], ids=["same worker", "another worker"])
@pytest.mark.parametrize("way", WAKES, ids=lambda way: way.__name__)
async def test_a_flush_of_the_parked_epoch_after_a_new_claim_writes_nothing(
    engine: Engine, puppet: Puppet, way: Way, same_worker: bool
) -> None:
    """The claim sets the ordinal back to 0: only the new epoch keeps what the old turn sent from being applied."""
    key, row, sent = await parked(engine, puppet)
    await way(engine, key)
    holder = puppet if same_worker else await Puppet.enter(engine)
    again = await holder.claim_one()
    assert again["epoch"] > row["epoch"]
    before = await everything(engine, key)
    assert before[0] is not None and before[0]["flush_no"] == 0
    late = [puppet.change(row, next, entries=1, body='"stale"') for next in Next]
    for change in (*sent, *late):
        [answer] = await puppet.send(change)
        assert not answer.accepted
        assert not answer.done
    assert await everything(engine, key) == before
    assert (await holder.flush(again, entries=1)).accepted


async def test_a_park_whose_answer_was_lost_until_its_worker_held_the_run_again(
    engine: Engine, unreliable: UnreliableDatabase
) -> None:
    """It is sent a second time when the run has been woken and claimed: the old turn ends, the new one goes on."""
    await engine.define("w", awaits_go)
    epochs: list[int] = []

    async def lose_the_park(sent: str, _answer: Any) -> None:
        if sent != store.FLUSH or epochs:
            return
        live = await engine.live(key)
        if live is None or live["phase"] != Phase.PARKED:
            return
        epochs.append(live["epoch"])
        await engine.client.send_event(engine.account, key, "go", "1")
        while (live := await engine.live(key)) is None or live["epoch"] == epochs[0]:
            worker.wake()
            await asyncio.sleep(0.005)
        epochs.append(live["epoch"])
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    key = await engine.create("w")
    unreliable.hooks.append(lose_the_park)
    worker = await engine.worker(db=unreliable)
    await engine.until(key, Status.COMPLETE)
    assert len(epochs) == 2
    kinds = await engine.kinds(key)
    assert {kind: kinds.count(kind) for kind in set(kinds)} == dict.fromkeys(
        (Kind.QUEUED, Kind.STARTED, Kind.WAIT_STARTED, Kind.EVENT_RECEIVED, Kind.WAIT_COMPLETED, Kind.COMPLETED), 1
    )
    await engine.eventually(lambda: worker.held == 0)
