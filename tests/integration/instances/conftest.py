"""Two accounts, a workflow in each, the instance service over the real engine, and its routes behind the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from litestar import Litestar

from app.middleware.clients import Proxies
from app.middleware.gateway import Gateway
from app.middleware.paths import PREFIX, RestoreInstanceId
from app.refusals import Refusals
from instances.live_feed import LiveFeed
from instances.routes import route_handlers
from instances.service import InstanceService
from jobs.doorbell import NoDoorbell
from jobs.termination.requests import TerminationJobs
from tenants.auth import operator
from tenants.clock import ManualClock
from tenants.ids import Ids
from tenants.service import TenantService
from tenants.tokens import TokenGrant
from tests.support.faces import face
from tests.support.instances import Answer, World


@pytest.fixture
async def feed(redis_url: str) -> AsyncIterator[LiveFeed]:
    feed = LiveFeed.at(redis_url)
    yield feed
    await feed.stop()


@pytest.fixture
def instances(db, clock, ids, tenants, versions, engine, feed) -> InstanceService:
    return InstanceService(
        db, clock, ids, tenants, versions, engine, TerminationJobs(db, clock, ids, NoDoorbell()), feed
    )


@pytest.fixture
def make_world(admin, engine, clock, ids, tenants: TenantService) -> Callable[..., Any]:
    async def make(name: str) -> World:
        account = (await tenants.accounts.create(name)).account_id
        caller = operator(account)
        _, token = await tenants.tokens.create(caller, TokenGrant(name="t", scopes=["admin"]))
        return World(admin, engine, clock, ids, caller, token)

    return make


@pytest.fixture
async def world(make_world) -> World:
    """Our account, with the workflow `orders`."""
    world = await make_world("ours")
    await world.workflow("orders")
    return world


@pytest.fixture
async def other(make_world) -> World:
    """Another account, with a workflow `orders` of its own."""
    other = await make_world("theirs")
    await other.workflow("orders")
    return other


@pytest.fixture
def app(instances: InstanceService, tenants: TenantService, clock: ManualClock, ids: Ids) -> Litestar:
    app = face(route_handlers, tenants, middleware=[RestoreInstanceId], clock=clock, instances=instances)
    app.asgi_handler = Gateway(
        app.asgi_handler,
        proxies=Proxies(()),
        request_id=lambda: ids.uuid7().hex,
        refuse=Refusals(clock.now).answer,
        allowed=lambda _path: "",
    )
    return app


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to the application in the test's own event loop."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local") as client:
        yield client


@pytest.fixture
def call(client, world: World):
    """`await call("GET", "/instances/x", …)` on workflow `orders` of our account (`of=` another world, `workflow=`)."""

    async def call(method: str, path: str, *, of: World = world, workflow: str = "orders", **options: Any) -> Answer:
        headers = {"authorization": f"Bearer {of.token}", **options.pop("headers", {})}
        url = f"{PREFIX}/accounts/{of.account.hex}/workflows/{workflow}{path}"
        answer = await client.request(method, url, headers=headers, **options)
        kind = answer.headers.get("content-type", "")
        return Answer(answer.status_code, answer.json() if "json" in kind else answer.content, answer.headers)

    return call
