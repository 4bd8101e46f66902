"""Fresh, migrated databases in milliseconds: one migrated template per schema, cloned for every test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os

import asyncpg

from app.embedded.postgres import EmbeddedPostgres
from app.migrations import migrate
from tests.support.servers import CHECKOUT, REDIS_DATABASES

SCHEMA_SOURCES = (
    "*/piccolo_migrations/*.py",
    "instances/engine/sql/*.sql",
    "instances/engine/store.py",
    "app/migrations.py",
)
LOCK = 0x7E57
KEPT_TEMPLATES = 3


class Databases:
    """Clones of the template on one server.

    The clone for the next test is made, and that of the last one dropped, while a test runs: the server does it on
    another core.
    """

    def __init__(self, server: EmbeddedPostgres, admin: asyncpg.Connection, template: str) -> None:
        self._server = server
        self._admin = admin
        self._one_at_a_time = asyncio.Lock()
        self._template = template
        self._made = 0
        self._next: asyncio.Task[str] | None = None
        self._drops: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, server: EmbeddedPostgres) -> Databases:
        """Find or build the template of the current schema and remove what dead sessions left behind."""
        admin = await asyncpg.connect(server.dsn())
        template = f"template_{_schema_digest()}"
        await admin.execute("select pg_advisory_lock($1)", LOCK)
        try:
            await admin.execute("create sequence if not exists redis_database maxvalue 2147483647 cycle")
            if not await admin.fetchval("select exists (select from pg_database where datname = $1)", template):
                await _build(server, admin, template)
            await _clean_up(admin, template)
        finally:
            await admin.execute("select pg_advisory_unlock($1)", LOCK)
        return cls(server, admin, template)

    async def close(self) -> None:
        await asyncio.gather(*self._drops)
        if self._next is not None:
            await self._drop(await self._next)
        await self._admin.close()

    async def create(self, *, migrated: bool = True) -> str:
        """A new database's name; empty unless `migrated`."""
        if not migrated:
            return await self._create("template0")
        name = await self._next if self._next is not None else await self._create(self._template)
        self._next = asyncio.create_task(self._create(self._template))
        return name

    def drop(self, name: str) -> asyncio.Task[None]:
        """Drop a database; nobody has to wait for it."""
        task = asyncio.create_task(self._drop(name))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)
        return task

    def dsn(self, name: str) -> str:
        return self._server.dsn(name)

    async def redis_number(self) -> int:
        """A Redis database number no session running now has; 0 is left alone."""
        async with self._one_at_a_time:
            turn: int = await self._admin.fetchval("select nextval('redis_database')")  # type: ignore[assignment]
        return 1 + turn % (REDIS_DATABASES - 1)

    async def _create(self, template: str) -> str:
        self._made += 1
        name = f"test_{os.getpid()}_{self._made}"
        async with self._one_at_a_time:
            await self._admin.execute(f"create database {name} template {template}")
        return name

    async def _drop(self, name: str) -> None:
        async with self._one_at_a_time:
            await self._admin.execute(f"drop database if exists {name} with (force)")


def _schema_digest() -> str:
    digest = hashlib.sha256()
    for pattern in SCHEMA_SOURCES:
        for path in sorted(CHECKOUT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


async def _build(server: EmbeddedPostgres, admin: asyncpg.Connection, template: str) -> None:
    """Build under another name, so that an interrupted build is never taken for a template."""
    await admin.execute("drop database if exists building with (force)")
    await admin.execute("create database building template template0")
    await migrate(server.dsn("building"))
    await admin.execute(f"alter database building rename to {template}")


async def _clean_up(admin: asyncpg.Connection, template: str) -> None:
    """Drop databases of sessions that are gone and templates of schemas nobody has any more."""
    rows = await admin.fetch("select datname, oid from pg_database order by oid")
    names = [row["datname"] for row in rows]
    old = [name for name in names if name.startswith("template_") and name != template]
    dead = [name for name in names if name.startswith("test_") and not _alive(int(name.split("_")[1]))]
    for name in old[:-KEPT_TEMPLATES] + dead:
        with contextlib.suppress(asyncpg.ObjectInUseError):
            await admin.execute(f"drop database if exists {name} with (force)")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
