"""The official Cloudflare SDK, pointed at a running Millrace. Every answer it gets is also held to the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudflare import AsyncCloudflare

from tests.support import openapi
from tests.support.api import Tenant, new_tenant
from tests.support.live import Live

from .node_clients import NodeClients, node_clients
from .wrangler import Wrangler, wrangler_of

PATIENCE = 20.0


@dataclass
class Cloud:
    """An account as an SDK user has it.

    `http` is for what the SDK has no method for, its paths relative to the account. `requests` collects what was sent.
    """

    sdk: AsyncCloudflare
    http: httpx.AsyncClient
    tenant: Tenant
    requests: list[httpx.Request]

    @property
    def account(self) -> str:
        return self.tenant.hex

    async def deploy(self, name: str, definition: dict[str, Any], **settings: Any) -> Any:
        """Deploy a document as SDK users have to: beside class and script names, which are ignored."""
        return await self.sdk.workflows.update(
            name,
            account_id=self.account,
            class_name="Ignored",
            script_name="ignored",
            extra_body={"definition": {"spec": "workflow/1", "name": name, **definition}},
            **settings,
        )

    async def get(self, workflow: str, instance_id: str, **query: Any) -> Any:
        return await self.sdk.workflows.instances.get(
            instance_id, account_id=self.account, workflow_name=workflow, **query
        )

    async def until(self, workflow: str, instance_id: str, *statuses: str) -> Any:
        """The instance once it has one of `statuses`."""
        return await self.when(workflow, instance_id, lambda seen: seen.status in statuses)

    async def when(self, workflow: str, instance_id: str, holds: Callable[[Any], bool]) -> Any:
        """The instance once `holds` is true of it."""
        async with asyncio.timeout(PATIENCE):
            while not holds(seen := await self.get(workflow, instance_id)):
                await asyncio.sleep(0.02)
        return seen


@pytest.fixture
async def cloud(server: Live) -> AsyncIterator[Cloud]:
    """A fresh account with a token that may do everything."""
    async with cloud_of(server, await new_tenant(server.platform)) as cloud:
        yield cloud


def cloud_of(server: Live, tenant: Tenant):
    """An SDK client of `tenant`, as a context manager."""
    return _Cloud(server, tenant)


class _Cloud:
    def __init__(self, server: Live, tenant: Tenant) -> None:
        requests: list[httpx.Request] = []

        async def collect(request: httpx.Request) -> None:
            requests.append(request)

        async def hold(response: httpx.Response) -> None:
            await response.aread()
            openapi.check(response)

        def client(**options: Any) -> httpx.AsyncClient:
            hooks: dict[str, list[Any]] = {"request": [collect], "response": [hold]}
            # Nothing is encrypted; to read whom the machine trusts takes as long as a test.
            return httpx.AsyncClient(event_hooks=hooks, trust_env=False, verify=False, **options)

        sdk = AsyncCloudflare(base_url=f"{server.base_url}/client/v4", api_token=tenant.token, http_client=client())
        http = client(base_url=server.base_url + tenant.path, headers=tenant.headers)
        self._cloud = Cloud(sdk, http, tenant, requests)

    async def __aenter__(self) -> Cloud:
        return self._cloud

    async def __aexit__(self, *_: object) -> None:
        await self._cloud.sdk.close()
        await self._cloud.http.aclose()


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> NodeClients:
    """Clients that need Node."""
    return node_clients(request.config.cache.mkdir("npm"))  # type: ignore[union-attr]


@pytest.fixture
def wrangler(clients: NodeClients, server: Live, cloud: Cloud, tmp_path: Path) -> Wrangler:
    """wrangler in the hands of the test's tenant, in a folder of its own."""
    return wrangler_of(clients, server.base_url, cloud.tenant, tmp_path)
