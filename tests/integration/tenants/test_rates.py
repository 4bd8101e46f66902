"""Creation rates against a real Redis, and without one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tenants.clock import ManualClock
from tenants.limits import PROFILES, Limits
from tenants.rates import CreationRates

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture
def rates(redis, clock):
    return CreationRates(redis, clock)


async def test_without_a_limit_redis_is_not_asked(clock):
    class Untouchable:
        def register_script(self, _):
            async def call(*_):
                raise AssertionError("asked Redis")

            return call

    rates = CreationRates(Untouchable(), clock)  # type: ignore[arg-type]
    assert await rates.take(ONE, "w", Limits(), 100) is None


async def test_a_second_lets_through_what_the_limit_says(rates, clock):
    limits = Limits(creations_per_second=10)
    assert [await rates.take(ONE, "w", limits) for _ in range(10)] == [None] * 10
    assert await rates.take(ONE, "w", limits) == pytest.approx(0.1)
    assert await rates.take(TWO, "w", limits) is None
    clock.advance(0.0999)
    assert await rates.take(ONE, "w", limits) is not None
    clock.advance(0.0001)
    assert await rates.take(ONE, "w", limits) is None
    assert await rates.take(ONE, "w", limits) == pytest.approx(0.1)
    clock.advance(1)
    assert [await rates.take(ONE, "w", limits) for _ in range(10)] == [None] * 10
    assert await rates.take(ONE, "w", limits) is not None


async def test_over_a_long_time_the_rate_holds(rates, clock):
    limits = Limits(creations_per_second=7)
    through = 0
    for _ in range(500):
        through += await rates.take(ONE, "w", limits) is None
        clock.advance(0.02)
    assert 7 * 10 <= through <= 7 * 11


async def test_a_batch_counts_every_instance_and_may_exceed_the_burst_once(rates, clock):
    limits = Limits(creations_per_second=10)
    assert await rates.take(ONE, "w", limits, 100) is None
    assert await rates.take(ONE, "w", limits) == pytest.approx(9.1)
    clock.advance(9.1)
    assert await rates.take(ONE, "w", limits) is None
    assert await rates.take(ONE, "w", limits, 100) == pytest.approx(1.0)


async def test_a_refused_request_is_not_charged_anywhere(rates, clock):
    limits = Limits(creations_per_second=4, workflow_creations_per_second=2)
    assert [await rates.take(ONE, "a", limits) for _ in range(2)] == [None, None]
    for _ in range(10):
        assert await rates.take(ONE, "a", limits) is not None
    assert [await rates.take(ONE, "b", limits) for _ in range(2)] == [None, None]
    assert await rates.take(ONE, "c", limits) is not None


async def test_the_daily_quota(rates, clock):
    limits = Limits(creations_per_day=5)
    assert [await rates.take(ONE, "w", limits) for _ in range(5)] == [None] * 5
    assert await rates.take(ONE, "w", limits) == pytest.approx(86400 / 5)


async def test_slow_rates_work(rates, clock):
    limits = Limits(creations_per_second=0.001)
    assert await rates.take(ONE, "w", limits) is None
    assert await rates.take(ONE, "w", limits) == pytest.approx(1000)
    clock.advance(1000)
    assert await rates.take(ONE, "w", limits) is None


async def test_many_at_once_from_two_processes(redis, clock, redis_url, monkeypatch):
    monkeypatch.setattr("tenants.rates.ANSWER_SECONDS", 30.0)  # two hundred connections on a busy machine
    async with Redis.from_url(redis_url) as second:
        here, there = CreationRates(redis, clock), CreationRates(second, clock)
        limits = PROFILES["cloudflare-paid"]
        answers = await asyncio.gather(*(rates.take(ONE, "w", limits) for rates in (here, there) for _ in range(100)))
    assert sum(answer is None for answer in answers) == 100


async def test_keys_vanish_when_their_bucket_is_empty(rates, redis, clock):
    await rates.take(ONE, "w", PROFILES["cloudflare-free"])
    keys = {key.decode(): await redis.pttl(key) for key in await redis.keys("*")}
    assert all(f"{{{ONE.hex}}}" in key for key in keys)
    assert len(keys) == 2
    assert all(0 < ttl <= 2000 for ttl in keys.values())


async def test_without_redis_everything_is_allowed_and_redis_left_alone_for_a_while(clock):
    calls = 0

    class Gone(Redis):
        async def evalsha(self, *_):  # type: ignore[override]
            nonlocal calls
            calls += 1
            raise ConnectionError("refused")

    rates = CreationRates(Gone(), clock)
    limits = Limits(creations_per_second=1)
    assert [await rates.take(ONE, "w", limits) for _ in range(5)] == [None] * 5
    assert calls == 1
    clock.advance(1)
    assert await rates.take(ONE, "w", limits) is None
    assert calls == 2


async def test_a_redis_that_hangs_delays_one_request_only(monkeypatch):
    monkeypatch.setattr("tenants.rates.ANSWER_SECONDS", 0.01)
    hanging = asyncio.Event()

    async def swallow(reader, writer):
        await hanging.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0))
    rates = CreationRates(client, ManualClock(datetime.fromisoformat("2026-01-01T00:00:00Z")))
    limits = Limits(creations_per_second=1)
    assert [await rates.take(ONE, "w", limits) for _ in range(3)] == [None] * 3
    hanging.set()
    await client.aclose()
    server.close()
    await server.wait_closed()
