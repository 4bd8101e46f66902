"""The service under other faces and the engine: loading, races, workspaces, scripts with a parser, schedules."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tenants.auth import Caller
from tenants.paging import Page
from versions.deployments.service import DeploymentService
from versions.document import decode_document
from versions.errors import InvalidWorkflowName, ScriptInvalid, ScriptNotFound, VersionNotFound, WorkflowNotFound
from versions.schemas import WorkflowBody
from versions.service import VersionService
from versions.sources import document_source
from versions.store import schedules as schedule_store
from versions.store import scripts as script_store
from versions.store import versions as version_store
from versions.store import workflows as workflow_store

WRANGLER = {"main_module": "index.js", "bindings": []}


def body(definition: Any = None, **settings: Any) -> WorkflowBody:
    return WorkflowBody(definition=definition or {"spec": "workflow/1", "nodes": [{"id": "a"}]}, **settings)


async def test_load_gives_what_the_engine_needs(versions, boss):
    workflow = (await versions.put(boss, "orders", body())).workflow
    version = await versions.load(boss.account_id, workflow.current_version)
    assert (version.handle, version.display_name, version.no, version.runtime) == ("orders", "orders", 1, 0)
    assert (version.language, version.class_name, version.step_limit) == ("document", "Document", 25_000)
    assert [node.id for node in decode_document(version.source).nodes] == ["a"]
    assert await versions.load(boss.account_id, version.version_key) is version
    assert await versions.workflow(boss.account_id, "orders") == workflow


async def test_versions_of_deleted_workflows_still_load(versions, boss):
    workflow = (await versions.put(boss, "orders", body())).workflow
    await versions.delete(boss, "orders")
    assert (await versions.load(boss.account_id, workflow.current_version)).handle == "orders"
    with pytest.raises(WorkflowNotFound):
        await versions.workflow(boss.account_id, "orders")


async def test_another_account_cannot_load_or_find(versions, boss, stranger):
    workflow = (await versions.put(boss, "orders", body())).workflow
    await versions.load(boss.account_id, workflow.current_version)
    with pytest.raises(VersionNotFound):
        await versions.load(stranger.account_id, workflow.current_version)
    with pytest.raises(VersionNotFound):
        await versions.origin(stranger.account_id, workflow.current_version)
    with pytest.raises(WorkflowNotFound):
        await versions.workflow(stranger.account_id, "orders")


async def test_the_cache_forgets_the_oldest(versions, boss, monkeypatch):
    monkeypatch.setattr("versions.service.CACHED_VERSIONS", 2)
    keys = [(await versions.put(boss, f"w{n}", body())).workflow.current_version for n in range(3)]
    rows = [await versions.load(boss.account_id, key) for key in keys]
    assert await versions.load(boss.account_id, keys[2]) is rows[2]
    assert await versions.load(boss.account_id, keys[0]) is not rows[0]


async def test_walls_hold_behind_every_statement(db, versions, boss, stranger):
    """Row-level security alone, with the other account named in the statement."""
    workflow = (await versions.put(boss, "orders", body())).workflow
    async with db.scope(stranger.account_id) as connection:
        assert await workflow_store.workflow(connection, boss.account_id, None, "orders") is None
        assert await workflow_store.workflow_details(connection, boss.account_id, None, "orders") is None
        assert await workflow_store.workflows(connection, boss.account_id, None, None, 10, 0) == ([], 0)
        assert await version_store.version(connection, boss.account_id, workflow.current_version) is None
        assert await version_store.graph(connection, boss.account_id, workflow.current_version) is None
        assert await schedule_store.schedules(connection, boss.account_id, workflow.workflow_key) == []
        assert await script_store.scripts(connection, boss.account_id, None) == []
        job = UUID(int=1)
        gone = await workflow_store.delete_workflow(
            connection, boss.account_id, None, "orders", workflow.created_at, job
        )
        assert gone is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await workflow_store.insert_workflow(
                connection, boss.account_id, UUID(int=2), "theirs", None, workflow.created_at
            )


async def test_concurrent_puts_make_one_workflow_and_number_their_versions(versions, boss, admin):
    puts = [versions.put(boss, "orders", body(limits=None, concurrency=None, class_name=f"c{n}")) for n in range(4)]
    puts += [versions.put(boss, "orders", body({"spec": "workflow/1", "nodes": [{"id": f"n{n}"}]})) for n in range(4)]
    done = await asyncio.gather(*puts)
    assert len({one.workflow.workflow_key for one in done}) == 1
    numbers = [row["no"] for row in await admin.fetch("select no from version order by no")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 5 <= len(numbers) <= 8


async def test_the_original_is_kept_verbatim(versions, boss, clock):
    definition = {"spec": "workflow/1", "nodes": [{"id": "a", "timeout": "10 seconds"}]}
    workflow = (await versions.put(boss, "orders", body(definition))).workflow
    origin = await versions.origin(boss.account_id, workflow.current_version)
    assert origin.dialect == "003"
    assert origin.original == '{"spec":"workflow/1","nodes":[{"id":"a","timeout":"10 seconds"}]}'
    source = document_source(
        {**definition, "source": {"dialect": "mine"}}, "tasks", clock.now(), known_handlers=(), check_url=None,
        original={"tasks": []},
    )  # fmt: skip
    workflow = (await versions.deploy(boss, "tasks", source, WorkflowBody())).workflow
    origin = await versions.origin(boss.account_id, workflow.current_version)
    assert (origin.dialect, origin.original) == ("mine", '{"tasks":[]}')


async def test_workspaces(versions, boss):
    inside = Caller(boss.account_id, None, None, "x", boss.scopes, boss.role, UUID(int=7))
    await versions.put(boss, "global", body())
    await versions.put(inside, "local", body())
    assert (await versions.workflow(boss.account_id, "local")).workspace_id == UUID(int=7)
    page = Page(1, 10)
    assert [w.row.handle for w in (await versions.page(inside, page))[0]] == ["local"]
    assert (await versions.page(boss, page))[1] == 2
    with pytest.raises(WorkflowNotFound):
        await versions.describe(inside, "global")
    with pytest.raises(WorkflowNotFound):
        await versions.delete(inside, "global")
    with pytest.raises(InvalidWorkflowName):
        await versions.put(inside, "global", body())


class Checker:
    """Finds one workflow in every script."""

    async def check(self, script: Any, flags: Any, variables: Any) -> dict[str, str]:
        return {"Flow": "workflow", "default": "worker"}


async def test_workflows_on_scripts(db, clock, ids, tenants, boss, admin):
    versions = VersionService(db, clock, ids, tenants, checker=Checker())
    deployments = DeploymentService(db, clock, ids, tenants, versions.scripts)
    request = WorkflowBody(class_name="Flow", script_name="worker")
    with pytest.raises(ScriptNotFound):
        await versions.put(boss, "flow", request)
    upload = (
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"main_module": "i.js"}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="i.js"\r\n\r\nexport {}\r\n--b--\r\n'
    )
    kind = "multipart/form-data; boundary=b"
    await versions.scripts.upload(boss, "worker", upload, kind)
    with pytest.raises(ScriptInvalid, match=r"exports no class 'Other' that extends WorkflowEntrypoint; .*: Flow"):
        await versions.put(boss, "flow", WorkflowBody(class_name="Other", script_name="worker"))
    first = await versions.put(boss, "flow", request)
    assert (await versions.put(boss, "flow", request)).changed is False
    version = await versions.load(boss.account_id, first.workflow.current_version)
    assert (version.runtime, version.language, version.class_name) == (1, "javascript", "Flow")
    assert version.script_id is not None
    assert (await versions.describe(boss, "flow")).script_deleted is False
    (listed,), _ = await versions.versions(boss, "flow", Page(1, 10))
    assert listed.has_graph is False
    assert (await versions.graph(boss, "flow", listed.version_key))[1] is None
    await versions.scripts.upload(boss, "worker", upload, kind)
    assert (await versions.put(boss, "flow", request)).changed is True
    await deployments.delete(boss, "worker", force=True)
    assert (await versions.describe(boss, "flow")).script_deleted is True
    assert (await versions.load(boss.account_id, first.workflow.current_version)).script_id is not None


async def test_schedules_of_a_document(versions, boss, admin, clock):
    triggers = [
        {"type": "schedule", "cron": "0 9 * * *", "timezone": "Europe/Berlin", "max_runs": 2, "input": {"a": 1}},
        {"type": "schedule", "interval": 60_000, "concurrency": "allow"},
        {"type": "manual"},
    ]
    definition = {"spec": "workflow/1", "triggers": triggers}
    await versions.put(boss, "orders", body(definition))
    rows = await admin.fetch("select * from schedule order by interval_ms nulls first")
    assert [(r["cron"], r["interval_ms"], r["timezone"], r["overlap"], r["max_runs"], r["input"]) for r in rows] == [
        ("0 9 * * *", None, "Europe/Berlin", False, 2, '{"a":1}'),
        (None, 60_000, "UTC", True, None, None),
    ]
    assert [(r["next_at"] - clock.now()).total_seconds() for r in rows] == [8 * 3600, 60]
    assert [cron for cron, _ in (await versions.describe(boss, "orders")).schedules] == ["0 9 * * *"]
    await versions.put(boss, "orders", body(definition, schedules=[]))
    assert await admin.fetchval("select count(*) from schedule") == 0
