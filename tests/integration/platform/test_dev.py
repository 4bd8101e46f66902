"""`millrace dev` as a user has it: one command, one folder, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import msgspec
import pytest

from app.cli.installation import FORMAT, Installation, Ready, write_private
from tests.support.dev_server import DevServer
from tests.support.servers import CHECKOUT, scratch_home

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

DOCUMENT = {"name": "Kept", "nodes": [{"id": "greet", "type": "action", "config": {"action": "noop"}}]}


@pytest.fixture
def directory() -> Iterator[Path]:
    home = scratch_home()
    yield home / "data"
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def millrace_dev(directory, monkeypatch) -> Iterator[Callable[..., DevServer]]:
    """Makes dev servers on the same folder; none outlives the test."""
    made: list[DevServer] = []

    def make(*options: str, environment: dict[str, str] | None = None, examples: bool = False) -> DevServer:
        server = DevServer(directory, *options, *([] if examples else ["--no-examples"]), environment=environment)
        made.append(server)
        return server.start()

    yield make
    for server in reversed(made):  # the last one may hold what an earlier one started
        server.clean_up()


@pytest.fixture
def outside(dsn, redis_url) -> dict[str, str]:
    """Services of the suite, which start faster than own ones."""
    return {"MILLRACE_DATABASE_URL": dsn, "MILLRACE_REDIS_URL": redis_url}


async def workflows(ready: Ready) -> httpx.Response:
    async with httpx.AsyncClient(base_url=ready.base_url, trust_env=False) as http:
        return await http.get(
            f"/client/v4/accounts/{ready.account_id}/workflows",
            headers={"authorization": f"Bearer {ready.api_token}"},
        )


async def user_of(ready: Ready) -> httpx.Response:
    async with httpx.AsyncClient(base_url=ready.base_url, trust_env=False) as http:
        return await http.get("/client/v4/user", headers={"authorization": f"Bearer {ready.api_token}"})


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


class TestLife:
    async def test_from_nothing_to_serving_and_back_to_nothing_and_again(self, millrace_dev, directory):
        first = millrace_dev()
        ready = await first.ready()
        assert ready.pid == first.process.pid
        assert (await workflows(ready)).status_code == 200
        assert (await user_of(ready)).json()["result"]["email"] == "dev@millrace.localhost"
        for path in ("secret", "dev-token", "ready.json", "millrace.json"):
            assert stat.S_IMODE((directory / path).stat().st_mode) == 0o600
        kinds = ("serve", "worker", "postgres", "redis.sock")
        assert all(first.processes(kind) for kind in kinds)

        code, out, err = await first.stop()
        assert code == 0
        assert msgspec.json.decode(out, type=Ready) == ready
        assert ready.base_url in err
        assert first.processes() == []
        assert not first.ready_file.exists()
        assert not (directory / "ready.json").exists()

        again = await millrace_dev().ready()
        assert (again.account_id, again.api_token) == (ready.account_id, ready.api_token)
        assert (await workflows(again)).status_code == 200

    async def test_ctrl_c_while_it_starts_leaves_nothing(self, millrace_dev, directory):
        server = millrace_dev()
        await until((directory / "services" / "postgres.lock").exists)
        code, out, _ = await server.stop(signal.SIGINT)
        assert (code, out) == (0, "")
        assert server.processes() == []
        ready = await millrace_dev().ready()
        assert (await workflows(ready)).status_code == 200

    async def test_children_that_die_are_started_again(self, millrace_dev, outside):
        server = millrace_dev(environment=outside)
        ready = await server.ready()
        for kind in ("serve", "worker"):
            [before] = server.processes("app.cli.main", kind)
            os.kill(before, signal.SIGKILL)
            await until(lambda kind=kind, before=before: server.processes("app.cli.main", kind) not in ([], [before]))
        await until_answers(ready)
        _, _, err = await server.stop()
        assert "The API ended (signal 9) and is restarted" in err
        assert "The worker ended (signal 9) and is restarted" in err

    async def test_a_database_that_dies_is_started_again(self, millrace_dev, directory):
        ready = await millrace_dev().ready()
        os.kill(Installation.open(directory).postgres().process_id(), signal.SIGKILL)
        await until_answers(ready)

    async def test_killed_itself_it_takes_its_children_along(self, millrace_dev, outside):
        server = millrace_dev(environment=outside)
        await server.ready()
        children = server.processes("app.cli.main")
        server.process.kill()
        await until(lambda: not set(children) & set(server.processes()))
        ready = await millrace_dev(environment=outside).ready()
        assert (await workflows(ready)).status_code == 200


class TestOptions:
    async def test_account_and_token_can_be_given(self, millrace_dev, outside):
        account_id, token = "0123456789abcdef" * 2, "sk_chosen_by_the_user_itself"
        ready = await millrace_dev("--account-id", account_id, "--token", token, environment=outside).ready()
        assert (ready.account_id, ready.api_token) == (account_id, token)
        assert (ready.postgres_dsn, ready.redis_url) == tuple(outside.values())
        assert (await workflows(ready)).status_code == 200

    async def test_the_first_start_shows_the_examples(self, millrace_dev, outside):
        server = millrace_dev(environment=outside, examples=True)
        ready = await server.ready()
        names = [workflow["name"] for workflow in (await workflows(ready)).json()["result"]]
        assert "order-approval" in names
        _, _, err = await server.stop()
        assert "The tour ended early" not in err
        assert "terminate" in err

    async def test_commands_use_the_folder_running_or_not(self, millrace_dev, directory):
        server = millrace_dev()
        await server.ready()
        assert await millrace("migrate", "--check", directory=directory) == (0, "")
        await server.stop()
        assert await millrace("migrate", "--check", directory=directory) == (0, "")
        assert server.processes() == []


class TestRefusals:
    async def refused(self, server: DevServer) -> str:
        """The one sentence on why it does not start."""
        code, out, err = await server.ended()
        lines = [line for line in err.splitlines() if not line.endswith("…")]
        assert (code, out) == (1, "")
        assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
        assert server.processes() == []
        return lines[0]

    async def test_a_busy_port(self, millrace_dev):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
            assert f"Port {port} of 127.0.0.1 is in use" in await self.refused(millrace_dev("--port", str(port)))

    async def test_a_folder_in_use(self, millrace_dev, outside):
        ready = await millrace_dev(environment=outside).ready()
        second = millrace_dev(environment=outside)
        code, _, err = await second.ended()
        assert code == 1
        assert f"runs on {second.directory} already at {ready.base_url}, process {ready.pid}" in err

    async def test_a_folder_of_a_newer_release(self, millrace_dev, directory):
        Installation.open(directory, create=True)
        newer = {"format": FORMAT + 1, "release": "9.0.0"}
        write_private(directory / "millrace.json", msgspec.json.encode(newer))
        assert "was written by Millrace 9.0.0" in await self.refused(millrace_dev())

    async def test_a_folder_of_another_build(self, millrace_dev, directory):
        first = millrace_dev()
        connection = await asyncpg.connect((await first.ready()).postgres_dsn)
        await connection.execute("update migration_fingerprint set fingerprint = 'of a text edited since'")
        await connection.close()
        assert (await first.stop())[0] == 0

        said = await self.refused(millrace_dev())
        assert "was made by another build of Millrace" in said
        folders = [str(directory), *filter(None, [Installation.open(directory).marker.services])]
        assert said.endswith(f"go on with that build, or begin anew after `rm -r {' '.join(folders)}`")
        assert await millrace("migrate", directory=directory) == (1, said)
        assert (directory / "secret").exists()  # removing is left to the user

    async def test_a_lost_secret(self, millrace_dev, directory):
        Installation.open(directory, create=True)
        (directory / "secret").unlink()
        assert "secret is missing: restore it" in await self.refused(millrace_dev())

    async def test_a_token_that_is_none(self, millrace_dev, outside):
        assert "a token must be sk_" in await self.refused(millrace_dev("--token", "short", environment=outside))

    async def test_a_ready_file_that_cannot_be_written(self, millrace_dev):
        assert "/nowhere/x cannot be written" in await self.refused(millrace_dev("--ready-file", "/nowhere/x"))

    async def test_a_host_that_is_none(self, millrace_dev):
        assert "'a..b' is no host name" in await self.refused(millrace_dev("--host", "a..b"))

    async def test_a_process_that_cannot_start(self, millrace_dev, outside):
        environment = outside | {"MILLRACE_METRICS_BIND": "nonsense"}
        assert "MILLRACE_METRICS_BIND must be host:port" in await self.refused(millrace_dev(environment=environment))


async def until_answers(ready: Ready) -> None:
    """Wait until the API serves its account again."""
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if (await workflows(ready)).status_code == 200:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the API did not come back")


async def millrace(*arguments: str, directory: Path) -> tuple[int, str]:
    """Run a command on a data folder: exit code and what it said on standard error that is not a note."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli.main", *arguments),
        env={"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], "MILLRACE_DATA_DIR": str(directory)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    return process.returncode or 0, "".join(line for line in err.decode().splitlines() if line.startswith("error"))
