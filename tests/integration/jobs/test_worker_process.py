"""A worker process from start to drained, with a recording engine in place of the real one."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from app.settings import Settings
from jobs.channels import Pokes
from jobs.doorbell import ArqDoorbell
from jobs.feed_publisher import FeedPublisher
from jobs.metrics import WORKER_HEARTBEAT, WORKER_READY
from jobs.termination.requests import TerminationJobs
from jobs.worker import WorkerServices, run
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tenants.limits import Limits

ACCOUNT, KEY = UUID(int=1), UUID(int=2)


class Engine:
    """Records what is asked of it; drains when let."""

    worker_id = 72_001

    def __init__(self) -> None:
        self.said: list[str] = []
        self.poked: list[tuple[UUID, UUID]] = []
        self.may_drain = asyncio.Event()

    async def start(self) -> None:
        self.said.append("start")

    def wake(self) -> None:
        self.said.append("wake")

    def poke(self, account_id: UUID, key: UUID) -> bool:
        self.poked.append((account_id, key))
        return True

    async def drain(self, grace: float) -> None:
        self.said.append(f"drain {grace:g}")
        await self.may_drain.wait()
        self.said.append("drained")

    async def stop(self) -> None:
        self.said.append("stop")


class Tenants:
    async def forget_expired(self, limit: int = 1000) -> int:
        return 0

    async def limits(self, account_id: UUID) -> Limits:
        return Limits()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def recorder() -> Engine:
    return Engine()


@pytest.fixture
def services(db: Database, clock: ManualClock, settings: Settings, recorder: Engine, engine: Any) -> WorkerServices:
    return WorkerServices(
        db=db,
        clock=clock,
        settings=settings,
        tenants=Tenants(),
        engine=recorder,
        client=engine,
        feed=FeedPublisher.at(settings.redis_url),
    )


@pytest.fixture
async def stop(services: WorkerServices, recorder: Engine) -> AsyncIterator[asyncio.Event]:
    """A running worker; set to have it leave."""
    stop = asyncio.Event()
    running = asyncio.create_task(run(services, stop=stop))
    await until(lambda: WORKER_READY._value.get() == 1)
    yield stop
    recorder.may_drain.set()
    stop.set()
    async with asyncio.timeout(10):
        await running


async def test_rings_reach_the_engine(stop, recorder: Engine, redis_url: str, clock: ManualClock, ids: Ids) -> None:
    doorbell = ArqDoorbell.at(redis_url, clock, ids)
    await doorbell.ring("run_instances")
    await until(lambda: "wake" in recorder.said)
    await doorbell.ring("change_status", [(ACCOUNT, KEY, recorder.worker_id)])
    await until(lambda: recorder.poked == [(ACCOUNT, KEY)])
    await doorbell.close()


async def test_pokes_of_other_workers_reach_the_engine(stop, recorder: Engine, redis_url: str) -> None:
    pokes = Pokes.at(redis_url)
    async with asyncio.timeout(10):
        while not recorder.poked:
            pokes.poke(recorder.worker_id, [(ACCOUNT, KEY)])
            await asyncio.sleep(0.01)
    assert set(recorder.poked) == {(ACCOUNT, KEY)}
    await pokes.close()


async def test_termination_jobs_are_done_and_own_runs_poked(stop, world, recorder, db, clock, ids, redis_url) -> None:
    [held] = await world.create()
    await world.hold([held], owner=recorder.worker_id)
    doorbell = ArqDoorbell.at(redis_url, clock, ids)
    jobs = TerminationJobs(db, clock, ids, doorbell)
    await jobs.start(world.account, world.workflow, "terminate_all")
    async with asyncio.timeout(10):
        while await jobs.running(world.account, world.workflow):
            await asyncio.sleep(0.01)
    await until(lambda: recorder.poked == [(world.account, held)])
    await doorbell.close()


async def test_asked_to_leave_it_drains_then_stops(stop, recorder: Engine, clock: ManualClock) -> None:
    await until(lambda: WORKER_HEARTBEAT._value.get() == clock.now().timestamp())
    stop.set()
    await until(lambda: recorder.said[-1] == "drain 20")
    assert WORKER_READY._value.get() == 0
    assert "stop" not in recorder.said
    recorder.may_drain.set()
    await until(lambda: recorder.said[-2:] == ["drained", "stop"])


async def test_sigterm_drains_and_a_second_one_hurries(services: WorkerServices, recorder: Engine) -> None:
    ready = asyncio.Event()
    running = asyncio.create_task(run(services, on_ready=ready.set))
    await ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: recorder.said[-1] == "drain 20")
    assert not running.done()
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(10):
        await running
    assert recorder.said[-1] == "stop"
    assert "drained" not in recorder.said


async def test_it_works_without_redis(db, clock, recorder: Engine, engine, world) -> None:
    settings = Settings(redis_url="unix:///nowhere/redis.sock")
    services = WorkerServices(db=db, clock=clock, settings=settings, tenants=Tenants(), engine=recorder, client=engine)
    stop = asyncio.Event()
    running = asyncio.create_task(run(services, stop=stop))
    [key] = await world.create(success_retention_ms=0)
    await world.end([key])
    clock.advance(1)
    async with asyncio.timeout(10):
        while await world.statuses():
            await asyncio.sleep(0.02)
    recorder.may_drain.set()
    stop.set()
    async with asyncio.timeout(10):
        await running


@pytest.mark.parametrize("previous", ["", "the secret before, long enough as well"])
async def test_secrets_are_renewed_only_while_there_is_a_previous_one(
    services: WorkerServices, recorder: Engine, previous: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripts:
        renewed = 0

        async def renew_secrets(self) -> int:
            self.renewed += 1
            return 1

    monkeypatch.setattr("jobs.worker.SELDOM", 0.01)
    scripts, stop = Scripts(), asyncio.Event()
    settings = dataclasses.replace(services.settings, secret_previous=previous)
    rotating = dataclasses.replace(services, settings=settings, scripts=scripts)
    running = asyncio.create_task(run(rotating, stop=stop))
    await until(lambda: WORKER_READY._value.get() == 1 and bool(scripts.renewed) == bool(previous))
    recorder.may_drain.set()
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert bool(scripts.renewed) == bool(previous)
