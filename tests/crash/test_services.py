"""PostgreSQL and Redis fail under a running installation. Both are servers of the test's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.migrations import migrate
from app.settings import Settings
from instances.lifecycle import Kind
from tests.crash.installation import Installation, hold, installed, mark
from tests.support.servers import POSTGRES_SETTINGS, VALKEY_SETTINGS, scratch_home

pytestmark = pytest.mark.crash

INSTANCES = 10


@dataclass(frozen=True)
class Servers:
    """Servers a test may stop and start."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    home = scratch_home()
    both = Servers(EmbeddedPostgres(home, settings=POSTGRES_SETTINGS), EmbeddedValkey(home, settings=VALKEY_SETTINGS))
    both.postgres.start()
    both.valkey.start()
    yield both
    both.valkey.stop()
    both.postgres.stop()
    shutil.rmtree(home)


@pytest.fixture
async def own_site(servers: Servers, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation on the test's own servers."""
    settings = Settings(
        database_url=servers.postgres.dsn(),
        redis_url=servers.valkey.url(),
        secret="of the crash tests, and long enough",
        metrics_bind="",
    )
    await migrate(settings.database_url)
    async with installed(settings, tmp_path) as installation:
        yield installation


async def test_redis_forgets_everything_again_and_again(own_site: Installation, servers: Servers) -> None:
    site = own_site
    nodes = [
        mark("a"),
        {"id": "w", "type": "wait", "depends_on": ["a"], "config": {"duration": "1 second"}},
        {"id": "e", "type": "wait_for_event", "depends_on": ["w"], "config": {"event": "go"}},
        mark("b", "e"),
    ]
    await site.deploy("forgotten", nodes)
    await site.start("worker")
    async with Redis.from_url(servers.valkey.url()) as redis, _forgetting(redis):
        created = await site.create("forgotten", INSTANCES)
        await site.eventually(lambda: _wait(site))
        await asyncio.gather(*(site.send("forgotten", id, "go", number) for number, id in enumerate(created)))
        await site.all_are("forgotten", "complete")
    assert len(await site.entries(Kind.WAIT_COMPLETED)) == INSTANCES
    assert len(site.executions()) == 2 * INSTANCES


@asynccontextmanager
async def _forgetting(redis: Redis) -> AsyncIterator[None]:
    """Empty all of Redis every few milliseconds."""

    async def flush() -> None:
        while True:
            await redis.flushall()
            await asyncio.sleep(0.02)

    flushing = asyncio.create_task(flush())
    try:
        yield
        assert not flushing.done()
    finally:
        flushing.cancel()


async def _wait(site: Installation) -> bool:
    return len(await site.entries(Kind.WAIT_STARTED)) == INSTANCES


async def test_redis_dies_and_stays_away(own_site: Installation, servers: Servers) -> None:
    site = own_site
    await site.deploy("alone", [mark("a"), {"id": "e", "type": "wait_for_event", "config": {"event": "go"}}])
    await site.start("worker")
    [before] = await site.create("alone", 1)
    pid = servers.valkey.process_id()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        [after] = await site.create("alone", 1)
        for id in (before, after):
            await site.send("alone", id, "go", 1)
        await site.all_are("alone", "complete")
    finally:
        await asyncio.to_thread(servers.valkey.revive)


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_postgresql_is_away_for_a_moment(how: str, own_site: Installation, servers: Servers) -> None:
    site, name = own_site, f"database-{how}"
    await site.deploy(name, [mark("a"), hold("b", "a"), mark("c", "b")])
    worker = await site.start("worker")
    await site.create(name, INSTANCES)
    await site.eventually(lambda: _inside(site))
    before = await site.snapshot()
    assert {step for _, step, _ in before.completed} == {"a"}

    await asyncio.to_thread(_fail, servers.postgres, how)
    site.let_go(worker)  # results that cannot be written now
    await asyncio.to_thread(servers.postgres.start)
    await site.all_are(name, "complete")
    await site.create(name, 1)
    await site.all_are(name, "complete")
    await site.nothing_ran_twice(before)
    assert len(await site.completed()) == 3 * (INSTANCES + 1)
    assert worker.lives


async def _inside(site: Installation) -> bool:
    """Whether every instance is in its second step."""
    return len(site.executions()) == 2 * INSTANCES


def _fail(server: EmbeddedPostgres, how: str) -> None:
    if how == "restarted":
        assert server.stop()
        return
    pid = server.process_id()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
