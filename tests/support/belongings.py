"""An account with one of everything, and how paths of every face name those."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from app.composition import Platform
from app.faces.registry import face_of
from instances.runtimes.document.store import ActionStore
from tests.support.api import Tenant, new_tenant

DOCUMENT = {
    "spec": "workflow/1",
    "name": "w",
    "nodes": [{"id": "w", "type": "wait_for_event", "config": {"event": "e"}}],
}
HOOK = {"url": "https://hooks.invalid/in", "events": ["*"]}
WORKSPACE = "/api/workspaces/default"


@dataclass(frozen=True)
class Belongings:
    """An account, and the names of what is in it."""

    tenant: Tenant
    of_cloudflare: dict[str, str]
    workflow: str
    """UUID of the workflow, which every face takes."""
    execution: str
    """Number of its execution in the orchestration face."""
    ulid: str
    """What the other faces put behind a prefix."""
    task: str
    """Number of the execution's task in the orchestration face."""
    hook: str
    delivery: str
    notification: str
    to_do: str
    """Task of an inbox in the workspaces face."""

    def names(self, path: str) -> dict[str, str]:
        """The values of the parameters of a path template of the contract."""
        if getattr(face_of(path), "name", None) is None:
            of_script = {"version_id": self.of_cloudflare["script_version_id"]} if "{script_name}" in path else {}
            return self.of_cloudflare | of_script
        named_id = {
            "/api/workflows/": self.workflow,
            "/api/tasks/": self.task,
            "/api/webhooks/": self.hook,
            "/api/executions/": self.execution,
        }
        return {
            "id": next((id for root, id in named_id.items() if path.startswith(root)), f"wf_exec_{self.ulid}"),
            "workflow_id": self.workflow,
            "execution_id": f"exec_{self.ulid}",
            "executionId": self.execution,
            "deliveryId": self.delivery,
            "transaction_id": "i",
            "step_id": "w",
            "slug": "default",
            "notification_id": self.notification,
            "task_id": self.to_do,
        }


async def make(platform: Platform, http: httpx.AsyncClient) -> Belongings:
    """A new account with one of everything. No worker is needed, and nothing has run."""
    tenant = await new_tenant(platform)
    as_tenant: Any = {"headers": tenant.headers}
    root, script = f"{tenant.path}/workflows/w", f"{tenant.path}/workers/scripts/s"
    made = (await _done(http.put(root, json={"definition": DOCUMENT}, **as_tenant)))["result"]
    await _done(http.post(f"{root}/instances", json={"instance_id": "i"}, **as_tenant))
    metadata = {"main_module": "s.js", "bindings": [{"type": "secret_text", "name": "KEY", "text": "hidden"}]}
    files: Any = {
        "metadata": (None, json.dumps(metadata)),
        "s.js": ("s.js", "export default {}", "application/javascript+module"),
    }
    await _done(http.put(script, files=files, **as_tenant))
    [deployment] = (await _done(http.get(f"{script}/deployments", **as_tenant)))["result"]["deployments"]
    [token] = (await _done(http.get(f"{tenant.path}/tokens", **as_tenant)))["result"]
    [execution] = await _done(http.get("/api/executions", **as_tenant))
    [task] = await _done(http.get(f"/api/executions/{execution['id']}/tasks", **as_tenant))
    [shown] = (await _done(http.get("/v1/executions", **as_tenant)))["data"]
    hook = await _done(http.post("/api/webhooks", json=HOOK, **as_tenant))
    return Belongings(
        tenant=tenant,
        of_cloudflare={
            "account_id": tenant.hex,
            "workflow_name": "w",
            "instance_id": "i",
            "version_id": made["version_id"],
            "script_version_id": deployment["versions"][0]["version_id"],
            "event_type": "e",
            "event_name": "e",
            "token": "no-hook",
            "script_name": "s",
            "secret_name": "KEY",
            "deployment_id": deployment["id"],
            "token_id": token["id"],
        },
        workflow=made["id"],
        execution=execution["id"],
        ulid=shown["id"].removeprefix("exec_"),
        task=task["id"],
        hook=hook["id"],
        delivery=await _delivery(platform, tenant, int(hook["id"])),
        **await _inbox(platform, tenant, UUID(made["id"])),
    )


async def _inbox(platform: Platform, tenant: Tenant, key: UUID) -> dict[str, str]:
    workspace = await platform.tenants.workspaces.get(tenant.id, "default")
    actions, now = ActionStore(platform.db), platform.clock.now()
    notification, to_do = platform.ids.uuid7(), platform.ids.uuid7()
    common: Any = {"workspace_id": workspace.id, "instance_key": key, "node": "n", "at": now}
    await actions.add_notification(tenant.id, notification, recipient="ada", message="hello", **common)
    texts = {"title": "do it", "description": "", "priority": "HIGH", "assigned_to": "ada"}
    await actions.add_task(tenant.id, to_do, **texts, **common)
    return {"notification": str(notification), "to_do": str(to_do)}


async def _delivery(platform: Platform, tenant: Tenant, hook: int) -> str:
    insert = (
        "insert into webhook_delivery (account_id, webhook_no, event, event_id, body, status, created_at, expires_at)"
        " values ($1, $2, 'workflow.execution.completed', 'e', '{}', 2, $3, $4) returning no"
    )
    now = platform.clock.now()
    async with platform.db.scope(tenant.id) as connection:
        return str(await connection.fetchval(insert, tenant.id, hook, now, now + timedelta(days=1)))


async def _done(asked: Awaitable[httpx.Response]) -> Any:
    answer = await asked
    assert answer.status_code in (200, 201), answer.text
    return answer.json()
