"""A document may ask that a cancel, through whichever API, undoes what was done before the instance ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face

NODES: list[dict[str, Any]] = [
    {"id": "book", "compensate": {"type": "external"}},
    {"id": "wait", "type": "wait_for_event", "depends_on": ["book"], "config": {"event": "go"}},
]

Cancel = Callable[[Face, str, str], Awaitable[httpx.Response]]


async def listed(face: Face, path: str, *names: str) -> str:
    found: Any = (await face.http.get(path)).json()
    for name in names:
        found = found[name]
    return found[0]["id"]


async def by_cloudflare(face: Face, _: str, instance: str) -> httpx.Response:
    return await face.cloud.patch(f"/workflows/saga/instances/{instance}/status", json={"status": "terminate"})


async def by_jobsprint(face: Face, id: str, _: str) -> httpx.Response:
    execution = await listed(face, f"/v1/executions?workflowId={id}", "data")
    answer = await face.http.post(f"/v1/executions/{execution}/cancel")
    assert answer.json()["data"] == {"id": execution, "status": "running", "cancelledAt": None}
    return answer


async def by_orchestration(face: Face, id: str, _: str) -> httpx.Response:
    execution = await listed(face, f"/api/executions?workflowDefinitionId={id}")
    answer = await face.http.post(f"/api/executions/{execution}/cancel")
    assert answer.json()["status"] == "RUNNING"
    return answer


async def by_graphql(face: Face, id: str, _: str) -> httpx.Response:
    execution = await listed(face, f"/api/executions?workflowDefinitionId={id}")
    query = "mutation ($id: ID!) { cancelWorkflowExecution(id: $id) { status } }"
    answer = await face.http.post("/graphql", json={"query": query, "variables": {"id": execution}})
    assert answer.json() == {"data": {"cancelWorkflowExecution": {"status": "RUNNING"}}}
    return answer


async def by_workspaces(face: Face, id: str, _: str) -> httpx.Response:
    base = "/api/workspaces/default/workflows"
    execution = await listed(face, f"{base}/{id}/executions", "executions")
    answer = await face.http.delete(f"{base}/executions/{execution}")
    assert answer.json()["execution"]["status"] == "RUNNING"
    return answer


async def waiting(face: Face, **document: Any) -> tuple[str, str]:
    id = (await face.deploy("saga", NODES, **document))["id"]
    instance = (await face.cloud.post("/workflows/saga/instances", json={})).json()["result"]["id"]
    await until(face, instance, "waiting")
    return id, instance


async def until(face: Face, instance: str, status: str) -> dict[str, Any]:
    path = f"/workflows/saga/instances/{instance}"
    body = await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == status)
    return body["result"]


CANCELS: list[Cancel] = [by_cloudflare, by_jobsprint, by_orchestration, by_graphql, by_workspaces]


@pytest.mark.parametrize("cancel", CANCELS, ids=lambda cancel: cancel.__name__)
async def test_it_is_undone_and_then_over(face: Face, cancel: Cancel) -> None:
    id, instance = await waiting(face, rollback="always")
    answer = await cancel(face, id, instance)
    assert answer.status_code == 200, answer.text
    await until(face, instance, "rollingBack")
    async with asyncio.timeout(20):
        # The compensation is refused until the run has come to it.
        path = "/admin/workflows-executions/saga/steps/success"
        body = {"transaction_id": instance, "step_id": "book", "action": "compensate"}
        while (await face.http.post(path, json=body)).status_code != 200:
            await asyncio.sleep(0.02)
    ended = await until(face, instance, "terminated")
    assert ended["rollback"] == {"outcome": "complete", "error": None}


@pytest.mark.parametrize("rollback", ["auto", "never"])
async def test_otherwise_it_is_over_at_once(face: Face, rollback: str) -> None:
    id, instance = await waiting(face, rollback=rollback)
    execution = await listed(face, f"/v1/executions?workflowId={id}", "data")
    answer = await face.http.post(f"/v1/executions/{execution}/cancel")
    assert answer.json()["data"]["status"] == "cancelled"
    assert (await until(face, instance, "terminated"))["rollback"] is None


async def test_who_says_so_gets_it_without(face: Face) -> None:
    _, instance = await waiting(face, rollback="always")
    change = {"status": "terminate", "rollback": False}
    answer = await face.cloud.patch(f"/workflows/saga/instances/{instance}/status", json=change)
    assert answer.json()["result"]["status"] == "terminated"
