"""Redis connections of the background: quick ones that give up at once, patient ones that wait.

Redis is a doorbell. What rings it (`quick`) must never hold up the ringer, so it times out in half a second and tries
once more only to replace a connection that died while idle. What listens to it (`patient`) sits in blocking reads.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

QUICK_SECONDS = 0.5
LISTEN_SECONDS = 5.0
"""How long one blocking read lasts; also how late a dead connection is noticed."""

AWAY: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
"""What a Redis that is away, restarting, read-only or out of memory raises."""


def quick(url: str) -> Redis:
    """A client for messages nobody waits for. Connects on first use."""
    return Redis.from_url(
        url,
        socket_timeout=QUICK_SECONDS,
        socket_connect_timeout=QUICK_SECONDS,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )


def patient_options() -> dict[str, Any]:
    """Connection options of a client that blocks up to `LISTEN_SECONDS` per read and rides out short outages."""
    return {
        "socket_timeout": LISTEN_SECONDS + 5,
        "socket_connect_timeout": 2.0,
        "health_check_interval": 15,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), 5),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError, OSError],
    }


def patient(url: str) -> Redis:
    """A client for listeners and blocking reads. Connects on first use."""
    return Redis.from_url(url, **patient_options())
