"""Publishing to accounts' and workers' channels, and the worker that listens to its own."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from instances.live_feed import channel as feed_channel
from jobs.channels import PokeListener, Pokes, worker_channel
from jobs.feed_publisher import FeedPublisher

ALICE, BOB = UUID(int=0xA1), UUID(int=0xB0)


async def heard(pubsub: Any, messages: int) -> dict[str, list[bytes]]:
    """The next messages, by channel."""
    found: dict[str, list[bytes]] = {}
    async with asyncio.timeout(10):
        while len(found) < messages:
            if message := await pubsub.get_message(timeout=1):
                found.setdefault(message["channel"].decode(), []).extend(msgspec.msgpack.decode(message["data"]))
    return found


async def test_a_flush_is_told_to_each_account_once(redis_url: str, redis: Redis) -> None:
    publisher = FeedPublisher.at(redis_url)
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(feed_channel(ALICE), feed_channel(BOB))
        publisher.publish([(ALICE, UUID(int=1)), (BOB, UUID(int=2)), (ALICE, UUID(int=3))])
        publisher.publish([(ALICE, UUID(int=1))])
        found = await heard(pubsub, 2)
    await publisher.close()
    assert found == {
        f"millrace:feed:{ALICE.hex}": [UUID(int=1).bytes, UUID(int=3).bytes],
        f"millrace:feed:{BOB.hex}": [UUID(int=2).bytes],
    }


async def test_publishing_without_redis_is_silent() -> None:
    publisher = FeedPublisher.at("unix:///nowhere/redis.sock")
    publisher.publish([(ALICE, UUID(int=1))])
    await publisher.close()
    publisher.publish([(ALICE, UUID(int=1))])


async def test_a_poke_reaches_the_worker_it_is_for(redis_url: str) -> None:
    # Channels are shared by all databases of the server: other tests' workers must not have these numbers.
    poked: asyncio.Queue[tuple[UUID, UUID]] = asyncio.Queue()
    listener = PokeListener.at(redis_url, 71_001, lambda account, key: poked.put_nowait((account, key)))
    await listener.start()
    async with asyncio.timeout(10):
        await listener.listening.wait()
        pokes = Pokes.at(redis_url)
        pokes.poke(71_002, [(BOB, UUID(int=9))])
        pokes.poke(71_001, [(ALICE, UUID(int=1)), (BOB, UUID(int=2))])
        assert [await poked.get(), await poked.get()] == [(ALICE, UUID(int=1)), (BOB, UUID(int=2))]
    assert poked.empty()
    await pokes.close()
    await listener.stop()


async def test_a_listener_outlives_garbage_and_lost_connections(redis_url: str, redis: Redis) -> None:
    poked: asyncio.Queue[UUID] = asyncio.Queue()
    listener = PokeListener.at(redis_url, 71_003, lambda _account, key: poked.put_nowait(key))
    await listener.start()
    async with asyncio.timeout(20):
        await listener.listening.wait()
        await redis.publish(worker_channel(71_003), b"\xc1 not msgpack")
        await redis.client_kill_filter(_type="pubsub")
        pokes = Pokes.at(redis_url)
        while poked.empty():
            pokes.poke(71_003, [(ALICE, UUID(int=5))])
            await asyncio.sleep(0.02)
        assert await poked.get() == UUID(int=5)
    await pokes.close()
    await listener.stop()
