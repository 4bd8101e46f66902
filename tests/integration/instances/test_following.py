"""Following instances and workflows: every entry once, in order, whether news of it came or not."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from instances.engine.requests import NewInstance
from instances.errors import InstanceNotFound
from instances.following import service, store, watcher
from instances.following.service import Follow
from instances.following.watcher import Watcher
from instances.lifecycle import Kind, Status
from instances.live_feed import LiveFeed
from tests.support.instances import World
from versions.errors import WorkflowNotFound

PATIENCE = 20.0


@pytest.fixture
async def follow(db, feed) -> AsyncIterator[Follow]:
    follow = Follow(db, feed)
    yield follow
    await follow.stop()


@pytest.fixture
def no_looks(monkeypatch):
    """Nobody looks by the clock."""
    monkeypatch.setattr(watcher, "LOOK", 3600.0)


async def made(world: World, name: str, workflow: str = "orders") -> UUID:
    key = world.ids.uuid7()
    await world.engine.create([NewInstance(account_id=world.account, key=key, instance_id=name, handle=workflow)])
    return key


async def orders(world: World) -> UUID:
    """The key of the workflow `orders`."""
    key = await world.admin.fetchval(
        "select workflow_key from workflow where account_id = $1 and handle = 'orders'", world.account
    )
    assert isinstance(key, UUID)
    return key


async def test_what_happened_then_what_comes_then_the_end(follow: Follow, world: World, monkeypatch):
    monkeypatch.setattr(service, "CHUNK", 3)
    key = await made(world, "i")
    await world.begin("i")
    await world.write("i", *[(Kind.STEP_STARTED, f"s{n}", 1, 1, {}) for n in range(10)])
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE), aclosing(follow.instance(world.caller, key)) as entries:
        async for some in entries:
            seen += [entry.seq for entry in some]
            if seen[-1] == 12:
                await world.write("i", *[(Kind.STEP_COMPLETED, f"s{n}", 1, 1, n) for n in range(10)])
            if seen[-1] == 22:
                await world.end(["i"])
    assert seen == list(range(1, 24))
    async with asyncio.timeout(PATIENCE), aclosing(follow.instance(world.caller, key, 21)) as entries:
        assert [(entry.seq, entry.payload) async for some in entries for entry in some] == [(22, "9"), (23, "1")]
    async with asyncio.timeout(PATIENCE), aclosing(follow.instance(world.caller, key, 23)) as entries:
        assert [some async for some in entries] == []


async def test_news_wake_a_follower_without_a_look(follow: Follow, world: World, feed: LiveFeed, no_looks):
    key = await made(world, "i")
    async with asyncio.timeout(PATIENCE), aclosing(follow.instance(world.caller, key)) as entries:
        assert [entry.seq for entry in await anext(entries)] == [1]
        coming = asyncio.ensure_future(anext(entries))
        while not feed._followers:
            await asyncio.sleep(0)
        await world.write("i", (Kind.LOG, None, None, None, {"message": "m"}))
        feed.tell(world.account, [key.bytes])
        assert [entry.seq for entry in await coming] == [2]
    assert not feed._followers and not follow._watcher._watched


async def test_a_look_makes_up_for_lost_news(follow: Follow, world: World, no_looks):
    keys = {name: await made(world, name) for name in ("a", "b", "c")}
    streams = {name: follow.instance(world.caller, key) for name, key in keys.items()}
    async with asyncio.timeout(PATIENCE):
        coming = {}
        for name, entries in streams.items():
            await anext(entries)
            coming[name] = asyncio.ensure_future(anext(entries))
        await world.write("b", (Kind.LOG, None, None, None, {"message": "m"}))
        await world.end(["c"])
        while not (coming["b"].done() and coming["c"].done()):
            await follow._watcher.look()
        assert [entry.seq for entry in coming["b"].result()] == [2]
        assert [entry.kind for entry in coming["c"].result()] == [Kind.COMPLETED]
    assert not coming["a"].done()
    coming["a"].cancel()
    await asyncio.wait([coming["a"]])
    for entries in streams.values():
        await entries.aclose()


async def test_idle_followers_share_one_look(db, feed: LiveFeed, world: World, monkeypatch, no_looks):
    """A thousand of them must cost less than a twentieth of a core, at one look per second."""
    shared = Watcher(db, feed)
    asked: list[int] = []

    async def counted(db, accounts, keys, seqs):
        asked.append(len(keys))
        return await real(db, accounts, keys, seqs)

    real = store.grown
    monkeypatch.setattr(store, "grown", counted)
    names = [f"i{n}" for n in range(100)]
    keys = [await made(world, name) for name in names]
    contexts = [shared.watch(world.account, keys[n % 100], 1) for n in range(1000)]
    for context in contexts:
        await context.__aenter__()
    await shared.look()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(10):
        await shared.look()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    assert used / 10 < 0.05
    assert asked == [1000] * 11
    assert not any(one.follower._grown.is_set() for one in shared._watched)
    for context in contexts:
        await context.__aexit__(None, None, None)
    await shared.stop()


async def test_all_of_a_workflow_from_now_on(follow: Follow, world: World, other: World):
    await made(world, "before")
    await world.workflow("elsewhere")
    workflow = await orders(world)
    seen: list[tuple[str, int]] = []
    async with asyncio.timeout(PATIENCE), aclosing(follow.workflow(world.caller, workflow)) as told:
        coming = asyncio.ensure_future(anext(told))
        while not follow._watcher._watched:
            await asyncio.sleep(0)
        for n in range(3):
            await made(world, f"i{n}")
            await made(world, f"x{n}", "elsewhere")
            await made(other, f"y{n}")
        await world.engine.terminate(world.account, await world.key("i1"))
        await world.engine.delete(world.account, [await world.key("i2")])
        while ("i1", 2) not in seen:
            seen += [(one.transaction_id, one.entry.seq) for one in await coming]
            coming = asyncio.ensure_future(anext(told))
        coming.cancel()
        await asyncio.wait([coming])
    assert [one for one in seen if one[0] != "i2"] == [("i0", 1), ("i1", 1), ("i1", 2)]
    assert len(set(seen)) == len(seen)


async def test_all_of_a_workflow_from_a_mark_on(follow: Follow, world: World):
    """What comes between the mark and the first reader is not missed."""
    await made(world, "before")
    workflow = await orders(world)
    mark = await follow.mark(world.caller)
    await made(world, "after")
    async with asyncio.timeout(PATIENCE), aclosing(follow.workflow(world.caller, workflow, mark)) as told:
        assert [one.transaction_id for one in await anext(told)] == ["after"]


async def test_who_commits_late_is_not_left_out(follow: Follow, world: World, dsn: str):
    """Rows of the feed get their place when they are written, and are seen when they are committed."""
    workflow = await orders(world)
    slow_key = await made(world, "slow")
    late = await asyncpg.connect(dsn)
    seen: list[tuple[str, int]] = []
    async with asyncio.timeout(PATIENCE), aclosing(follow.workflow(world.caller, workflow)) as told:
        coming = asyncio.ensure_future(anext(told))
        while not follow._watcher._watched:
            await asyncio.sleep(0)
        await late.execute("begin")
        await late.execute(
            "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
            " values ($1, $2, array[$3::uuid], array[1], array[1], now())",
            world.account,
            workflow,
            slow_key,
        )
        await made(world, "quick")
        await late.execute("commit")
        while len(seen) < 2:
            seen += [(one.transaction_id, one.entry.seq) for one in await coming]
            coming = asyncio.ensure_future(anext(told))
        coming.cancel()
        await asyncio.wait([coming])
    await late.close()
    assert seen == [("slow", 1), ("quick", 1)]


async def test_nobody_follows_what_is_not_theirs(follow: Follow, world: World, other: World, admin):
    key = await made(world, "i")
    workflow = await orders(world)
    restricted = replace(world.caller, workspace_id=UUID(int=3))
    for caller in (other.caller, restricted):
        with pytest.raises(InstanceNotFound):
            await anext(follow.instance(caller, key))
        with pytest.raises(WorkflowNotFound):
            await anext(follow.workflow(caller, workflow))
    await world.end(["i"], Status.COMPLETE)
    await admin.execute("update instance set deleted_at = now() where key = $1", key)
    with pytest.raises(InstanceNotFound):
        await anext(follow.instance(world.caller, key))
