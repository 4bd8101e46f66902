"""Messages to Redis that gather while one round trip is in flight, and never trouble the sender."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import structlog
from redis.asyncio import Redis

from jobs.redis_clients import AWAY, QUICK_SECONDS

log = structlog.get_logger(__name__)


Item = TypeVar("Item")


class Courier(abc.ABC, Generic[Item]):
    """Carries what has gathered in one pipeline, then what gathered meanwhile in the next.

    Items for the same address go together, each once; those beyond `most` are lost. Nothing here raises or waits for
    Redis. What cannot be delivered within half a second is dropped: PostgreSQL holds the truth and the workers' loops
    find it within a second. An outage is logged once, and so is its end.
    """

    def __init__(self, redis: Redis, name: str, most: int) -> None:
        self._redis = redis
        self._name = name
        self._most = most
        self._gathered: dict[str, dict[Item, None]] = {}
        self._trip: asyncio.Task[None] | None = None
        self._closed = False
        self._away = False

    @abc.abstractmethod
    def _pack(self, pipe: Any, address: str, items: list[Item]) -> None:
        """Put what has gathered for an address into the pipeline."""

    def _send(self, address: str, items: Iterable[Item]) -> None:
        """Have items carried: now, unless a trip is under way, whose next round takes them."""
        gathered = self._gathered.setdefault(address, {})
        for item in items:
            if len(gathered) >= self._most:
                break
            gathered[item] = None
        if self._trip is None and not self._closed:
            self._trip = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._gathered:
                gathered, self._gathered = self._gathered, {}
                pipe = self._redis.pipeline(transaction=False)
                for address, items in gathered.items():
                    self._pack(pipe, address, list(items))
                await self._deliver(pipe)
        finally:
            self._trip = None

    async def _deliver(self, pipe: Any) -> None:
        try:
            async with asyncio.timeout(2 * QUICK_SECONDS):
                await pipe.execute()
        except AWAY as error:
            if not self._away:
                log.warning("redis_away", sender=self._name, error=type(error).__name__)
            self._away = True
        else:
            if self._away:
                log.info("redis_back", sender=self._name)
            self._away = False

    async def close(self) -> None:
        """Deliver what has gathered, then close the connections. Later messages are dropped."""
        self._closed = True
        if self._trip is not None:
            await asyncio.gather(self._trip, return_exceptions=True)
        await self._redis.aclose()
