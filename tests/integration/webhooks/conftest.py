"""An account whose events go to a local receiver: everything real but the engine's worker and the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.faces.orchestration.webhook_payloads import WebhookPayloads
from instances.egress import EgressClient, EgressPolicy
from instances.engine.requests import NewInstance
from instances.lifecycle import Kind, Status
from instances.live_feed import LiveFeed
from instances.search.recorded import Recorder
from instances.service import InstanceService
from jobs.doorbell import NoDoorbell
from jobs.termination.requests import TerminationJobs
from jobs.webhooks.dispatch import DispatchEvents
from jobs.webhooks.schemas import Webhook
from jobs.webhooks.sender import SendDeliveries
from jobs.webhooks.sending import Poster
from jobs.webhooks.service import Wanted, WebhookService
from tenants.auth import operator
from tenants.database import Database
from tenants.service import TenantService
from tenants.tokens import TokenGrant
from tests.support.http_server import HttpServer, Request
from tests.support.instances import World

HALF = 0.5
"""The chance that leaves delays as they are."""


@pytest.fixture
async def instances(db, clock, ids, tenants, versions, engine, redis_url) -> AsyncIterator[InstanceService]:
    feed = LiveFeed.at(redis_url)
    jobs = TerminationJobs(db, clock, ids, NoDoorbell())
    yield InstanceService(db, clock, ids, tenants, versions, engine, jobs, feed)
    await feed.stop()


@pytest.fixture
async def egress() -> AsyncIterator[EgressClient]:
    client = EgressClient(EgressPolicy(allow=["127.0.0.0/8"]))
    yield client
    await client.close()


@pytest.fixture
def poster(egress: EgressClient) -> Poster:
    return Poster(egress, "1.2.3")


@pytest.fixture
def webhooks(db, clock, ids, tenants, poster) -> WebhookService:
    return WebhookService(db, clock, ids, tenants, poster, NoDoorbell())


@pytest.fixture
def dispatch(db, clock, instances, versions) -> DispatchEvents:
    return DispatchEvents(db, clock, Recorder(db, instances.reader), versions.definitions, WebhookPayloads())


@pytest.fixture
async def sender(db, clock, poster, webhooks) -> AsyncIterator[SendDeliveries]:
    sender = SendDeliveries(db, clock, poster, webhooks.sealing, chance=lambda: HALF)
    yield sender
    await sender.stop()


@pytest.fixture
async def receiver() -> AsyncIterator[HttpServer]:
    """Answers 200 at `/hook`."""
    server = HttpServer()
    server.answer("/hook", b"thanks")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def make_world(admin, engine, clock, ids, tenants: TenantService):
    async def make(name: str) -> World:
        account = (await tenants.accounts.create(name)).account_id
        caller = operator(account)
        _, token = await tenants.tokens.create(caller, TokenGrant(name="t", scopes=["admin"]))
        return World(admin, engine, clock, ids, caller, token)

    return make


DOCUMENT = {
    "spec": "workflow/1",
    "name": "orders",
    "nodes": [
        {"id": "pack", "name": "Pack", "type": "noop"},
        {"id": "ship", "name": "Ship", "type": "external", "depends_on": ["pack"]},
    ],
    "milestones": [{"id": "packed", "name": "Packed", "after": ["pack"]}],
}


@pytest.fixture
async def world(make_world) -> World:
    return await make_world("ours")


@dataclass
class Post:
    """The way of events, step by step, and what came in."""

    world: World
    db: Database
    webhooks: WebhookService
    dispatch: DispatchEvents
    sender: SendDeliveries
    receiver: HttpServer
    keys: dict[str, UUID] = field(default_factory=dict)

    async def listen(self, *events: str, path: str = "/hook", **wanted: Any) -> Webhook:
        """An endpoint for these events at the receiver."""
        wanted = {"url": self.receiver.url(path), "events": list(events) or ["*"]} | wanted
        return await self.webhooks.create(self.world.caller, Wanted(**wanted))

    async def made(self, name: str, handle: str = "orders", **fields: Any) -> UUID:
        """A new instance."""
        world = self.world
        key = self.keys[name] = world.ids.uuid7()
        await world.engine.create(
            [NewInstance(account_id=world.account, key=key, instance_id=name, handle=handle, **fields)]
        )
        return key

    async def happen(self, name: str, *entries: tuple[Any, ...]) -> list[int]:
        """Entries of a journal and their row of the feed, as a flush writes them."""
        async with self.world.admin.transaction():
            seqs = await self.world.write(name, *entries)
            await self.tell(name, seqs[0], seqs[-1])
        return seqs

    async def tell(self, name: str, first: int, last: int) -> None:
        await self.world.admin.execute(
            "insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)"
            " select account_id, workflow_key, array[key], array[$2::bigint], array[$3::bigint], $4"
            " from instance where account_id = $5 and instance_id = $1",
            name,
            first,
            last,
            self.world.clock.now(),
            self.world.account,
        )

    async def end(self, name: str, status: Status = Status.COMPLETE, body: str | None = "1") -> None:
        """The end of an instance, with its entry and its row of the feed."""
        async with self.world.admin.transaction():
            seq = await self.world.admin.fetchval("select seq from live where key = $1", await self.world.key(name))
            assert isinstance(seq, int)
            await self.world.end([name], status, body)
            await self.tell(name, seq + 1, seq + 1)

    async def settled(self) -> None:
        """Wait until the feed may be read to its end: transactions in other databases of the server hold it up, too."""
        ready = "select coalesce(pg_snapshot_xmin(pg_current_snapshot()) > max(xid), true) from feed"
        async with asyncio.timeout(30):
            while not await self.world.admin.fetchval(ready):
                await asyncio.sleep(0.005)

    async def dispatched(self) -> None:
        """Everything committed so far is put up for delivery."""
        await self.settled()
        while await self.dispatch.tick():
            pass

    async def sent(self) -> None:
        """Everything due is sent, and its outcome written down."""
        async with asyncio.timeout(30):
            while True:
                more = await self.sender.tick()
                busy = bool(self.sender._under_way)
                await self.sender.drained()
                if not more and not busy:
                    return

    async def delivered(self) -> list[dict[str, Any]]:
        """Dispatch, send, and take what came in, in the order of their sequence."""
        await self.dispatched()
        await self.sent()
        return self.taken()

    def taken(self) -> list[dict[str, Any]]:
        got = [json.loads(request.body) for request in self.receiver.requests]
        self.receiver.requests.clear()
        return sorted(got, key=lambda told: (told["timestamp"], told.get("sequence") or 0))


@pytest.fixture
async def post(world, db, webhooks, dispatch, sender, receiver) -> Post:
    await world.workflow("orders", definition=DOCUMENT)
    return Post(world, db, webhooks, dispatch, sender, receiver)


def header(request: Request, name: str) -> str | None:
    return next((value for key, value in request.headers if key.lower() == name.lower()), None)


RUNS = [(Kind.STARTED,), (Kind.STEP_STARTED, "pack", 1, 1, {}), (Kind.STEP_COMPLETED, "pack", 1, 1, "true")]
"""How an instance of `orders` begins."""
