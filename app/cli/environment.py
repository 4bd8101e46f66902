"""Settings of a process that works on the database directly, completed from a `millrace dev` installation.

`MILLRACE_DATA_DIR`, or a `.millrace` folder here when no database is set, points commands at an installation: they use
its database, its Redis and its secret. Services that do not run are started for the command and stopped after it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg
import click

from app.cli.installation import DATABASE, DEFAULT_DIRECTORY, Installation
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.service import Service
from app.schema_errors import SchemaDiffers
from app.settings import Settings, SettingsError, load_settings
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService

NO_DATABASE = (
    "No database: set MILLRACE_DATABASE_URL, or point MILLRACE_DATA_DIR at the data folder of a `millrace dev`."
)


@dataclass(frozen=True, slots=True)
class Direct:
    """What a command that works on the database directly has."""

    settings: Settings
    db: Database
    clock: Clock
    ids: Ids
    tenants: TenantService


@asynccontextmanager
async def direct() -> AsyncIterator[Direct]:
    """The database and the accounts, for operators' commands. No server has to run; Redis is not used."""
    async with process_settings(redis=False) as settings, opened(settings) as opened_direct:
        yield opened_direct


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Direct]:
    """The database `settings` name. Raises :class:`SettingsError` when the secret is missing or too short."""
    settings.require_secret()
    db = Database(settings.database_url, size=2)
    try:
        await db.connect()
        clock = Clock(await db.now())
        ids = Ids(clock)
        tenants = TenantService(db, clock, ids, settings)
        try:
            yield Direct(settings, db, clock, ids, tenants)
        finally:
            await tenants.close()
    finally:
        await db.close()


@contextmanager
def own_data(installation: Installation) -> Iterator[None]:
    """Where the database is the installation's own and another build's: say which folders would have to go."""
    try:
        yield
    except SchemaDiffers as error:
        raise error.with_remedy(f"begin anew after `{installation.removal()}`") from None


@asynccontextmanager
async def process_settings(*, redis: bool = True) -> AsyncIterator[Settings]:
    """Complete settings; services of an installation run at least as long as the context is open.

    Raises :class:`SettingsError` when no database is named, and what starting the services raises.
    """
    settings = load_settings()
    _check_schemes(settings)
    installation = find_installation(settings)
    if installation is None:
        if not settings.database_url:
            raise SettingsError(NO_DATABASE)
        yield settings
        return
    async with AsyncExitStack() as stack:
        marker = installation.marker
        values = {
            "data_dir": installation.directory,
            "secret": settings.secret or installation.secret(),
            "database_url": settings.database_url or marker.database_url,
            "redis_url": settings.redis_url or marker.redis_url or "",
        }
        if not values["database_url"]:
            stack.enter_context(own_data(installation))
            postgres = installation.postgres()
            await stack.enter_async_context(_used_for_a_command(postgres))
            values["database_url"] = await own_database(postgres)
        if redis and not values["redis_url"]:
            valkey = installation.valkey()
            await stack.enter_async_context(_used_for_a_command(valkey))
            values["redis_url"] = valkey.url()
        yield dataclasses.replace(settings, **values)


def _check_schemes(settings: Settings) -> None:
    """Refuse an address no driver would take, before one of them says so less clearly."""
    for field, value, schemes in (
        ("DATABASE", settings.database_url, ("postgresql://", "postgres://")),
        ("REDIS", settings.redis_url, ("redis://", "rediss://", "unix://")),
    ):
        if value and not value.startswith(schemes):
            raise SettingsError(f"MILLRACE_{field}_URL must begin with {' or '.join(schemes)}.")


def find_installation(settings: Settings) -> Installation | None:
    """The installation a command is pointed at. Raises :class:`InstallationError` when a folder was named in vain."""
    if settings.data_dir is not None:
        return Installation.open(settings.data_dir)
    if not settings.database_url and (DEFAULT_DIRECTORY / "millrace.json").exists():
        return Installation.open(DEFAULT_DIRECTORY)
    return None


def _used_for_a_command(service: Service) -> AbstractAsyncContextManager[None]:
    """As :func:`used`; whoever waits at a terminal is told what for."""
    if sys.stderr.isatty() and not service.running():
        click.echo(f"Starting {service.title} …", err=True)
    return used(service)


@asynccontextmanager
async def used(service: Service) -> AsyncIterator[None]:
    """Start or adopt a service, and leave it afterwards; also when cancelled while it starts."""
    starting = asyncio.create_task(asyncio.to_thread(service.start))
    try:
        await asyncio.shield(starting)
        yield
    finally:
        await asyncio.wait({starting})
        if starting.exception() is None:
            await asyncio.to_thread(service.stop)


async def own_database(postgres: EmbeddedPostgres) -> str:
    """URL of the platform's database on an embedded server; the database is made when missing."""
    connection = await asyncpg.connect(postgres.dsn())
    try:
        if not await connection.fetchval("select exists (select from pg_database where datname = $1)", DATABASE):
            await connection.execute(f"create database {DATABASE} template template0")
    finally:
        await connection.close()
    return postgres.dsn(DATABASE)
