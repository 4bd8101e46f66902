"""One running Millrace for the clients of all faces; each test has an account of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.embedded.valkey import EmbeddedValkey
from tests.support import openapi
from tests.support.api import Tenant, new_tenant
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests

PATIENCE = 20.0


@pytest.fixture(scope="session")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    """It listens on a port of its own, and has one worker."""
    async with live_for_tests(databases, valkey) as running:
        yield running


@dataclass
class Face:
    """A tenant as a user of a translated face: `http` has the base URL and the token; answers are held to the contract.

    `cloud` is the same tenant in the Cloudflare face, where workflows can be deployed as documents.
    """

    http: httpx.AsyncClient
    cloud: httpx.AsyncClient
    tenant: Tenant
    server: Live

    async def deploy(self, name: str, nodes: list[dict[str, Any]], **document: Any) -> dict[str, Any]:
        """Deploy a definition document through the Cloudflare face; the result."""
        definition = {"spec": "workflow/1", "name": name, "nodes": nodes, **document}
        answer = await self.cloud.put(f"/workflows/{name}", json={"definition": definition})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    async def when(self, ask: Callable[[], Awaitable[httpx.Response]], holds: Callable[[Any], bool]) -> Any:
        """The body `ask` gets once `holds` is true of it."""
        async with asyncio.timeout(PATIENCE):
            while not holds(body := (await ask()).json()):
                await asyncio.sleep(0.02)
        return body


@pytest.fixture
async def face(server: Live) -> AsyncIterator[Face]:
    """A fresh account with a token that may do everything."""
    tenant = await new_tenant(server.platform)
    async with client(server, tenant) as http, client(server, tenant, tenant.path) as cloud:
        yield Face(http, cloud, tenant, server)


@pytest.fixture
async def stranger(server: Live) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody of another account who may do everything there."""
    async with client(server, await new_tenant(server.platform)) as http:
        yield http


def client(server: Live, tenant: Tenant | None, path: str = "") -> httpx.AsyncClient:
    """A client of a tenant, or of nobody; its answers are held to the contract, streams excepted."""

    async def hold(response: httpx.Response) -> None:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            await response.aread()
            openapi.check(response)

    hooks: dict[str, list[Any]] = {"response": [hold]}
    headers = {} if tenant is None else tenant.headers
    return httpx.AsyncClient(
        base_url=server.base_url + path,
        headers=headers,
        event_hooks=hooks,
        trust_env=False,
        verify=False,  # nothing is encrypted; to read whom the machine trusts takes as long as a test
        timeout=60,
    )
