"""What is started through one face is seen through all of them (app.faces)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face

SCRIPT = """
import { WorkflowEntrypoint } from "cloudflare:workers";

export class Doubles extends WorkflowEntrypoint {
  async run(event, step) {
    return { twice: await step.do("double", async () => event.payload.n * 2) };
  }
}
"""
DOCUMENT = {
    "spec": "workflow/1",
    "name": "shared",
    "nodes": [{"id": "keep", "type": "set", "config": {"values": {"kept": "{{ trigger.n }}"}}}],
}

Start = Callable[[Face, str, int], Awaitable[httpx.Response]]


async def by_cloudflare(face: Face, _: str, n: int) -> httpx.Response:
    return await face.cloud.post("/workflows/shared/instances", json={"params": {"n": n}})


async def by_medusa(face: Face, _: str, n: int) -> httpx.Response:
    return await face.http.post("/admin/workflows-executions/shared/run", json={"input": {"n": n}})


async def by_jobsprint(face: Face, id: str, n: int) -> httpx.Response:
    return await face.http.post(f"/v1/workflows/{id}/execute", json={"inputData": {"n": n}})


async def by_orchestration(face: Face, id: str, n: int) -> httpx.Response:
    body = {"workflowDefinitionId": id, "initialContext": {"n": n}}
    return await face.http.post("/api/executions", json=body)


async def by_workspaces(face: Face, id: str, n: int) -> httpx.Response:
    return await face.http.post(f"/api/workspaces/default/workflows/{id}/execute", json={"triggerData": {"n": n}})


STARTS: dict[str, Start] = {
    "cloudflare": by_cloudflare,
    "medusa": by_medusa,
    "jobsprint": by_jobsprint,
    "orchestration": by_orchestration,
    "workspaces": by_workspaces,
}
COMPLETE = {
    "cloudflare": "complete",
    "medusa": "done",
    "jobsprint": "success",
    "orchestration": "COMPLETED",
    "workspaces": "COMPLETED",
}


async def deploy_document(face: Face) -> str:
    answer = await face.cloud.put("/workflows/shared", json={"definition": DOCUMENT})
    return answer.json()["result"]["id"]


async def deploy_script(face: Face) -> str:
    files = {
        "metadata": (None, json.dumps({"main_module": "main.js"})),
        "main.js": ("main.js", SCRIPT, "application/javascript+module"),
    }
    uploaded = await face.cloud.put("/workers/scripts/doubles", files=files)
    assert uploaded.status_code == 200, uploaded.text
    made = await face.cloud.put("/workflows/shared", json={"script_name": "doubles", "class_name": "Doubles"})
    assert made.status_code == 200, made.text
    return made.json()["result"]["id"]


async def seen(face: Face, id: str) -> dict[str, dict[int, str]]:
    """What each face shows: the statuses of all executions of the workflow, by what each was given."""
    http, cloud = face.http, face.cloud
    listed = (await cloud.get("/workflows/shared/instances")).json()["result"]
    views = [(await cloud.get(f"/workflows/shared/instances/{one['id']}")).json()["result"] for one in listed]
    medusa = (await http.get("/admin/workflows-executions", params={"workflow_id": "shared"})).json()
    jobsprint = (await http.get("/v1/executions", params={"workflowId": id})).json()["data"]
    executions = (await http.get("/api/executions", params={"workflowDefinitionId": id})).json()
    in_workspace = (await http.get(f"/api/workspaces/default/workflows/{id}/executions")).json()["executions"]
    return {
        "cloudflare": {one["params"]["n"]: one["status"] for one in views},
        "medusa": {one["context"]["data"]["payload"]["n"]: one["state"] for one in medusa["workflow_executions"]},
        "jobsprint": {one["inputData"]["n"]: one["status"] for one in jobsprint},
        "orchestration": {json.loads(one["context"]["data"])["n"]: one["status"] for one in executions},
        "workspaces": {one["triggerData"]["n"]: one["status"] for one in in_workspace},
    }


@pytest.mark.parametrize("deploy", [deploy_document, deploy_script])
async def test_what_one_starts_all_see(face: Face, deploy: Callable[[Face], Awaitable[str]]) -> None:
    id = await deploy(face)
    for n, start in enumerate(STARTS.values()):
        answer = await start(face, id, n)
        assert answer.status_code in (200, 201), answer.text
    await face.when(
        lambda: face.cloud.get("/workflows/shared"),
        lambda body: body["result"]["instances"]["complete"] == len(STARTS),
    )
    shown: dict[str, Any] = await seen(face, id)
    assert shown == {name: dict.fromkeys(range(len(STARTS)), status) for name, status in COMPLETE.items()}
