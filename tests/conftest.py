"""Fixtures of the whole suite. Each test that asks for a database gets its own, on a real PostgreSQL."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import hypothesis
import pytest
import redis.asyncio
import structlog
from argon2 import PasswordHasher

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.settings import Settings
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tests.support import servers
from tests.support.databases import Databases

# Whether a change is accepted must not depend on what chance tries, nor on how busy the machine is. To look for what no
# example has found yet: make test ARGS="tests/property --hypothesis-profile=chance"
hypothesis.settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("chance", deadline=None)
hypothesis.settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Logs without colours and boxes: structlog's default draws tracebacks for a second each."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Passwords that are hashed in no time: as it is meant to be, one takes a tenth of a second of all cores."""
    cheap = functools.partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tenants.users.PasswordHasher", cheap)
        yield


class _WithoutTracebacks(logging.Filter):
    """Keeps asyncio's complaints to one line.

    They are written while garbage is collected. Formatting a traceback parses source, and before Python 3.11.8 a parse
    inside a parse that garbage collection interrupted breaks the outer one (SystemError: AST constructor recursion).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.msg = f"{record.getMessage()}: {record.exc_info[1]!r}"
            record.args, record.exc_info = (), None
        return True


logging.getLogger("asyncio").addFilter(_WithoutTracebacks())


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The suite's PostgreSQL server."""
    server = servers.start_postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """The suite's Valkey server."""
    server = servers.start_valkey()
    yield server
    server.stop()


@pytest.fixture(scope="session")
async def databases(postgres: EmbeddedPostgres) -> AsyncIterator[Databases]:
    """Makes databases: `await databases.create()`."""
    databases = await Databases.open(postgres)
    yield databases
    await databases.close()


@pytest.fixture
async def dsn(databases: Databases) -> AsyncIterator[str]:
    """A fresh migrated database of this test, as a libpq URL."""
    name = await databases.create()
    yield databases.dsn(name)
    databases.drop(name)


@pytest.fixture
async def empty_dsn(databases: Databases) -> AsyncIterator[str]:
    """A fresh database of this test without any table."""
    name = await databases.create(migrated=False)
    yield databases.dsn(name)
    databases.drop(name)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    """The test's database, connected."""
    database = await Database(dsn, size=5).connect()
    yield database
    await database.close()


@pytest.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the test's database, for looking behind the walls."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def redis_url(valkey: EmbeddedValkey, databases: Databases) -> str:
    """An empty Redis database of this test. Channels are not separated by database."""
    url = valkey.url(await databases.redis_number())
    async with redis.asyncio.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture(name="redis")
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's Redis database."""
    async with redis.asyncio.from_url(redis_url) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at 2026-01-01T00:00:00Z until the test moves it."""
    return ManualClock()


@pytest.fixture
def ids(clock: ManualClock) -> Ids:
    """Ids that are the same in every run."""
    return Ids(clock, entropy=random.Random(20260101).randbytes)


@pytest.fixture
def settings(dsn: str, redis_url: str) -> Settings:
    """Settings of a process that uses the test's database and Redis."""
    return Settings(database_url=dsn, redis_url=redis_url, secret="of the test suite, and long enough", metrics_bind="")


@pytest.fixture
async def account(admin: asyncpg.Connection, clock: ManualClock, ids: Ids) -> UUID:
    """An account without anything."""
    account_id = ids.account_id()
    await admin.execute(
        "insert into account (account_id, name, created_at, modified_at) values ($1, 'test', $2, $2)",
        account_id,
        clock.now(),
    )
    return account_id
