"""What the tests of the background share: an account with a workflow, and instances in any state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from instances.engine.client import EngineClient
from instances.engine.requests import NewInstance
from instances.lifecycle import Status
from tenants.clock import ManualClock
from tenants.ids import Ids

DAY_MS = 86_400_000


@dataclass
class World:
    """One account's workflow and what happens to its instances."""

    admin: asyncpg.Connection
    engine: EngineClient
    clock: ManualClock
    ids: Ids
    account: UUID
    workflow: UUID
    handle: str

    async def create(self, n: int = 1, **fields: Any) -> list[UUID]:
        """Keys of `n` new instances, oldest first."""
        keys = [self.ids.uuid7() for _ in range(n)]
        items = [
            NewInstance(
                **{"account_id": self.account, "key": k, "instance_id": str(k), "handle": self.handle, **fields}
            )
            for k in keys
        ]
        await self.engine.create(items)
        return keys

    async def end(self, keys: Sequence[UUID], status: Status = Status.COMPLETE) -> None:
        """End instances, as a flush or a command would."""
        await self.admin.execute(
            "select end_runs(array_agg($1::uuid), array_agg(k), array_agg($3::smallint), array_agg('1'::text),"
            " array_agg(null::text), array_agg($4::timestamptz)) from unnest($2::uuid[]) k",
            self.account,
            list(keys),
            int(status),
            self.clock.now(),
        )

    async def hold(self, keys: Sequence[UUID], owner: int) -> None:
        """Put instances into worker `owner`'s hands, as a claim would."""
        await self.admin.execute(
            "update live set phase = 1, status = 1, owner = $2 where key = any ($1)", list(keys), owner
        )

    async def statuses(self) -> dict[UUID, Status]:
        """The shown status of every instance, by key."""
        rows = await self.admin.fetch(
            "select i.key, coalesce(l.status, i.status) as status from instance i"
            " left join live l using (account_id, key) where i.account_id = $1",
            self.account,
        )
        return {row["key"]: Status(row["status"]) for row in rows}

    async def count(self, table: str) -> int:
        return await self.admin.fetchval(f"select count(*) from {table}")

    async def counters(self) -> dict[int, int]:
        """Finished instances of the workflow by status, as the counters have them."""
        rows = await self.admin.fetch(
            "select status, sum(n)::int as n from counter where workflow_key = $1 group by 1 having sum(n) <> 0",
            self.workflow,
        )
        return {row["status"]: row["n"] for row in rows}


async def add_workflow(
    admin: asyncpg.Connection, ids: Ids, account: UUID, handle: str, now: datetime, runtime: int = 0
) -> UUID:
    """A workflow with one version; its key."""
    workflow, version = ids.uuid7(), ids.uuid7()
    await admin.execute(
        "insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name,"
        " class_name, current_version, created_at, modified_at) values ($1, $2, $3, $3, $1, 's', 'C', $4, $5, $5)",
        account,
        workflow,
        handle,
        version,
        now,
    )
    await admin.execute(
        "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
        " source_hash, step_limit, created_at) values ($1, $2, $3, 1, 'document', $4, 'C', '{}', 'h', 25000, $5)",
        account,
        version,
        workflow,
        runtime,
        now,
    )
    return workflow


@pytest.fixture
async def world(admin: asyncpg.Connection, engine: EngineClient, clock: ManualClock, ids: Ids, account: UUID) -> World:
    workflow = await add_workflow(admin, ids, account, "orders", clock.now())
    return World(admin, engine, clock, ids, account, workflow, "orders")


@pytest.fixture
async def neighbour(
    admin: asyncpg.Connection, engine: EngineClient, clock: ManualClock, ids: Ids, account: UUID
) -> World:
    """Another workflow of the same account."""
    workflow = await add_workflow(admin, ids, account, "invoices", clock.now())
    return World(admin, engine, clock, ids, account, workflow, "invoices")
