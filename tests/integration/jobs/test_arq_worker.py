"""The arq wrapper and the doorbell on a real Redis: quick, harmless to lose, alive through outages."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app.embedded.valkey import EmbeddedValkey
from jobs.arq_worker import ID_LENGTH, MAX_JOBS, POLL_SECONDS, QUEUE, QUEUE_LIMIT, RINGS_KEPT, WAKE, WakeWorker
from jobs.doorbell import MAX_REFS, ArqDoorbell
from tenants.clock import ManualClock
from tenants.ids import Ids
from tests.support import servers

ACCOUNT, KEY = UUID(int=1), UUID(int=2)


class Heard:
    """A job function that notes its calls."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Any] = asyncio.Queue()

    async def job(self, _context: Any, refs: list[Any]) -> None:
        self.calls.put_nowait(refs)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.calls.get()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def worker(redis_url: str, heard: Heard) -> AsyncIterator[WakeWorker]:
    worker = WakeWorker(redis_url, {"run_instances": heard.job, "deliver_event": heard.job})
    await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def doorbell(redis_url: str, clock: ManualClock, ids: Ids) -> AsyncIterator[ArqDoorbell]:
    doorbell = ArqDoorbell.at(redis_url, clock, ids)
    yield doorbell
    await doorbell.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_ring_runs_its_job_long_before_the_next_poll(
    worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard
) -> None:
    await doorbell.ring("run_instances", [])
    await heard.next()
    waits = []
    for _ in range(20):
        began = time.perf_counter()
        await doorbell.ring("run_instances", [])
        await heard.next()
        waits.append(time.perf_counter() - began)
    assert sorted(waits)[10] < POLL_SECONDS / 5


async def test_who_is_about_to_leave_leaves_rings_to_others(
    redis_url: str, doorbell: ArqDoorbell, redis: Redis, heard: Heard
) -> None:
    """A worker drains for many seconds; what it took from the bell meanwhile nobody else would hear."""
    worker = WakeWorker(redis_url, {"run_instances": heard.job, "deliver_event": heard.job})
    polling, poll = asyncio.Lock(), worker._poll_iteration

    async def alone() -> None:
        async with polling:
            await poll()

    worker._poll_iteration = alone
    await worker.start()
    await doorbell.ring("run_instances", [])
    await heard.next()
    await worker.retire()
    async with polling:
        pass  # one that was under way is over
    async with asyncio.timeout(10):
        while not await redis.llen(WAKE):  # the server may give a first one to the connection that is gone
            await doorbell.ring("deliver_event", [(ACCOUNT, KEY, 7)])
            await asyncio.sleep(0.005)
    for _ in range(3):
        await worker._poll()
    while not heard.calls.empty():
        assert heard.calls.get_nowait() == []  # the first ring, found in the queue before it was struck off
    assert await redis.llen(WAKE) > 0
    await worker.stop()


async def test_a_job_carries_its_references(worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard) -> None:
    await doorbell.ring("deliver_event", [(ACCOUNT, KEY, 7), (ACCOUNT, KEY, None)])
    assert await heard.next() == [[ACCOUNT.bytes, KEY.bytes, 7], [ACCOUNT.bytes, KEY.bytes, None]]


async def test_rings_that_come_together_go_together(redis: Redis, doorbell: ArqDoorbell) -> None:
    for number in range(50):
        await doorbell.ring("deliver_event", [(ACCOUNT, UUID(int=number), None)])
        await doorbell.ring("run_instances", [])
    await doorbell.close()
    assert await redis.zcard(QUEUE) == 2
    job_ids = await redis.zrange(QUEUE, 0, -1)
    bodies = [msgspec.msgpack.decode(await redis.get(b"arq:job:" + job_id)) for job_id in job_ids]
    assert {body["f"]: len(body["a"][0]) for body in bodies} == {"deliver_event": 50, "run_instances": 0}


async def test_one_job_carries_a_bounded_number_of_references(redis: Redis, doorbell: ArqDoorbell) -> None:
    await doorbell.ring("deliver_event", [(ACCOUNT, UUID(int=number), None) for number in range(MAX_REFS + 9)])
    await doorbell.close()
    [job_id] = await redis.zrange(QUEUE, 0, -1)
    assert len(msgspec.msgpack.decode(await redis.get(b"arq:job:" + job_id))["a"][0]) == MAX_REFS


