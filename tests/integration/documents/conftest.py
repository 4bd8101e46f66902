"""Documents on the real engine: a database of its own, a clock moved by hand, a small HTTP server inside a hole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from instances.egress import EgressClient, EgressPolicy
from instances.lifecycle import Kind, Status
from instances.runtimes.document import ActionStore, DocumentRuntime, known_handlers
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tests.support.engine import Engine
from tests.support.http_server import HttpServer, Request, message
from versions.document import encode_document, parse_document


class Documents:
    """Deploys and runs documents."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def deploy(self, handle: str, nodes: list[dict[str, Any]], **document: Any) -> None:
        definition = {"spec": "workflow/1", "name": handle, "nodes": nodes, **document}
        parsed = parse_document(definition, known_handlers=frozenset(known_handlers()))
        engine, now = self.engine, self.engine.clock.now()
        workflow, version = engine.ids.uuid7(), engine.ids.uuid7()
        await engine.admin.execute(
            "insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name,"
            " class_name, current_version, created_at, modified_at) values ($1, $2, $3, $3, $1, '', '', $4, $5, $5)",
            engine.account, workflow, handle, version, now,
        )  # fmt: skip
        await engine.admin.execute(
            "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
            " source_hash, step_limit, created_at) values ($1, $2, $3, 1, 'document', 0, '', $4, '', 25000, $5)",
            engine.account, version, workflow, encode_document(parsed), now,
        )  # fmt: skip

    async def start(self, handle: str, input: Any = None) -> UUID:
        return await self.engine.create(handle, input=msgspec.json.encode(input).decode())

    async def run(self, handle: str, input: Any = None, status: Status = Status.COMPLETE) -> Any:
        """The output (or error) of an instance that runs to its end by itself."""
        row = await self.engine.until(await self.start(handle, input), status)
        return msgspec.json.decode(row["output"] if status is Status.COMPLETE else row["error"])

    async def steps(self, key: UUID, *kinds: Kind) -> list[str]:
        """`name-count` of the entries of these kinds, in order."""
        return [f"{row['name']}-{row['count']}" for row in await self.engine.journal(key) if row["kind"] in kinds]


@pytest.fixture
async def documents(
    db: Database, admin: asyncpg.Connection, clock: ManualClock, ids: Ids, account: UUID
) -> AsyncIterator[Documents]:
    engine = Engine(db, admin, clock, ids, account)
    egress = EgressClient(EgressPolicy(["127.0.0.1"]))
    runtime = DocumentRuntime(ActionStore(db), egress)
    engine.runtime = runtime  # type: ignore[assignment]
    await engine.client.start()
    yield Documents(engine)
    await engine.close()
    await runtime.close()
    await egress.close()


class Service(HttpServer):
    """A local HTTP service that counts calls and answers JSON."""

    failing = 0
    """Calls still to be answered with 503."""

    def answer_to(self, request: Request) -> bytes:
        status = "503 Busy" if self.failing else "200 OK"
        self.failing = max(self.failing - 1, 0)
        key = {name.lower(): value for name, value in request.headers}["idempotency-key"]
        body = msgspec.json.encode({"path": request.path, "n": len(self.requests), "key": key})
        return message(body, status, ["Content-Type: application/json"])


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    await service.start()
    yield service
    await service.stop()
