"""A parent that has ended, or is ending, gets no child any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import pytest

from instances.engine import store
from instances.engine.client import EngineClient
from instances.engine.journal_writer import Next
from instances.engine.requests import Create, Created, NewInstance
from instances.lifecycle import Control, Status
from tests.support.engine import Engine
from tests.support.families import child_of, kid_of, kids_of, nothing_is_left
from tests.support.puppet import Puppet
from tests.support.scripts import awaits_go, calls_child, one_step


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
    more = [[item.parent_key], ["kid-1"], [1], [None], engine.clock.now(), [item.maker_key], [item.maker_epoch], [None]]
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
