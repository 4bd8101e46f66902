"""Waking followers over a real Redis."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid5

import msgspec
import pytest

from instances.errors import TooManyStreams
from instances.live_feed import Follower, LiveFeed, channel

NAMES = UUID(int=7)
PATIENCE = 10.0


def account(name: str, request) -> UUID:
    """Channels are shared by the whole suite, so accounts are named after their test."""
    return uuid5(NAMES, f"{request.node.nodeid}/{name}")


async def subscribers(redis, account_id: UUID) -> int:
    [(_, count)] = await redis.pubsub_numsub(channel(account_id))
    return count


async def until_subscribed(redis, account_id: UUID, count: int = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        while await subscribers(redis, account_id) != count:
            await asyncio.sleep(0.01)


async def publish(redis, account_id: UUID, *keys: UUID) -> None:
    await redis.publish(channel(account_id), msgspec.msgpack.encode([key.bytes for key in keys]))


async def woken(follower: Follower) -> bool:
    """Whether it is woken by news, not by the clock."""
    async with asyncio.timeout(PATIENCE):
        await follower._grown.wait()
    await follower.grown(0)
    return True


async def test_news_wake_the_followers_of_that_instance_only(feed: LiveFeed, redis, request):
    ours, theirs, key, other = account("a", request), account("b", request), UUID(int=1), UUID(int=2)
    async with feed.follow(ours, key) as first, feed.follow(ours, key) as second, feed.follow(ours, other) as third:
        async with feed.follow(theirs, key) as fourth:
            await until_subscribed(redis, ours)
            await until_subscribed(redis, theirs)
            await publish(redis, ours, key, UUID(int=9))
            assert await woken(first)
            assert await woken(second)
            assert not third._grown.is_set()
            assert not fourth._grown.is_set()
        await until_subscribed(redis, theirs, 0)
        assert await subscribers(redis, ours) == 1
    await until_subscribed(redis, ours, 0)
    assert feed._followers == {}


async def test_news_between_two_looks_are_not_lost(feed: LiveFeed, request):
    async with feed.follow(account("a", request), UUID(int=1)) as follower:
        feed.tell(account("a", request), [UUID(int=1).bytes])
        async with asyncio.timeout(PATIENCE):
            await follower.grown(timeout=3600)


async def test_without_news_a_follower_looks_again(feed: LiveFeed, request):
    async with feed.follow(account("a", request), UUID(int=1)) as follower:
        await follower.grown(timeout=0)


async def test_following_again_long_after_nobody_did(feed: LiveFeed, redis, request):
    """When a check of the connection is due, the listener makes it, not whoever follows next."""
    ours, key = account("a", request), UUID(int=1)
    async with feed.follow(ours, key):
        await until_subscribed(redis, ours)
    await until_subscribed(redis, ours, 0)
    assert feed._pubsub is not None
    assert feed._pubsub.connection is not None
    feed._pubsub.connection.next_health_check = -1  # long ago
    async with feed.follow(ours, key) as follower:
        await until_subscribed(redis, ours)
        await publish(redis, ours, key)
        assert await woken(follower)


async def test_following_again_after_nobody_did(feed: LiveFeed, redis, request):
    ours = account("a", request)
    for _ in range(3):
        async with feed.follow(ours, UUID(int=1)) as follower:
            await until_subscribed(redis, ours)
            await publish(redis, ours, UUID(int=1))
            assert await woken(follower)
        await until_subscribed(redis, ours, 0)


async def test_comes_back_after_the_connection_was_lost(feed: LiveFeed, redis, request):
    ours, more = account("a", request), account("b", request)
    async with feed.follow(ours, UUID(int=1)) as follower:
        await until_subscribed(redis, ours)
        mine = str(redis.connection_pool.connection_kwargs["db"])
        killed = [one["id"] for one in await redis.client_list(_type="pubsub") if one["db"] == mine]
        assert len(killed) == 1
        await redis.client_kill_filter(_id=killed[0])
        async with feed.follow(more, UUID(int=2)) as late:
            await until_subscribed(redis, ours)
            await until_subscribed(redis, more)
            await publish(redis, ours, UUID(int=1))
            await publish(redis, more, UUID(int=2))
            assert await woken(follower)
            assert await woken(late)


@pytest.mark.parametrize("message", [b"", b"nonsense", msgspec.msgpack.encode([b"short"]), msgspec.msgpack.encode(5)])
async def test_strange_messages_do_no_harm(feed: LiveFeed, redis, request, message: bytes):
    ours = account("a", request)
    async with feed.follow(ours, UUID(int=1)) as follower:
        await until_subscribed(redis, ours)
        await redis.publish(channel(ours), message)
        await publish(redis, ours, UUID(int=1))
        assert await woken(follower)


async def test_without_redis_followers_still_look():
    feed = LiveFeed.at("redis://127.0.0.1:1/0")
    async with feed.follow(UUID(int=1), UUID(int=1)) as follower:
        await follower.grown(timeout=0)
    await feed.stop()


def test_slots_are_counted_per_credential():
    feed = LiveFeed.at("redis://127.0.0.1:1/0")
    with feed.slot("a", 2), feed.slot("a", 2), feed.slot("b", 2):
        with pytest.raises(TooManyStreams) as refused, feed.slot("a", 2):
            pass
        assert refused.value.retry_after == 1
        feed.require_slot("b", 2)
    feed.require_slot("a", 1)
    assert not feed._streams
