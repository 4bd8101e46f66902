"""How often something may be done: the generic cell rate algorithm, in one Redis script.

A limit of r per second lets a burst of r through at once and then one every 1/r seconds. All limits of a request are
checked together, and nothing is charged unless all of them allow it. A limiter that is away must not stop the platform:
without Redis creations are not counted at all, and requests and logins by each process for itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tenants.auth import Caller
from tenants.clock import Clock
from tenants.ids import account_hex
from tenants.limits import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Limits

ANSWER_SECONDS = 0.25
"""How long a request waits for Redis before it goes on without."""
AWAY = timedelta(seconds=1)
"""How long Redis is left alone after it failed."""
KEPT = 10_000
"""Buckets a process keeps for itself while Redis is away; beyond that the ones used least lately begin anew."""

# Each key holds the time (microseconds) at which its bucket is empty again. A request that costs more than the whole
# burst passes when the bucket is empty, and is charged in full: the debt delays whoever comes next.
# KEYS: buckets. ARGV: now, cost, then per bucket its interval (microseconds per unit) and its burst (units).
# Returns how many microseconds to wait (0: it was allowed and charged), and until the first bucket is empty.
TAKE = """
local now, cost, wait, times = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local empty = math.max(tonumber(redis.call('get', key) or '0'), now)
  times[i] = empty + cost * interval
  wait = math.max(wait, empty + math.min(cost, burst) * interval - burst * interval - now)
end
if wait > 0 then return {math.ceil(wait), times[1] - cost * tonumber(ARGV[3]) - now} end
for i, key in ipairs(KEYS) do
  redis.call('set', key, string.format('%.0f', times[i]), 'px', math.ceil((times[i] - now) / 1000) + 1000)
end
return {0, times[1] - now}
"""

LOGINS_PER_HOUR = 10
"""Attempts to log in, right or wrong, per client address and user name."""

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """At most `burst` units at once, refilled evenly over `period` milliseconds."""

    key: str
    burst: float
    interval: float
    """Microseconds per unit."""


def bucket(key: str, rate: float, period: int) -> Bucket:
    """`rate` units per `period` milliseconds."""
    return Bucket(key, max(1.0, rate), period * 1000 / rate)


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking from buckets: `wait` microseconds until it is worth trying again (0: allowed and charged),
    and how many until the first bucket is empty of charges."""

    wait: int
    emptying: float


class Buckets:
    """Charges buckets over all processes. `alone`: while Redis is away, this process counts by itself."""

    def __init__(self, redis: Redis | None, clock: Clock, *, alone: bool) -> None:
        self._clock = clock
        self._script = redis.register_script(TAKE) if redis is not None else None
        self._away_until: datetime | None = None
        self._own = _OwnBuckets() if alone else None

    async def take(self, buckets: Sequence[Bucket], count: int = 1) -> Taken | None:
        """Charge `count` units to each of `buckets`, or to none. None when nobody counts."""
        now = self._clock.now()
        microseconds = int(now.timestamp() * 1_000_000)
        if self._script is not None and (self._away_until is None or now >= self._away_until):
            arguments: list[float | int] = [microseconds, count]
            for one in buckets:
                arguments += [one.interval, one.burst]
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    wait, emptying = await self._script([one.key for one in buckets], arguments)
                return Taken(int(wait), float(emptying))
            except (RedisError, OSError, TimeoutError) as error:
                self._away_until = now + AWAY
                log.warning("rates_not_shared", error=type(error).__name__)
        return self._own.take(buckets, microseconds, count) if self._own is not None else None


