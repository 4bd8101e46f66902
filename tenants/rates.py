"""How fast instances may be created: the generic cell rate algorithm, in one Redis script.

A limit of r per second lets a burst of r through at once and then one every 1/r seconds. All limits of a request are
checked together, and nothing is charged unless all of them allow it. Without Redis everything is allowed: a limiter
that is away must not stop the platform.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tenants.clock import Clock
from tenants.ids import account_hex
from tenants.limits import DAY_MS, SECOND_MS, Limits

ANSWER_SECONDS = 0.25
"""How long a request waits for Redis before it goes on without."""
AWAY = timedelta(seconds=1)
"""How long Redis is left alone after it failed."""

# Each key holds the time (microseconds) at which its bucket is empty again. A request that costs more than the whole
# burst passes when the bucket is empty, and is charged in full: the debt delays whoever comes next.
# KEYS: buckets. ARGV: now, cost, then per bucket its interval (microseconds per unit) and its burst (units).
# Returns 0 when allowed, else how many microseconds to wait.
TAKE = """
local now, cost, wait, times = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local empty = math.max(tonumber(redis.call('get', key) or '0'), now)
  times[i] = empty + cost * interval
  wait = math.max(wait, empty + math.min(cost, burst) * interval - burst * interval - now)
end
if wait > 0 then return math.ceil(wait) end
for i, key in ipairs(KEYS) do
  redis.call('set', key, string.format('%.0f', times[i]), 'px', math.ceil((times[i] - now) / 1000) + 1000)
end
return 0
"""

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """At most `burst` units at once, refilled evenly over `period` milliseconds."""

    key: str
    burst: float
    interval: float
    """Microseconds per unit."""


class CreationRates:
    """Counts creations and restarts against an account's limits, over all processes."""

    def __init__(self, redis: Redis | None, clock: Clock) -> None:
        self._clock = clock
        self._script = redis.register_script(TAKE) if redis is not None else None
        self._away_until: datetime | None = None

    async def take(self, account_id: UUID, workflow: str, limits: Limits, count: int = 1) -> float | None:
        """Charge `count` creations in `workflow` (anything that names it); None when allowed, else seconds to wait."""
        buckets = _buckets(account_id, workflow, limits)
        if not buckets or self._script is None:
            return None
        now = self._clock.now()
        if self._away_until is not None and now < self._away_until:
            return None
        arguments: list[float | int] = [int(now.timestamp() * 1_000_000), count]
        for bucket in buckets:
            arguments += [bucket.interval, bucket.burst]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                wait = int(await self._script([bucket.key for bucket in buckets], arguments))
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = now + AWAY
            log.warning("creation_rates_not_checked", error=type(error).__name__)
            return None
        return wait / 1_000_000 if wait > 0 else None


def _buckets(account_id: UUID, workflow: str, limits: Limits) -> Sequence[Bucket]:
    if limits.creations_per_second is limits.creations_per_day is limits.workflow_creations_per_second is None:
        return ()  # the default: nothing to count, and this is asked for every create
    # Braces keep an account's keys in one slot of a Redis cluster, which one script must not leave.
    prefix = f"millrace:rate:{{{account_hex(account_id)}}}"
    rates = (
        (f"{prefix}:second", limits.creations_per_second, SECOND_MS),
        (f"{prefix}:day", limits.creations_per_day, DAY_MS),
        (f"{prefix}:workflow:{workflow}", limits.workflow_creations_per_second, SECOND_MS),
    )
    return [Bucket(key, max(1.0, rate), period * 1000 / rate) for key, rate, period in rates if rate is not None]
