"""Scripts belong to workspaces: what a caller restricted to one finds, makes, and never gets from another."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from uuid import UUID

import pytest

from tenants.auth import Caller
from tenants.service import TenantService
from versions.deployments.schemas import SecretText
from versions.deployments.service import DeploymentService
from versions.errors import ScriptElsewhere, ScriptNameTaken, ScriptNotFound, ScriptReferenced
from versions.schemas import ScriptRow, WorkflowBody
from versions.service import VersionService

from .test_deployment_routes import FLOW, Checker
from .test_script_routes import wrangler_body

HERE, THERE = UUID(int=7), UUID(int=8)
BODY = WorkflowBody(class_name="Flow", script_name="flows")


@pytest.fixture
def versions(db, clock, ids, tenants) -> VersionService:
    return VersionService(db, clock, ids, tenants, checker=Checker())


@pytest.fixture
def here(boss: Caller) -> Caller:
    return dataclasses.replace(boss, workspace_id=HERE)


@pytest.fixture
def there(boss: Caller) -> Caller:
    return dataclasses.replace(boss, workspace_id=THERE)


async def upload(versions: VersionService, caller: Caller, name: str = "flows", secret: str | None = None) -> ScriptRow:
    metadata: dict[str, Any] = {"main_module": "index.js", "keep_bindings": ["secret_text"]}
    if secret is not None:
        metadata["bindings"] = [{"type": "secret_text", "name": "KEY", "text": secret}]
    body, headers = wrangler_body(metadata, [("index.js", FLOW, "application/javascript+module")])
    row, _ = await versions.scripts.upload(caller, name, body, headers["content-type"])
    return row


async def test_a_script_is_where_it_was_uploaded_first(
    versions: VersionService, tenants: TenantService, boss: Caller, here: Caller, there: Caller
) -> None:
    """Without a restriction that is the default workspace; later uploads leave it there, and only they may come."""
    default = (await tenants.workspaces.get(boss.account_id, "default")).id
    assert (await upload(versions, boss, "a")).workspace_id == default
    assert (await upload(versions, here, "b")).workspace_id == HERE
    assert (await upload(versions, boss, "b")).workspace_id == HERE
    for caller, name in ((here, "a"), (there, "a"), (there, "b")):
        with pytest.raises(ScriptNameTaken, match=f"^the name '{name}' is taken by a script of another workspace$"):
            await upload(versions, caller, name)
    listed = {who: [row.name for row in await versions.scripts.all(who)] for who in (boss, here, there)}
    assert listed == {boss: ["a", "b"], here: ["b"], there: []}


async def test_an_upload_keeps_no_secrets_of_another_workspace(
    versions: VersionService, deployments: DeploymentService, here: Caller, there: Caller
) -> None:
    """`keep_bindings` keeps those of the script before: there is none, also when the name is free again."""
    await upload(versions, here, secret="hunter2")
    with pytest.raises(ScriptNameTaken):
        await upload(versions, there)
    await deployments.delete(here, "flows", force=False)
    row = await upload(versions, there)
    assert (json.loads(row.secrets), json.loads(row.bindings)) == ({}, [])


async def test_a_deleted_script_s_name_lends_nothing(
    versions: VersionService, deployments: DeploymentService, here: Caller, there: Caller
) -> None:
    """A workflow that goes on with a deleted script reads no secrets of one that now has the name, nor back."""
    await upload(versions, here, secret="of here")
    old = (await versions.put(here, "old", BODY)).workflow
    await deployments.delete(here, "flows", force=True)
    await upload(versions, there, secret="of there")
    new = (await versions.put(there, "new", BODY)).workflow
    await deployments.change_secrets(there, "flows", {"KEY": SecretText("newer")}, "api")
    known = {}
    for workflow in (old, new):
        handle, account = workflow.handle, workflow.account_id
        current = (await versions.workflow(account, handle)).current_version
        assert current is not None
        script = (await versions.load(account, current)).script_id
        assert script is not None
        known[handle] = await versions.scripts.runnable(account, script)
    assert {handle: (one.variables, one.classes) for handle, one in known.items()} == {
        "old": ({"KEY": "of here"}, {"Flow": "old"}),
        "new": ({"KEY": "newer"}, {"Flow": "new"}),
    }
    assert (await versions.describe(here, "old")).script_deleted
    assert not (await versions.describe(there, "new")).script_deleted
    assert await deployments.references(there, "flows") == ["new"]
    with pytest.raises(ScriptReferenced, match="workflows run this script: new;"):
        await deployments.delete(there, "flows", force=False)


async def test_a_workflow_runs_scripts_of_its_workspace(
    versions: VersionService, boss: Caller, here: Caller, there: Caller
) -> None:
    """A new one is made where its script is; one that is elsewhere is not given the script, by nobody."""
    await upload(versions, here)
    assert (await versions.put(boss, "made", BODY)).workflow.workspace_id == HERE
    with pytest.raises(ScriptNotFound):
        await versions.put(there, "mine", BODY)
    document = WorkflowBody(definition={"spec": "workflow/1", "nodes": [{"id": "a"}]})
    for caller, handle in ((boss, "default"), (there, "theirs")):
        before = (await versions.put(caller, handle, document)).workflow
        with pytest.raises(ScriptElsewhere):
            await versions.put(boss, handle, BODY)
        assert await versions.workflow(boss.account_id, handle) == before
    made = await versions.definitions.duplicate(boss, "made")
    assert made.definition.workflow.workspace_id == HERE
