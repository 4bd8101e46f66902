"""Databases of other builds: what no migration makes fit is refused in one sentence, and left as it is."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app import __version__
from app.cli.doctor import examine
from app.composition import Platform
from app.migrations import _known, check_schema, fingerprint, migrate, pending, this_build
from app.schema_errors import SchemaDiffers, SchemaTooNew
from app.settings import Settings
from jobs import piccolo_app
from tests.support.api import client_of
from tests.support.servers import CHECKOUT

INITIAL = "2026-11-21T09:00:00:000002"
LATER = "2099-01-01T00:00:00:000000"
LATER_MIGRATION = """
from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from tenants.database import run_script

ID = "2099-01-01T00:00:00:000000"
SCHEMA = "create table made_later (n int);"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="jobs")

    async def apply():
        await run_script(SCHEMA)

    manager.add_raw(apply)
    return manager
"""
OTHERS = "update migration_fingerprint set fingerprint = 'of another text' where name = $1"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`build(old, new)`: from now on this is a build whose migrations of `versions` say `new` instead of `old`."""
    _known()  # imports the modules
    module = sys.modules["versions_0001_initial"]

    def change(old: str, new: str) -> None:
        assert old in module.SCHEMA
        monkeypatch.setattr(module, "SCHEMA", module.SCHEMA.replace(old, new))
        _known.cache_clear()

    yield change
    _known.cache_clear()


@pytest.fixture
def later_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """From the call on, this is a release with one migration more."""
    _known()

    def release() -> None:
        for file in Path(piccolo_app.APP_CONFIG.migrations_folder_path).glob("jobs_*.py"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "jobs_9999_later.py").write_text(LATER_MIGRATION)
        monkeypatch.setattr(piccolo_app.APP_CONFIG, "migrations_folder_path", str(tmp_path))
        monkeypatch.syspath_prepend(tmp_path)
        _known.cache_clear()

    yield release
    sys.modules.pop("jobs_9999_later", None)
    _known.cache_clear()


async def contents(admin: asyncpg.Connection) -> list[asyncpg.Record]:
    """All tables and columns, and what the database knows of its migrations."""
    columns = (
        "select table_name, column_name from information_schema.columns where table_schema = 'public' order by 1, 2"
    )
    noted = "select name, fingerprint, release from migration_fingerprint order by 1"
    return [*await admin.fetch(columns), *await admin.fetch(noted)]


class TestAnotherBuild:
    async def test_a_database_made_before_a_migration_was_edited_is_refused_and_left_alone(self, empty_dsn, build):
        build("create table schedule (", "create table schedule (was_there_once int,")
        made_by = this_build()
        await migrate(empty_dsn)
        assert await pending(empty_dsn) == []
        admin = await asyncpg.connect(empty_dsn)
        try:
            before = await contents(admin)
            build("was_there_once int,", "")
            for refuses in (pending, migrate, check_schema):
                with pytest.raises(SchemaDiffers) as raised:
                    await refuses(empty_dsn)
                message = str(raised.value)
                assert made_by != this_build()
                assert f"another build of Millrace ({made_by}) than this one ({this_build()})" in message
                assert "go on with that build, or make a new database" in message
            assert await contents(admin) == before
        finally:
            await admin.close()

    async def test_a_database_of_before_fingerprints_were_kept_is_refused(self, dsn, admin):
        await admin.execute("drop table migration_fingerprint")
        with pytest.raises(SchemaDiffers, match="an early one, schema unknown"):
            await migrate(dsn)

    async def test_other_comments_and_spacing_are_the_same_build(self, dsn, build):
        before = this_build()
        build(
            "create table schedule (", "-- It's when workflows start.\n  create  table\n\tschedule ( -- by themselves\n"
        )
        assert await pending(dsn) == []
        assert this_build() == before

    def test_a_fingerprint_is_of_what_a_script_does(self):
        script = "create table t (a text default '--',\n  b int); -- it's that"
        assert fingerprint(script) == fingerprint("-- for a\ncreate table t (a text default '--', b int);")
        assert fingerprint(script) != fingerprint("create table t (a text default '', b int);")
        assert fingerprint(script) != fingerprint("create table t (a text default '--', c int);")


class TestReleases:
    async def test_a_new_migration_is_applied_to_what_an_earlier_release_made(self, dsn, admin, later_release):
        before = await admin.fetch("select * from migration_fingerprint order by name")
        assert {row["name"] for row in before} == set(_known())
        later_release()
        assert await pending(dsn) == [LATER]
        await check_schema(dsn)  # a process may start while it is missing
        assert await migrate(dsn) == [LATER]
        assert await admin.fetchval("select to_regclass('made_later') is not null")
        assert await pending(dsn) == await migrate(dsn) == []
        rows = await admin.fetch("select * from migration_fingerprint order by name")
        assert rows[:-1] == before
        assert (rows[-1]["name"], rows[-1]["release"]) == (LATER, __version__)

    async def test_nothing_is_applied_to_tables_of_another_build(self, dsn, admin, later_release):
        await admin.execute(OTHERS, INITIAL)
        later_release()
        with pytest.raises(SchemaDiffers):
            await migrate(dsn)
        assert not await admin.fetchval("select to_regclass('made_later') is not null")

    async def test_the_earlier_release_leaves_a_newer_database_alone(self, dsn, admin):
        await admin.execute("insert into migration (name, app_name, ran_on) values ($1, 'jobs', now())", LATER)
        with pytest.raises(SchemaTooNew):
            await check_schema(dsn)


class TestTold:
    async def test_by_the_readiness_probe(self, settings: Settings, platform: Platform, admin: asyncpg.Connection):
        async with client_of(settings, platform, checked=False) as http:
            assert (await http.get("/readyz")).status_code == 200
        await admin.execute(OTHERS, INITIAL)
        async with client_of(settings, platform, checked=False) as http:
            answer: httpx.Response = await http.get("/readyz")
        assert answer.status_code == 503
        [reason] = answer.json()["reasons"]
        assert reason.startswith("schema: the database was made by another build of Millrace")
        assert "make a new database" in reason

    async def test_by_the_doctor(self, settings, admin, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MILLRACE_DATABASE_URL", settings.database_url)
        await admin.execute(OTHERS, INITIAL)
        findings = {finding.check: finding for finding in await examine()}
        assert findings["database"].state == "failed"
        assert "made by another build" in findings["database"].detail
        assert "deletes no data" in findings["database"].hint
        assert this_build() in findings["millrace"].detail


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--check"], ["serve", "--port", "0"], ["worker"]])
async def test_commands_end_with_what_to_do(command, other_database, redis_url):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli.main", *command),
        env={
            "PYTHONPATH": str(CHECKOUT),
            "PATH": os.environ["PATH"],
            "MILLRACE_DATABASE_URL": other_database,
            "MILLRACE_REDIS_URL": redis_url,
            "MILLRACE_SECRET": "of the schema's tests, and long enough",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    error, hint = err.decode().splitlines()
    assert error.startswith("error: the database was made by another build of Millrace")
    assert error.endswith("make a new database and run `millrace migrate` on it")
    assert hint == "hint: Nothing was changed: Millrace deletes no data on its own account."


@pytest.fixture
async def other_database(dsn: str, admin: asyncpg.Connection) -> str:
    """A database of another build."""
    await admin.execute(OTHERS, INITIAL)
    return dsn


@pytest.fixture
async def platform(settings: Settings):
    """The test's platform, open."""
    async with Platform(settings).opened() as opened:
        yield opened