async def test_rings_nobody_hears_do_not_pile_up(redis_url: str, redis: Redis, clock: ManualClock, ids: Ids) -> None:
    await redis.zadd(QUEUE, {f"00{number:08d}": 1 for number in range(3 * QUEUE_LIMIT)})
    doorbell = ArqDoorbell.at(redis_url, clock, ids)
    for _ in range(40):
        await doorbell.ring("run_instances", [])
        await asyncio.sleep(0)
    await doorbell.close()
    assert await redis.zcard(QUEUE) == QUEUE_LIMIT
    assert 0 < await redis.llen(WAKE) <= RINGS_KEPT
    assert (await redis.zrange(QUEUE, -1, -1))[0].startswith(b"01")  # the newest stay


async def test_a_job_leaves_nothing_behind(
    redis: Redis, worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard
) -> None:
    await doorbell.ring("run_instances", [])
    await heard.next()
    async with asyncio.timeout(10):
        while await redis.dbsize():
            await asyncio.sleep(0.005)


async def test_flushall_is_harmless(redis: Redis, worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard) -> None:
    await doorbell.ring("run_instances", [])
    await heard.next()
    await redis.flushdb()
    await doorbell.ring("run_instances", [])
    await heard.next()


async def test_what_was_heard_is_struck_off_the_queue(
    redis: Redis, worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard
) -> None:
    for number in range(30):
        await doorbell.ring("deliver_event", [(ACCOUNT, UUID(int=number), None)])
        await heard.next()
    async with asyncio.timeout(10):
        while await redis.zcard(QUEUE):
            await asyncio.sleep(0.005)


async def test_jobs_nobody_heard_are_found_in_the_queue(
    redis_url: str, redis: Redis, doorbell: ArqDoorbell, heard: Heard
) -> None:
    jobs = 3 * MAX_JOBS
    for _ in range(jobs):
        await doorbell.ring("run_instances", [])
        await until(lambda: doorbell._trip is None)
    await redis.delete(WAKE)
    worker = WakeWorker(redis_url, {"run_instances": heard.job})
    await worker.start()
    for _ in range(jobs):
        await heard.next()
    await worker.stop()


async def test_a_job_that_fails_or_is_unknown_does_not_stop_the_worker(
    redis_url: str, doorbell: ArqDoorbell, heard: Heard
) -> None:
    async def broken(_context: Any, refs: list[Any]) -> None:
        raise RuntimeError("broken")

    worker = WakeWorker(redis_url, {"run_instances": heard.job, "change_status": broken})
    await worker.start()
    await doorbell.ring("change_status", [])
    await doorbell.ring("no_such_job", [])
    await until(lambda: worker.jobs_failed == 2)
    await doorbell.ring("run_instances", [])
    await heard.next()
    await worker.stop()


async def test_pickles_in_the_queue_are_not_opened(
    redis: Redis, worker: WakeWorker, doorbell: ArqDoorbell, heard: Heard
) -> None:
    job_id, body = "e" * ID_LENGTH, pickle.dumps({"f": "run_instances", "a": ([],), "k": {}, "t": None, "et": 0})
    await redis.set(f"arq:job:{job_id}", body)
    await redis.zadd(QUEUE, {job_id: 1})
    await redis.lpush(WAKE, job_id.encode() + body)
    await until(lambda: worker.jobs_failed == 1)
    assert heard.calls.empty()
    await doorbell.ring("run_instances", [])
    await heard.next()


async def test_nobody_waits_for_a_redis_that_is_away(clock: ManualClock, ids: Ids) -> None:
    doorbell = ArqDoorbell.at("unix:///nowhere/redis.sock", clock, ids)
    with capture_logs() as logs:
        for _ in range(5):
            await doorbell.ring("run_instances", [(ACCOUNT, KEY, None)])
            assert doorbell._trip is not None  # the way there has only begun
            await until(lambda: doorbell._trip is None)
        await doorbell.close()
    assert [entry["event"] for entry in logs] == ["redis_away"]  # once per outage


async def test_worker_and_doorbell_survive_an_outage(clock: ManualClock, ids: Ids, heard: Heard) -> None:
    home = servers.scratch_home()
    server = EmbeddedValkey(home)
    server.start()
    worker = WakeWorker(server.url(0), {"run_instances": heard.job})
    doorbell = ArqDoorbell.at(server.url(0), clock, ids)
    try:
        await worker.start()
        await doorbell.ring("run_instances", [])
        await heard.next()
        with capture_logs() as logs:
            server.stop()
            await until(lambda: any(entry.get("listener") == "arq" for entry in logs))
            await doorbell.ring("run_instances", [])
            await until(lambda: any(entry.get("sender") == "doorbell" for entry in logs))
            server.start()
            while heard.calls.empty():
                await doorbell.ring("run_instances", [])
                await asyncio.sleep(0.02)
        assert {entry["event"] for entry in logs} == {"redis_away", "redis_back"}
    finally:
        await worker.stop()
        await doorbell.close()
        server.stop()
        shutil.rmtree(home)
