"""Waking live streams: whoever follows an instance waits here until it has grown.

Workers publish the keys of grown instances on their account's Redis channel after each flush. One connection per
process listens to the channels of the accounts somebody follows. Messages may get lost, and Redis may be away: a waiter
looks again after a second anyway, so nothing depends on this but latency.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from instances.errors import TooManyStreams

LOOK_AGAIN = 1.0
"""Seconds a follower waits for news before it looks for itself."""
RECONNECT = 0.5
"""Seconds between attempts to listen again."""
LISTEN = 5.0
"""Seconds one read of the connection waits."""

log = structlog.get_logger(__name__)

_decode = msgspec.msgpack.Decoder(list[bytes])


HOME = "millrace:feed"
"""A channel without messages: while a connection is subscribed to something, only its listener checks its health. A
check by whoever subscribes next would read beside the listener, which fails."""


def channel(account_id: UUID) -> str:
    """The Redis channel of an account; a message is a msgpack list of instance keys, 16 bytes each."""
    return f"millrace:feed:{account_id.hex}"


class Follower:
    """Somebody who follows one instance, or all of an account."""

    __slots__ = ("_grown",)

    def __init__(self) -> None:
        self._grown = asyncio.Event()

    def wake(self) -> None:
        self._grown.set()

    async def grown(self, timeout: float | None = LOOK_AGAIN) -> None:
        """Return when the instance may have grown: at the next news of it, at the latest after `timeout` seconds (None:
        somebody else looks, and wakes it).

        News that came since the last call counts, so nothing is missed between two looks.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._grown.wait()
        self._grown.clear()


class LiveFeed:
    """One per process. Listens only while somebody follows something; `stop` it at the end."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wanted = asyncio.Event()
        self._followers: defaultdict[UUID, defaultdict[UUID | None, set[Follower]]]
        self._followers = defaultdict(lambda: defaultdict(set))
        self._streams: Counter[object] = Counter()
        self._listener: asyncio.Task[None] | None = None
        self._pubsub: PubSub | None = None
        self.listening = asyncio.Event()
        """Set while the channels of all followed accounts are subscribed."""

    @classmethod
    def at(cls, redis_url: str) -> LiveFeed:
        """With a connection of its own: a listener sits in reads that take longer than other clients may wait."""
        return cls(Redis.from_url(redis_url, socket_connect_timeout=2.0, health_check_interval=15))

    async def stop(self) -> None:
        """Stop listening and close the connection. Followers go on, a look per second."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    @asynccontextmanager
    async def follow(self, account_id: UUID, key: UUID | None) -> AsyncIterator[Follower]:
        """Follow an instance (None: all of the account): enter, look at what is there, then wait for `grown` and look
        again.
        """
        follower = Follower()
        first = account_id not in self._followers
        self._followers[account_id][key].add(follower)
        try:
            if first:
                await self._subscribe(account_id)
            yield follower
        finally:
            await asyncio.shield(self._forget(account_id, key, follower))

    def require_slot(self, credential: object, limit: int) -> None:
        """Raise :class:`TooManyStreams` when this process serves the credential `limit` streams already."""
        if self._streams[credential] >= limit:
            raise TooManyStreams(f"a credential may hold {limit} event streams open", retry_after=1)

    @contextmanager
    def slot(self, credential: object, limit: int) -> Iterator[None]:
        """Hold one of the credential's streams. Raises :class:`TooManyStreams`."""
        self.require_slot(credential, limit)
        self._streams[credential] += 1
        try:
            yield
        finally:
            self._streams[credential] -= 1
            if not self._streams[credential]:
                del self._streams[credential]

    def tell(self, account_id: UUID, keys: list[bytes]) -> None:
        """Wake the followers of these instances."""
        followed = self._followers.get(account_id)
        if not followed:
            return
        for key in (None, *(UUID(bytes=raw) for raw in keys)):
            for follower in followed.get(key, ()):
                follower.wake()

    async def _forget(self, account_id: UUID, key: UUID | None, follower: Follower) -> None:
        followed = self._followers[account_id]
        followed[key].discard(follower)
        if not followed[key]:
            del followed[key]
        if not followed:
            del self._followers[account_id]
            if not self._followers:
                self._wanted.clear()
            if self._pubsub is not None:
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.unsubscribe(channel(account_id))

    async def _subscribe(self, account_id: UUID) -> None:
        self._wanted.set()
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        elif self._pubsub is not None:
            # A failure here shows in the listener, too, which then subscribes to everything anew.
            with contextlib.suppress(RedisError, OSError):
                await self._pubsub.subscribe(channel(account_id))

    async def _listen(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                async with self._redis.pubsub() as pubsub:
                    await self._hear(pubsub)
            except (RedisError, OSError, TimeoutError) as error:
                log.info("live_feed_interrupted", error=type(error).__name__)
            except Exception:
                log.exception("live_feed_failed")
            finally:
                self._pubsub = None
                self.listening.clear()
            await asyncio.sleep(RECONNECT)

    async def _hear(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(HOME)
        subscribed: set[UUID] = set()
        while missing := self._followers.keys() - subscribed:
            await pubsub.subscribe(*(channel(account_id) for account_id in missing))
            subscribed |= missing
        self._pubsub = pubsub  # from here on whoever follows a further account subscribes to it
        while True:
            message = await pubsub.get_message(timeout=LISTEN)
            if message is None:
                continue
            if message["type"] == "subscribe" and message["channel"] != HOME.encode():
                self.listening.set()
            elif message["type"] == "message":
                account_id = UUID(hex=message["channel"].decode().rpartition(":")[2])
                with contextlib.suppress(msgspec.DecodeError, ValueError):
                    self.tell(account_id, _decode.decode(message["data"]))
