"""Totals of searches: what they leave out, and the connections counting takes."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from app.errors import InvalidRequest
from instances.engine.requests import NewInstance
from instances.lifecycle import Status
from instances.search import store
from instances.search.query import By, Every, InFacets, Search, facets_of
from instances.search.service import Searcher
from tenants.database import Database
from tests.support.instances import World

PAGE = Search(limit=2)


@pytest.fixture
async def six(world: World) -> World:
    """An account with six instances."""
    await world.workflow("alpha")
    await world.engine.create(
        [
            NewInstance(account_id=world.account, key=world.ids.uuid7(), instance_id=f"i{n}", handle="alpha")
            for n in range(6)
        ]
    )
    return world


async def test_totals_leave_out_what_is_hidden_or_gone(db: Database, six: World):
    world, account, searcher = six, six.account, Searcher(db)
    await world.end(["i0", "i1"])
    await world.end(["i2", "i3"], Status.ERRORED, '{"name":"E","message":""}')

    async def totals(**search: Any) -> list[int | None]:
        statuses = (None, Status.COMPLETE, Status.ERRORED, Status.QUEUED)
        wheres = [InFacets(facets_of([status])) if status is not None else Every() for status in statuses]
        pages = [await searcher.search(world.caller, Search(where=one, limit=1, **search)) for one in wheres]
        return [page.total for page in pages]

    assert await totals() == [6, 2, 2, 2]
    hide = "select * from hide_instance($1, $2, $3)"
    await world.admin.execute(hide, account, await world.key("i0"), world.clock.now())
    assert await totals() == [5, 1, 2, 2]
    assert await totals(with_deleted=True) == [6, 2, 2, 2]
    delete = "select * from delete_instances($1, array[$2::uuid], $3)"
    await world.admin.execute(delete, account, await world.key("i1"), world.clock.now())
    assert await totals() == [4, 0, 2, 2]
    restart = "select * from restart_run($1, $2, null, null, $3)"
    await world.admin.execute(restart, account, await world.key("i2"), world.clock.now())
    assert await totals() == [4, 0, 1, 3]
    assert await totals(by=By.STARTED) == [4, 0, 1, 3]


async def test_counting_waits_for_no_connection(dsn: str, six: World):
    """However few there are, and however many search at once."""
    for size in (1, 2):
        database = await Database(dsn, size=size).connect()
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(Searcher(database).search(six.caller, PAGE) for _ in range(20)))
        await database.close()
        assert [(len(page.rows), page.more, page.total) for page in found] == [(2, True, 6)] * 20


async def test_counting_goes_on_beside_the_page_where_a_connection_is_to_spare(
    db: Database, six: World, monkeypatch: pytest.MonkeyPatch
):
    """One waits for the other here: after one another neither would come to its end."""
    number, rows, counts = store.number, store.rows, asyncio.Event()

    async def told_number(*asked: Any) -> int:
        counts.set()
        return await number(*asked)

    async def told_rows(*asked: Any, **how: Any) -> Any:
        await counts.wait()
        return await rows(*asked, **how)

    monkeypatch.setattr(store, "number", told_number)
    monkeypatch.setattr(store, "rows", told_rows)
    async with asyncio.timeout(30):
        found = await Searcher(db).search(six.caller, PAGE)
    assert (len(found.rows), found.total) == (2, 6)


async def test_what_is_all_on_one_page_is_not_counted(db: Database, six: World, monkeypatch: pytest.MonkeyPatch):
    async def counted(*_: Any) -> int:
        raise AssertionError

    monkeypatch.setattr(store, "number", counted)
    for offset in (0, 4):
        found = await Searcher(db).search(six.caller, Search(limit=6, offset=offset))
        assert (len(found.rows), found.total) == (6 - offset, 6)


async def test_a_count_that_takes_too_long_is_refused_like_a_page_that_does(
    db: Database, six: World, monkeypatch: pytest.MonkeyPatch
):
    async def cancelled(*_: Any) -> int:
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")

    monkeypatch.setattr(store, "number", cancelled)
    for _ in range(2):  # beside the page, and without a spare connection after it
        with pytest.raises(InvalidRequest, match="too many instances"):
            await Searcher(db).search(six.caller, PAGE)
        monkeypatch.setattr(Database, "spare", False)


async def test_what_counts_beside_a_page_that_fails_is_ended(db: Database, six: World, monkeypatch: pytest.MonkeyPatch):
    counts, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: Any) -> int:
        counts.set()
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    async def broken(*_: Any, **_how: Any) -> Any:
        await counts.wait()
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")

    monkeypatch.setattr(store, "number", endless)
    monkeypatch.setattr(store, "rows", broken)
    with pytest.raises(InvalidRequest):
        await Searcher(db).search(six.caller, PAGE)
    assert ended.is_set()
