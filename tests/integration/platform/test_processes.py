"""API and worker as processes of their own, as containers run them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support.servers import CHECKOUT

SECRET = "of the processes, long enough to be one"


@pytest.fixture
def environment(dsn, redis_url) -> dict[str, str]:
    """What a container gets; ports nobody has at the moment."""
    bind, metrics = free_ports(2)
    return {
        "PYTHONPATH": str(CHECKOUT),
        "PATH": os.environ["PATH"],
        "MILLRACE_DATABASE_URL": dsn,
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_SECRET": SECRET,
        "MILLRACE_BIND": f"127.0.0.1:{bind}",
        "MILLRACE_METRICS_BIND": f"127.0.0.1:{metrics}",
        "MILLRACE_LOG_FORMAT": "console",
    }


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@asynccontextmanager
async def started(environment: dict[str, str], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as a process; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli.main", *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code of a command, and all it said."""
    async with started(environment, *arguments) as process:
        out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode()


async def healthy(environment: dict[str, str]) -> None:
    for _ in range(100):
        if (await run(environment, "health"))[0] == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await run(environment, "health"))


async def told_to_stop(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return err.decode()


async def test_an_api_serves_until_it_is_told_to_stop(environment):
    async with started(environment, "serve") as process:
        await healthy(environment)
        async with httpx.AsyncClient(base_url=f"http://{environment['MILLRACE_BIND']}", trust_env=False) as http:
            assert (await http.get("/healthz")).json() == {"status": "ok"}
        said = await told_to_stop(process)
    assert f"Serving on http://{environment['MILLRACE_BIND']}" in said
    assert "Traceback" not in said
    assert (await run(environment, "health"))[0] == 1


async def test_a_worker_works_until_it_is_told_to_stop(environment):
    async with started(environment, "worker") as process:
        await healthy(environment)
        said = await told_to_stop(process)
    assert "worker_draining" in said
    assert "Traceback" not in said


async def test_a_port_of_ones_choice(environment):
    async with started(environment, "serve", "--port", "0") as process:
        assert process.stderr is not None
        said = await process.stderr.readuntil(b"Serving on ") + await process.stderr.readline()
        port = int(re.search(rb"Serving on http://127\.0\.0\.1:(\d+)\n", said)[1])
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        await told_to_stop(process)


async def test_told_to_stop_while_it_starts_it_ends_in_order(environment):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent.setblocking(False)
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        async with started(environment | {"MILLRACE_DATABASE_URL": url}, "worker") as process:
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            with contextlib.closing(connection):  # a database that does not answer
                assert "Traceback" not in await told_to_stop(process)


@pytest.mark.parametrize("role", ["serve", "worker"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MILLRACE_SECRET": ""}, "MILLRACE_SECRET must be at least 32 bytes"),
        ({"MILLRACE_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "cannot connect"),
        ({"MILLRACE_LOG_LEVEL": "loud"}, "MILLRACE_LOG_LEVEL must be one of"),
    ],
)
async def test_what_is_missing_is_one_sentence(environment, role, changes, message):
    code, said = await run(environment | changes, role)
    assert code == 1
    assert message in said.splitlines()[0]
    assert [line.partition(":")[0] for line in said.splitlines()] == ["error", "hint"]


async def test_a_secret_the_database_does_not_know_is_refused(environment):
    async with started(environment, "worker") as process:
        await healthy(environment)
        await told_to_stop(process)
    code, said = await run(environment | {"MILLRACE_SECRET": SECRET[::-1]}, "serve")
    assert code == 1
    assert "is not the secret this database was set up with" in said
