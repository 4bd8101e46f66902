"""Redis channels: coalesced publishing to many of them, and a listener that always comes back.

`millrace:feed:<account>` says which instances of an account have grown (`instances.live_feed` listens);
`millrace:worker:<id>` tells a worker which of its runs somebody else has news for. Messages are msgpack lists. They may
get lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis

from jobs.courier import Courier
from jobs.redis_clients import AWAY, LISTEN_SECONDS, patient, quick
from jobs.tasks import end

log = structlog.get_logger(__name__)

MAX_ITEMS = 1000
"""Items of one message. A channel that gathers more while Redis is slow loses the rest."""


def worker_channel(worker_id: int) -> str:
    return f"millrace:worker:{worker_id}"


class Publisher(Courier[bytes]):
    """Publishes items to channels."""

    def __init__(self, redis: Redis, name: str) -> None:
        super().__init__(redis, name, MAX_ITEMS)

    def post(self, channel: str, items: Iterable[bytes]) -> None:
        """Have `items` published; returns at once and never raises."""
        self._send(channel, items)

    def _pack(self, pipe: Any, address: str, items: list[bytes]) -> None:
        pipe.publish(address, msgspec.msgpack.encode(items))


class Pokes(Publisher):
    """Tells other workers about runs they hold."""

    @classmethod
    def at(cls, redis_url: str) -> Pokes:
        return cls(quick(redis_url), "pokes")

    def poke(self, owner: int, runs: Sequence[tuple[UUID, UUID]]) -> None:
        """Let worker `owner` look at `runs` (account, key)."""
        self.post(worker_channel(owner), (account.bytes + key.bytes for account, key in runs))


class PokeListener:
    """Hears what others poke on this worker's channel and hands it to `on_poke(account, key)`."""

    def __init__(self, redis: Redis, worker_id: int, on_poke: Callable[[UUID, UUID], object]) -> None:
        self._redis = redis
        self._channel = worker_channel(worker_id)
        self._on_poke = on_poke
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        """Set while subscribed."""

    @classmethod
    def at(cls, redis_url: str, worker_id: int, on_poke: Callable[[UUID, UUID], object]) -> PokeListener:
        return cls(patient(redis_url), worker_id, on_poke)

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        await end(self._task)
        with contextlib.suppress(*AWAY):
            await self._redis.aclose()

    async def _run(self) -> None:
        while True:
            try:
                await self._subscribed(self._hear)
            except AWAY as error:
                log.info("pokes_interrupted", error=type(error).__name__)
            except Exception:
                log.exception("poke_failed", channel=self._channel)
            finally:
                self.listening.clear()
            await asyncio.sleep(LISTEN_SECONDS / 10)

    async def _subscribed(self, hear: Callable[[bytes], Awaitable[None]]) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._channel)
            self.listening.set()
            while True:
                message = await pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    await hear(message["data"])

    async def _hear(self, data: bytes) -> None:
        for item in msgspec.msgpack.decode(data, type=list[bytes]):
            self._on_poke(UUID(bytes=item[:16]), UUID(bytes=item[16:32]))
