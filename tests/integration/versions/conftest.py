"""Two accounts, the service, and its routes over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import cloudflare
import httpx
import pytest
from litestar import Litestar

from tenants.auth import Caller, operator
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService
from tenants.tokens import TokenGrant
from tests.support import openapi
from tests.support.faces import face
from versions.deployments.service import DeploymentService
from versions.routes import route_handlers
from versions.service import VersionService


@pytest.fixture
async def boss(tenants: TenantService) -> Caller:
    """The operator, in an account of his own making."""
    return operator((await tenants.accounts.create("ours")).account_id)


@pytest.fixture
async def stranger(tenants: TenantService) -> Caller:
    """The operator in another account."""
    return operator((await tenants.accounts.create("theirs")).account_id)


@pytest.fixture
def versions(db: Database, clock: ManualClock, ids: Ids, tenants: TenantService) -> VersionService:
    return VersionService(db, clock, ids, tenants, handlers=lambda: ("ship_order",))


@pytest.fixture
def deployments(
    db: Database, clock: ManualClock, ids: Ids, tenants: TenantService, versions: VersionService
) -> DeploymentService:
    return DeploymentService(db, clock, ids, tenants, versions.scripts)


@pytest.fixture
def app(versions: VersionService, deployments: DeploymentService, tenants: TenantService) -> Litestar:
    return face(route_handlers, tenants, versions=versions, deployments=deployments)


class Api:
    """Requests in the name of one token."""

    def __init__(self, client: httpx.AsyncClient, account_id: UUID, token: str) -> None:
        self.client = client
        self.account_id = account_id
        self.token = token

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any, dict[str, Any]]:
        """Status, result and envelope of a request for something of the account."""
        answer = await self.raw(method, path, **options)
        body = answer.json()
        assert body["success"] == (answer.status_code < 400)
        assert bool(body["errors"]) == (answer.status_code >= 400)
        return answer.status_code, body["result"], body

    async def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        url = f"/client/v4/accounts/{self.account_id.hex}{path}"
        return await self.client.request(method, url, headers=headers, **options)


async def _held_to_the_contract(response: httpx.Response) -> None:
    await response.aread()
    response.headers["x-request-id"] = "the gateway's, which is not in front of these routes"
    if response.headers["content-type"].startswith("application/json"):  # a script's content may be of any type
        openapi.check(response)


@pytest.fixture
async def make_api(app: Litestar, tenants: TenantService) -> AsyncIterator[Any]:
    """`await make_api(caller, "scope", …)`; every scope when none is named."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    hooks: dict[str, list[Any]] = {"response": [_held_to_the_contract]}
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local", event_hooks=hooks) as client:

        async def make(caller: Caller, *scopes: str) -> Api:
            _, text = await tenants.tokens.create(caller, TokenGrant(name="t", scopes=list(scopes) or ["admin"]))
            return Api(client, caller.account_id, text)

        yield make


@pytest.fixture
async def api(make_api: Any, boss: Caller) -> Api:
    return await make_api(boss)


@pytest.fixture
async def sdk(app: Litestar, api: Api) -> AsyncIterator[cloudflare.AsyncCloudflare]:
    """Cloudflare's own client."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport)
    base_url = "http://testserver.local/client/v4"
    async with cloudflare.AsyncCloudflare(
        api_token=api.token, base_url=base_url, http_client=client, max_retries=0
    ) as found:
        yield found


@pytest.fixture
def insert_instance(admin: asyncpg.Connection, ids: Ids, clock: ManualClock) -> Any:
    """`await insert_instance(account, workflow_key, version_key, status)`: an instance as the engine leaves it."""

    async def insert(account_id: UUID, workflow_key: UUID, version_key: UUID, status: int) -> UUID:
        key = ids.uuid7()
        await admin.execute(
            "insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status,"
            " success_retention_ms, error_retention_ms, created_at)"
            " values ($1, $2, $3, $4, $2::uuid::text, $2::uuid::text, $5, 0, 0, $6)",
            account_id, key, workflow_key, version_key, status if status >= 6 else 0, clock.now(),
        )  # fmt: skip
        if status < 6:
            await admin.execute(
                "insert into live (account_id, key, workflow_key, runtime, status, epoch, modified_at)"
                " values ($1, $2, $3, 0, $4, 1, $5)",
                account_id, key, workflow_key, status, clock.now(),
            )  # fmt: skip
        else:
            await admin.execute(
                "insert into counter values ($1, $2, 0, $3, 1)"
                " on conflict (account_id, workflow_key, status, slot) do update set n = counter.n + 1",
                account_id, workflow_key, status,
            )  # fmt: skip
        return key

    return insert
