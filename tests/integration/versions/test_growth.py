"""Deploying again and again, making and deleting workflows: what is stored does not grow with it."""

from __future__ import annotations

import asyncpg
import pytest

from instances.engine.client import EngineClient
from instances.engine.requests import Create, NewInstance
from jobs.figures.roll_up import FoldCounters
from jobs.retention import store as retention_store
from jobs.retention.retiring import ExpireRows, RetireInstances
from jobs.retention.workflows import PruneWorkflows
from jobs.termination.terminator import Terminator
from tenants.auth import Caller
from tenants.clock import ManualClock
from tenants.ids import Ids
from tenants.limits import SCRIPT_VERSIONS_KEPT, WORKFLOW_VERSIONS_KEPT
from versions.deployments import pruning
from versions.deployments.pruning import PruneScripts
from versions.service import VersionService

from .test_definitions import SAMPLE
from .test_deployment_routes import MODULES, ROOT, Checker
from .test_script_routes import upload

DAY = 86_400
AUDIT_DAYS = 401
"""After so many days the last line of what happened is gone, too."""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions are kept instead of a hundred."""
    monkeypatch.setattr(pruning.store, "PRUNE", pruning.store.PRUNE.replace(str(SCRIPT_VERSIONS_KEPT), "3"))
    for name in ("_NEXT_WORKFLOW", "_OUTLIVED_VERSIONS", "_DELETE_VERSIONS"):
        text = getattr(retention_store, name)
        monkeypatch.setattr(retention_store, name, text.replace(f"offset {WORKFLOW_VERSIONS_KEPT} ", "offset 3 "))


@pytest.fixture
def versions(db, clock, ids, tenants) -> VersionService:
    return VersionService(db, clock, ids, tenants, checker=Checker())


@pytest.fixture
def keep_house(db, clock, tenants):
    """Runs all duties of workers that delete until they have nothing more to do."""
    duties = [
        Terminator(db, clock, lambda worker, runs: None),
        RetireInstances(db, clock),
        FoldCounters(db),
        ExpireRows(db, clock, tenants),
        PruneWorkflows(db, clock),
        PruneScripts(db, clock),
    ]

    async def run() -> None:
        for _ in range(4):  # what one leaves another one may delete then
            for duty in duties:
                while await duty.tick():
                    pass

    return run


async def rows(admin: asyncpg.Connection) -> dict[str, int]:
    """How many rows each table has."""
    tables = await admin.fetch("select tablename from pg_tables where schemaname = 'public'")
    return {row[0]: int(await admin.fetchval(f"select count(*) from {row[0]}") or 0) for row in tables}


class Tenant:
    """Somebody who deploys, runs and deletes."""

    def __init__(self, api, versions, engine: EngineClient, admin: asyncpg.Connection, clock: ManualClock, ids: Ids):
        self.api, self.versions, self.engine = api, versions, engine
        self.admin, self.clock, self.ids = admin, clock, ids

    async def run(self, handle: str) -> None:
        """An instance, from beginning to end."""
        account, key = self.api.account_id, self.ids.uuid7()
        [made] = await self.engine.create(
            [NewInstance(account_id=account, key=key, instance_id=str(key), handle=handle)]
        )
        assert made.outcome is Create.CREATED
        await self.admin.execute(
            "select end_runs(array[$1::uuid], array[$2::uuid], array[6::smallint], array['1'],"
            " array[null::text], array[$3::timestamptz])",
            account,
            key,
            self.clock.now(),
        )

    async def live_a_while(self, caller: Caller) -> None:
        """Every way to make versions and to get rid of workflows."""
        for number in range(5):
            await upload(self.api, modules=MODULES)
            body = {"script_name": "worker", "class_name": "Flow"}
            assert (await self.api("PUT", "/workflows/scripted", json=body))[0] == 200
            await self.run("scripted")
            secret = {"name": "KEY", "text": str(number), "type": "secret_text"}
            assert (await self.api("PUT", f"{ROOT}/secrets", json=secret))[0] == 200
            definition = {"spec": "workflow/1", "nodes": [{"id": f"n{number}"}]}
            assert (await self.api("PUT", "/workflows/written", json={"definition": definition}))[0] == 200
            await self.run("written")
        assert (await self.api("DELETE", "/workflows/written"))[0] == 200
        retired = (await self.versions.definitions.create(caller, "002", SAMPLE)).definition.workflow
        await self.run(retired.handle)
        await self.versions.definitions.delete(caller, retired.handle)


@pytest.mark.parametrize("days", [40, AUDIT_DAYS])
async def test_what_is_stored_stays_within_bounds(api, versions, boss, engine, admin, clock, ids, keep_house, days):
    assert boss.account_id == api.account_id
    tenant = Tenant(api, versions, engine, admin, clock, ids)
    seen = []
    for _ in range(4):
        await tenant.live_a_while(boss)
        clock.advance(days * DAY)
        await keep_house()
        seen.append(await rows(admin))
    if days < AUDIT_DAYS:
        assert all(each.pop("audit_line") for each in seen)
    assert seen[1] == seen[2] == seen[3]
    assert seen[3]["instance"] == seen[3]["journal"] == seen[3]["feed"] == 0
    assert seen[3]["workflow"] == 1
    assert seen[3]["version"] == 3
