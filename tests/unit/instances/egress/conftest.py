"""A local server, and a client that may reach it through a hole in the policy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from instances.egress import EgressClient, EgressPolicy
from tests.support.http_server import HttpServer

NAMES = {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"], "secret.test": ["10.9.9.9"]}


async def resolver(host: str, _port: int) -> list[str]:
    return NAMES[host]


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client() -> AsyncIterator[EgressClient]:
    client = EgressClient(EgressPolicy(["127.0.0.0/8"]), resolver=resolver)
    yield client
    await client.close()
