"""Bring a database to this release's schema: Piccolo migrations in order, then the engine's SQL functions.

One migrator at a time (advisory lock). Functions are installed anew whenever their text changed, so that a release
can change a function without a migration file; whose they are is noted, so that an older release leaves them alone.

With each migration applied its **fingerprint** is stored: a hash of its `SCHEMA`, comments and spacing apart. Before a
release an initial migration may still be edited, and a database made from the earlier text has the right ids and the
wrong tables: such a database is refused, by a sentence rather than by the first statement that fails. A new migration
has a fingerprint of its own, so it leaves those before it as they were.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re

import asyncpg
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import run_forwards

from app import __version__
from app.schema_errors import SchemaDiffers, SchemaTooNew
from instances.engine import faults
from instances.engine.store import function_scripts
from tenants.database import PICCOLO_ENGINE, run_script

LOCK = 0x4D494C4C  # any fixed number: one migrator at a time
FUNCTIONS = "functions"
"""What :func:`pending` and :func:`migrate` call the engine's functions."""

# The digest is `<release>/<SHA-256 of the functions' text>`.
CREATE_INSTALLED = "create table if not exists installed_functions (digest text not null)"
INSTALLED = "select digest from installed_functions"

CREATE_FINGERPRINTS = """
create table if not exists migration_fingerprint (
  name text primary key, fingerprint text not null, release text not null)
"""
NOTE_FINGERPRINTS = """
insert into migration_fingerprint (name, fingerprint, release)
select name, fingerprint, $3 from unnest($1::text[], $2::text[]) t (name, fingerprint)
on conflict (name) do nothing
"""
FINGERPRINTS = "select name, fingerprint, release from migration_fingerprint order by name"

# A text in quotes, which is kept, or a comment.
_TEXT_OR_COMMENT = re.compile(r"('(?:[^']|'')*')|--[^\n]*")


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing; returns what it was, as :func:`pending` does. Raises :class:`SchemaUnusable`."""
    guard = await asyncpg.connect(dsn)
    try:
        await guard.execute("select pg_advisory_lock($1)", LOCK)
        missing = await _pending(guard)
        if set(missing) - {FUNCTIONS}:
            await _run_migrations(dsn)
        faults.point("functions-not-installed")
        if FUNCTIONS in missing:
            await _install_functions(guard)
        return missing
    finally:
        await guard.close()


async def pending(dsn: str) -> list[str]:
    """Ids of migrations not applied yet, in order, and :data:`FUNCTIONS` when the engine's are not this release's.

    Raises :class:`SchemaTooNew` when a newer release has been there, :class:`SchemaDiffers` when another build has.
    """
    connection = await asyncpg.connect(dsn)
    try:
        return await _pending(connection)
    finally:
        await connection.close()


def this_build() -> str:
    """The release and the schema of this build, for people who compare builds."""
    return _build_called(__version__, _known())


async def check_schema(dsn: str) -> None:
    """Refuse a database that no migration of this build makes fit, as :func:`pending` does.

    Missing migrations are no obstacle: a process may be started while they are run, and is not ready until then.
    """
    await pending(dsn)


async def _pending(connection: asyncpg.Connection) -> list[str]:
    known = _known()
    applied: set[str] = set()
    if await connection.fetchval("select to_regclass('migration') is not null"):
        applied = {row["name"] for row in await connection.fetch("select name from migration")}
    if unknown := applied - known.keys():
        raise SchemaTooNew(
            "the database was migrated by a newer Millrace "
            f"(it has {len(unknown)} migrations this release does not know)"
        )
    await _check_fingerprints(connection, applied)
    missing = [name for name in known if name not in applied]
    return missing if await _functions_fit(connection) else [*missing, FUNCTIONS]


async def _check_fingerprints(connection: asyncpg.Connection, applied: set[str]) -> None:
    """Raise :class:`SchemaDiffers` unless what was `applied` was what this build would apply."""
    rows: list[asyncpg.Record] = []
    if await connection.fetchval("select to_regclass('migration_fingerprint') is not null"):
        rows = await connection.fetch(FINGERPRINTS)
    stored = {row["name"]: row["fingerprint"] for row in rows}
    if any(stored.get(name) != _known()[name] for name in applied):
        made_by = _build_called(rows[-1]["release"], stored) if rows else "an early one, schema unknown"
        raise SchemaDiffers(made_by, this_build())


def _build_called(release: str, fingerprints: dict[str, str]) -> str:
    together = "\n".join(f"{name} {fingerprints[name]}" for name in sorted(fingerprints))
    return f"{release}, schema {hashlib.sha256(together.encode()).hexdigest()[:8]}"


async def _functions_fit(connection: asyncpg.Connection) -> bool:
    """Whether the engine's functions are this release's. Raises :class:`SchemaTooNew` for those of a newer one."""
    if not await connection.fetchval("select to_regclass('installed_functions') is not null"):
        return False
    release, _, digest = str(await connection.fetchval(INSTALLED)).rpartition("/")
    if digest == _functions_digest():
        return True
    if _numbers(release) > _numbers(__version__):
        raise SchemaTooNew(f"the database was migrated by Millrace {release}, which is newer than this one")
    return False


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


@functools.cache
def _functions_digest() -> str:
    return hashlib.sha256(_functions().encode()).hexdigest()


def _functions() -> str:
    return "\n".join(function_scripts())


async def _run_migrations(dsn: str) -> None:
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    PICCOLO_ENGINE.pool = pool
    try:
        # One transaction around all: Piccolo's own end before it notes that a migration was applied.
        async with PICCOLO_ENGINE.transaction():
            with contextlib.redirect_stdout(io.StringIO()) as said:
                result = await run_forwards("all")
            if not result.success:
                raise RuntimeError(f"migration failed: {said.getvalue().strip()}")
            await _note_fingerprints()
            faults.point("migrations-not-committed")
    finally:
        PICCOLO_ENGINE.pool = None
        await pool.close()


async def _note_fingerprints() -> None:
    """Store those of all migrations, in the transaction that applies the missing ones; the others are as stored."""
    known = _known()
    await run_script(CREATE_FINGERPRINTS)
    await run_script(NOTE_FINGERPRINTS, list(known), list(known.values()), __version__)


@functools.cache
def _known() -> dict[str, str]:
    """Fingerprints of this build's migrations by id, in the order in which they are applied."""
    os.environ.setdefault("PICCOLO_CONF", "piccolo_conf")
    manager = BaseMigrationManager()
    known: dict[str, str] = {}
    for config in manager.sort_app_configs(manager.get_app_configs()):
        modules = manager.get_migration_modules(config.resolved_migrations_folder_path)
        known |= {name: fingerprint(vars(modules[name])["SCHEMA"]) for name in manager.get_migration_ids(modules)}
    return known


def fingerprint(script: str) -> str:
    """64 hex characters that say what an SQL script does: other comments, line breaks and indents change nothing."""
    bare = _TEXT_OR_COMMENT.sub(lambda match: match[1] or " ", script)
    return hashlib.sha256(" ".join(bare.split()).encode()).hexdigest()


async def _install_functions(connection: asyncpg.Connection) -> None:
    script = _functions()
    async with connection.transaction():
        await connection.execute(CREATE_INSTALLED)
        await _drop_functions(connection, re.findall(r"create or replace function (\w+)", script))
        await connection.execute(script)
        faults.point("functions-half-installed")
        await connection.execute("delete from installed_functions")
        stamp = f"{__version__}/{_functions_digest()}"
        await connection.execute("insert into installed_functions values ($1)", stamp)


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
