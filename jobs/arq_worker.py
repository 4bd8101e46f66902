"""The only module that knows arq: how a job is put into its queue, and a worker that hears it at once.

arq (pinned: it is in maintenance and this reaches below its public surface) polls its queue and takes a job in six
round trips. So a job is also pushed to a list, the doorbell. `WakeWorker` waits on that list, runs what comes at once
and strikes it off the queue; what nobody heard (all busy, a worker that died) is found in the queue half a second
later, the ordinary way.

Jobs are hints: each has a fresh id (arq drops an id that is queued or running), no result is kept, and nothing is lost
with them. Payloads are msgpack, so that reading the queue never runs code, as arq's default, pickle, would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from types import CoroutineType
from typing import Any

import msgspec
import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import deserialize_job_raw, serialize_job
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool, Redis

from jobs.courier import Courier
from jobs.redis_clients import AWAY, LISTEN_SECONDS, patient_options, quick
from jobs.tasks import end

log = structlog.get_logger(__name__)

QUEUE = "millrace:jobs"
WAKE = f"{QUEUE}:wake"
POLL_SECONDS = 0.5
JOB_SECONDS = 10
"""Jobs only pass hints on: one that takes this long is broken."""
HINT_LIFETIME_MS = 600_000
"""A hint that nobody took for this long is worthless; the loops have done the work."""
QUEUE_LIMIT = 1000
"""Hints kept while no worker takes them."""
RINGS_KEPT = 64
ID_LENGTH = 32
MAX_JOBS = 64
STOP_SECONDS = 1.0
"""What jobs in hand get at the end."""
DUE = 1
"""Score of every job: due at once. A time would make workers whose wall clock is behind wait for it."""

JobFunction = Callable[..., "CoroutineType[Any, Any, None]"]


def enqueue(pipe: Any, job: str, *args: Any, job_id: str, at_ms: int) -> None:
    """Add one job, and the ring that carries it, to a Redis pipeline. `job_id`: 32 letters."""
    body = serialize_job(job, args, {}, None, at_ms, serializer=msgspec.msgpack.encode)
    pipe.psetex(job_key_prefix + job_id, HINT_LIFETIME_MS, body)
    pipe.zadd(QUEUE, {job_id: DUE})
    pipe.zremrangebyrank(QUEUE, 0, -QUEUE_LIMIT - 1)
    pipe.lpush(WAKE, job_id.encode() + body)
    pipe.ltrim(WAKE, 0, RINGS_KEPT - 1)


class Heard(Courier[str]):
    """Strikes jobs that were run from their ring off the queue. One it misses is run again: it carries a hint only."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, "heard", QUEUE_LIMIT)

    def strike(self, job_id: str) -> None:
        self._send(QUEUE, [job_id])

    def _pack(self, pipe: Any, address: str, items: list[str]) -> None:
        pipe.zrem(address, *items)
        pipe.delete(*(job_key_prefix + job_id for job_id in items))


class WakeWorker(Worker):
    """An arq worker that runs a job as its ring comes and outlives any absence of Redis."""

    def __init__(self, redis_url: str, functions: Mapping[str, JobFunction]) -> None:
        pool = ConnectionPool.from_url(redis_url, **patient_options())
        redis = ArqRedis(
            pool,
            job_serializer=msgspec.msgpack.encode,
            job_deserializer=msgspec.msgpack.decode,
            default_queue_name=QUEUE,
        )
        # arq reports every job it runs or misses; hints are not worth a line each.
        logging.getLogger("arq").setLevel(logging.ERROR)
        super().__init__(
            [func(function, name=name) for name, function in functions.items()],
            queue_name=QUEUE,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=JOB_SECONDS,
            keep_result=0,
            poll_delay=POLL_SECONDS,
            queue_read_limit=2 * QUEUE_LIMIT,
            max_tries=1,
            retry_jobs=False,
            log_results=False,
            job_serializer=msgspec.msgpack.encode,
            job_deserializer=msgspec.msgpack.decode,
        )
        self._heard = Heard(quick(redis_url))
        self._wake = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._away = False
        self._stopping = False

    async def start(self) -> None:
        self.main_task = asyncio.get_running_loop().create_task(self.main())

    async def main(self) -> None:
        """Listen to the doorbell, and look into the queue every half second, until stopped."""
        self._listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            while not self._stopping:
                self._wake.clear()
                await self._poll()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.poll_delay_s):
                        await self._wake.wait()
        finally:
            await end(self._listener)

    async def _poll(self) -> None:
        try:
            await self._poll_iteration()
        except AWAY as error:
            if not self._away:
                log.warning("redis_away", listener="arq", error=type(error).__name__)
            self._away = True
        except Exception:
            log.exception("arq_poll_failed")
        else:
            if self._away:
                log.info("redis_back", listener="arq")
            self._away = False

    async def _listen(self) -> None:
        redis: Any = self.pool
        while True:
            try:
                ring = await redis.blpop([WAKE], timeout=LISTEN_SECONDS)
            except AWAY:
                await asyncio.sleep(POLL_SECONDS)
                continue
            if ring is not None:
                await self._hear(ring[1])

    async def _hear(self, ring: bytes) -> None:
        """Run the job a ring carries. One that cannot be read or run is left to the queue, where arq reports it."""
        job_id, body = ring[:ID_LENGTH].decode(errors="replace"), ring[ID_LENGTH:]
        try:
            name, args, _, _, _ = deserialize_job_raw(body, deserializer=self.job_deserializer)
            function: Any = self.functions[name]
            async with asyncio.timeout(JOB_SECONDS):
                await function.coroutine({**self.ctx, "job_id": job_id}, *args)
        except Exception as error:
            log.warning("ring_not_understood", job=job_id, error=repr(error))
        else:
            self._heard.strike(job_id)

    def _release_sem_dec_counter_on_complete(self) -> None:
        """A slot came free. When all were taken, jobs may be left in the queue: look again at once."""
        full = self.job_counter >= self.max_jobs
        super()._release_sem_dec_counter_on_complete()
        if full:
            self._wake.set()

    async def heart_beat(self) -> None:
        """arq's own health key and crons are not used: readiness is the worker's, timers are PostgreSQL's."""

    async def retire(self) -> None:
        """Take no more jobs: what rings from now on is for workers that stay."""
        self.allow_pick_jobs = False
        await end(self._listener)

    async def stop(self) -> None:
        """Take no more jobs, let those in hand end, close the connections. With Redis away, what hangs is dropped."""
        self.allow_pick_jobs = False
        self._stopping = True
        self._wake.set()
        if self.main_task is not None:
            await asyncio.wait({self.main_task}, timeout=STOP_SECONDS)
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=STOP_SECONDS)
        await end(self.main_task, *self.tasks.values())
        await self._heard.close()
        with contextlib.suppress(*AWAY):
            await self.pool.aclose(close_connection_pool=True)
