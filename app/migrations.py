"""Bring a database to this release's schema: Piccolo migrations in order, then the engine's SQL functions.

One migrator at a time (advisory lock). Functions are installed anew whenever their text changed, so that a release
can change a function without a migration file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re

import asyncpg
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import run_forwards

from instances.engine import faults
from instances.engine.store import function_scripts
from tenants.database import PICCOLO_ENGINE

LOCK = 0x4D494C4C  # any fixed number: one migrator at a time


class SchemaTooNew(Exception):
    """The database was migrated by a newer release."""


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing; returns the ids of the migrations applied. Raises :class:`SchemaTooNew`."""
    os.environ.setdefault("PICCOLO_CONF", "piccolo_conf")
    guard = await asyncpg.connect(dsn)
    try:
        await guard.execute("select pg_advisory_lock($1)", LOCK)
        missing = await pending(dsn)
        if missing:
            pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
            PICCOLO_ENGINE.pool = pool
            try:
                # One transaction around all: Piccolo's own end before it notes that a migration was applied.
                async with PICCOLO_ENGINE.transaction():
                    with contextlib.redirect_stdout(io.StringIO()) as said:
                        result = await run_forwards("all")
                    if not result.success:
                        raise RuntimeError(f"migration failed: {said.getvalue().strip()}")
                    faults.point("migrations-not-committed")
            finally:
                PICCOLO_ENGINE.pool = None
                await pool.close()
        faults.point("functions-not-installed")
        await _install_functions(guard)
        return missing
    finally:
        await guard.close()


async def pending(dsn: str) -> list[str]:
    """Ids of migrations not applied yet, in order. Raises :class:`SchemaTooNew` for unknown applied ones."""
    os.environ.setdefault("PICCOLO_CONF", "piccolo_conf")
    known = await _known_ids()
    connection = await asyncpg.connect(dsn)
    try:
        applied: set[str] = set()
        if await connection.fetchval("select to_regclass('migration') is not null"):
            applied = {row["name"] for row in await connection.fetch("select name from migration")}
    finally:
        await connection.close()
    if unknown := applied - set(known):
        raise SchemaTooNew(
            "the database was migrated by a newer Millrace "
            f"(it has {len(unknown)} migrations this release does not know)"
        )
    return [name for name in known if name not in applied]


async def _known_ids() -> list[str]:
    manager = BaseMigrationManager()
    ids: list[str] = []
    for config in manager.sort_app_configs(manager.get_app_configs()):
        ids += manager.get_migration_ids(manager.get_migration_modules(config.resolved_migrations_folder_path))
    return ids


async def _install_functions(connection: asyncpg.Connection) -> None:
    script = "\n".join(function_scripts())
    digest = hashlib.sha256(script.encode()).hexdigest()
    await connection.execute("create table if not exists installed_functions (digest text not null)")
    if await connection.fetchval("select digest from installed_functions") == digest:
        return
    async with connection.transaction():
        await _drop_functions(connection, re.findall(r"create or replace function (\w+)", script))
        await connection.execute(script)
        faults.point("functions-half-installed")
        await connection.execute("delete from installed_functions")
        await connection.execute("insert into installed_functions values ($1)", digest)


async def _drop_functions(connection: asyncpg.Connection, names: list[str]) -> None:
    """Remove what an earlier release installed: a function whose result has changed cannot be replaced, and one whose
    arguments have changed would stay beside the new one.
    """
    stale = await connection.fetch(
        "select oid::regprocedure::text as signature from pg_proc"
        " where proname = any ($1) and pronamespace = 'public'::regnamespace",
        names,
    )
    for row in stale:
        await connection.execute(f"drop function {row['signature']}")