class _OwnBuckets:
    """The script's arithmetic, in this process's memory."""

    def __init__(self) -> None:
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def take(self, buckets: Sequence[Bucket], now: int, count: int) -> Taken:
        empty = [max(self._empty_at.get(one.key, 0.0), now) for one in buckets]
        wait = max(
            at + min(count, one.burst) * one.interval - one.burst * one.interval - now
            for at, one in zip(empty, buckets, strict=True)
        )
        if wait > 0:
            return Taken(math.ceil(wait), empty[0] - now)
        for at, one in zip(empty, buckets, strict=True):
            self._empty_at[one.key] = at + count * one.interval
            self._empty_at.move_to_end(one.key)
        while len(self._empty_at) > KEPT:
            self._empty_at.popitem(last=False)
        return Taken(0, empty[0] + count * buckets[0].interval - now)


class CreationRates:
    """Counts creations and restarts against an account's limits, over all processes."""

    def __init__(self, redis: Redis | None, clock: Clock) -> None:
        self._buckets = Buckets(redis, clock, alone=False)

    async def take(self, account_id: UUID, workflow: str, limits: Limits, count: int = 1) -> float | None:
        """Charge `count` creations in `workflow` (anything that names it); None when allowed, else seconds to wait."""
        buckets = _creations(account_id, workflow, limits)
        taken = await self._buckets.take(buckets, count) if buckets else None
        return taken.wait / 1_000_000 if taken is not None and taken.wait else None


@dataclasses.dataclass(frozen=True, slots=True)
class RequestRate:
    """How a credential stands with its limit. Times are seconds from now."""

    limit: int
    """Requests per minute."""
    remaining: int
    """Requests that may follow at once."""
    reset_after: float
    """Until all of `limit` may be used at once again."""
    retry_after: float | None = None
    """Set when the request is one too many."""


class RequestRates:
    """Counts requests per credential, tests of webhooks per credential, and logins per address and name."""

    def __init__(self, redis: Redis | None, clock: Clock) -> None:
        self._buckets = Buckets(redis, clock, alone=True)

    async def request(self, caller: Caller, per_minute: int) -> RequestRate:
        """One request of the caller."""
        return await self._take(_of_credential(caller, "requests"), per_minute)

    async def webhook_test(self, caller: Caller, per_minute: int) -> RequestRate:
        """One test delivery the caller asks for."""
        return await self._take(_of_credential(caller, "webhook-tests"), per_minute)

    async def login(self, address: str, name: str) -> float | None:
        """One attempt to log in as `name` from `address`; None when allowed, else seconds to wait."""
        who = hashlib.sha256(f"{address}\n{name.casefold()}".encode("utf-8", "surrogatepass")).hexdigest()
        taken = await self._buckets.take([bucket(f"millrace:rate:login:{who}", LOGINS_PER_HOUR, HOUR_MS)])
        return taken.wait / 1_000_000 if taken is not None and taken.wait else None

    async def _take(self, key: str, per_minute: int) -> RequestRate:
        one = bucket(key, per_minute, MINUTE_MS)
        taken = await self._buckets.take([one]) or Taken(0, 0.0)
        remaining = max(0, math.floor(one.burst - taken.emptying / one.interval + 1e-6))
        retry_after = taken.wait / 1_000_000 if taken.wait else None
        return RequestRate(per_minute, remaining, taken.emptying / 1_000_000, retry_after)


# Braces keep an account's keys in one slot of a Redis cluster, which one script must not leave.


def _of_credential(caller: Caller, what: str) -> str:
    return f"millrace:rate:{{{account_hex(caller.account_id)}}}:{what}:{caller.credential_id.hex}"


def _creations(account_id: UUID, workflow: str, limits: Limits) -> Sequence[Bucket]:
    if limits.creations_per_second is limits.creations_per_day is limits.workflow_creations_per_second is None:
        return ()  # the default: nothing to count, and this is asked for every create
    prefix = f"millrace:rate:{{{account_hex(account_id)}}}"
    rates = (
        (f"{prefix}:second", limits.creations_per_second, SECOND_MS),
        (f"{prefix}:day", limits.creations_per_day, DAY_MS),
        (f"{prefix}:workflow:{workflow}", limits.workflow_creations_per_second, SECOND_MS),
    )
    return [bucket(key, rate, period) for key, rate, period in rates if rate is not None]
