"""Definitions of the orchestration face: every route, by a plain HTTP client."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face, client
from tests.support.api import new_tenant

SAMPLE: dict[str, Any] = {
    "name": "Sample Workflow",
    "description": "A sample workflow definition",
    "tasks": [
        {"name": "Task 1", "description": "First task"},
        {"name": "Task 2", "description": "Second task", "dependencies": ["task-1"]},
    ],
    "synchronizationPoints": [
        {
            "name": "All Tasks Completed",
            "description": "Wait for all tasks to complete",
            "requiredTasks": ["task-1", "task-2"],
        }
    ],
}


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def make(face: Face, **changes: Any) -> dict[str, Any]:
    answer = await face.http.post("/api/workflows", json=SAMPLE | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_the_example_of_the_reference(face: Face) -> None:
    answer = await face.http.post("/api/workflows", json=SAMPLE)
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/workflows/{made['id']}")
    assert made["id"].isdigit()
    assert made["createdAt"] == made["updatedAt"]
    assert list(made) == [
        "id", "name", "description", "version", "createdAt", "updatedAt", "tasks", "synchronizationPoints",
    ]  # fmt: skip
    assert {key: made[key] for key in ("name", "description", "version", "tasks", "synchronizationPoints")} == {
        "name": "Sample Workflow",
        "description": "A sample workflow definition",
        "version": "1.0.0",
        "tasks": [
            {
                "id": f"task-{n}",
                "name": f"Task {n}",
                "description": description,
                "resourceRequirements": None,
                "dependencies": dependencies,
                "timeout": None,
                "retryPolicy": None,
            }
            for n, description, dependencies in ((1, "First task", []), (2, "Second task", ["task-1"]))
        ],
        "synchronizationPoints": [
            {
                "id": "sync-1",
                "name": "All Tasks Completed",
                "description": "Wait for all tasks to complete",
                "requiredTasks": ["task-1", "task-2"],
                "timeout": None,
            }
        ],
    }
    assert (await face.http.get(answer.headers["location"])).json() == made
    assert (await face.http.get("/api/workflows")).json() == [made]
    assert (await face.http.get("/api/workflows/sample-workflow")).json() == made


async def test_dependencies_by_id_and_by_name_are_the_same(face: Face) -> None:
    tasks = [{"name": "Task 1"}, {"name": "Task 2", "dependencies": ["Task 1"]}]
    by_id = await make(face, tasks=[tasks[0], {**tasks[1], "dependencies": ["task-1"]}])
    by_name = await make(face, tasks=tasks)
    assert by_id["tasks"] == by_name["tasks"]


async def test_problems_of_a_definition_are_named(face: Face) -> None:
    tasks = [
        {"name": "A", "dependencies": ["task-2"]},
        {"name": "B", "dependencies": ["task-1"]},
        {"name": "C", "dependencies": ["task-9"]},
    ]
    answer = await face.http.post("/api/workflows", json={"name": "x", "tasks": tasks})
    assert problem(answer)[:2] == (400, "INVALID_DEFINITION")
    assert [one["code"] for one in answer.json()["errors"]] == ["UNKNOWN_REFERENCE", "CYCLE"]
    assert answer.json()["errors"][0]["path"] == "/tasks/2/dependencies/0"
    answer = await face.http.post("/api/workflows", json={"name": "x", "tasks": tasks[:2]})
    [cycle] = answer.json()["errors"]
    assert (cycle["code"], "task-1 → task-2 → task-1" in cycle["message"]) == ("CYCLE", True)
    missing = await face.http.post("/api/workflows", json={})
    assert [one["path"] for one in missing.json()["errors"]] == ["/name"]
    misspelt = await face.http.post("/api/workflows", json={"name": "x", "tasks": [{"name": "a", "dependsOn": []}]})
    assert [one["path"] for one in misspelt.json()["errors"]] == ["/tasks/0/dependsOn"]
    assert (await face.http.post("/api/workflows", json={"name": "x", "owner": "me"})).status_code == 201


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"nul"])
async def test_bodies_that_are_no_objects(face: Face, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    for method, path in (("POST", "/api/workflows"), ("PUT", "/api/workflows/1"), ("POST", "/api/executions")):
        answer = await face.http.request(method, path, content=body, headers=headers)
        assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_a_change_makes_a_version_and_no_change_makes_none(face: Face) -> None:
    made = await make(face)
    path = f"/api/workflows/{made['id']}"
    same = await face.http.put(path, json=SAMPLE | {"version": "7.0.0"})
    assert same.json() == made
    changed = (await face.http.put(path, json={"name": "Updated Workflow"})).json()
    assert (changed["version"], changed["name"], changed["tasks"]) == ("1.0.1", "Updated Workflow", made["tasks"])
    assert changed["createdAt"] == made["createdAt"]
    assert changed["updatedAt"] > made["updatedAt"]
    assert (await face.http.get(path)).json() == changed
    assert (await face.http.get(path, params={"version": "1.0.0"})).json() == made
    assert problem(await face.http.get(path, params={"version": "1.0.2"}))[:2] == (404, "NOT_FOUND")
    assert problem(await face.http.put(path, json={"tasks": [{"name": ""}]}))[:2] == (400, "INVALID_DEFINITION")


async def test_a_retired_definition_is_gone_and_its_executions_are_not(face: Face) -> None:
    made = await make(face, tasks=[{"name": "x", "type": "external"}], synchronizationPoints=[])
    started = (await face.http.post("/api/executions", json={"workflowDefinitionId": made["id"]})).json()
    path = f"/api/workflows/{made['id']}"
    gone = await face.http.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        await face.http.get(path),
        await face.http.put(path, json=SAMPLE),
        await face.http.delete(path),
        await face.http.post("/api/executions", json={"workflowDefinitionId": made["id"]}),
    ):
        assert problem(answer) == (404, "NOT_FOUND", "Workflow definition not found")
    assert (await face.http.get("/api/workflows")).json() == []
    shown = (await face.http.get(f"/api/executions/{started['id']}")).json()
    assert shown["workflowDefinitionId"] == made["id"]
    for verb, status in (("pause", "WAITING"), ("resume", "RUNNING"), ("cancel", "CANCELLED")):
        answer = await face.http.post(f"/api/executions/{started['id']}/{verb}")
        assert answer.status_code == 200, answer.text
        if verb != "resume":
            ask = lambda: face.http.get(f"/api/executions/{started['id']}")  # noqa: E731
            await face.when(ask, lambda body, status=status: body["status"] == status)
    assert (await make(face, name=made["name"]))["id"] != made["id"]


async def test_pages(face: Face) -> None:
    ids = [(await make(face, name=f"w{n}"))["id"] for n in range(5)]
    answer = await face.http.get("/api/workflows", params={"limit": 2, "offset": 2})
    assert [one["id"] for one in answer.json()] == [ids[2], ids[1]]
    assert answer.headers["x-total-count"] == "5"
    links = {part.partition("; rel=")[2]: part.partition(";")[0] for part in answer.headers["link"].split(", ")}
    assert links == {
        '"first"': "</api/workflows?offset=0&limit=2>",
        '"prev"': "</api/workflows?offset=0&limit=2>",
        '"next"': "</api/workflows?offset=4&limit=2>",
        '"last"': "</api/workflows?offset=4&limit=2>",
    }
    for many in (1000, 10**40):
        assert len((await face.http.get("/api/workflows", params={"limit": many})).json()) == 5
    for bad in ({"limit": "0"}, {"limit": "x"}, {"limit": "-1"}, {"offset": "-1"}, {"offset": "1e3"}, {"limit": "2.5"}):
        answer = await face.http.get("/api/workflows", params=bad)
        assert problem(answer)[:2] == (400, "BAD_REQUEST")
        assert answer.json()["errors"][0]["path"] == f"/{next(iter(bad))}"


async def test_workflows_of_other_apis_are_definitions_too(face: Face) -> None:
    await face.deploy("other", [{"id": "a", "type": "set", "config": {"values": {"x": 1}}}])
    shown = (await face.http.get("/api/workflows/other")).json()
    assert (shown["version"], [task["id"] for task in shown["tasks"]]) == ("1.0.0", ["a"])
    await face.deploy("other", [{"id": "b"}])
    assert (await face.http.get("/api/workflows/other")).json()["version"] == "1.0.1"
    answer = await face.http.put("/api/workflows/other", json={"synchronizationPoints": []})
    assert problem(answer)[:2] == (409, "CONFLICT")


async def test_roles(face: Face) -> None:
    made = await make(face)
    path, run = f"/api/workflows/{made['id']}", {"workflowDefinitionId": made["id"]}
    allowed = {
        "viewer": (403, 403, 403, 403),
        "operator": (201, 403, 403, 403),
        "integration-manager": (201, 403, 403, 403),
        "workflow-designer": (201, 201, 200, 403),
        "admin": (201, 201, 200, 204),
    }
    for role, expected in allowed.items():
        scopes = {
            "viewer": ["workflows:read", "executions:read"],
            "operator": ["workflows:read", "executions:write", "executions:delete"],
            "integration-manager": ["workflows:read", "webhooks:write", "executions:write", "executions:delete"],
            "workflow-designer": ["workflows:write", "executions:write", "executions:delete"],
            "admin": ["admin"],
        }[role]
        somebody = await new_tenant(face.server.platform, scopes, of=face.tenant.id)
        async with client(face.server, somebody) as http:
            assert (await http.get(path)).status_code == 200
            answers = [
                await http.post("/api/executions", json=run),
                await http.post("/api/workflows", json=SAMPLE),
                await http.put(path, json=SAMPLE),
                await http.delete(path),
            ]
        assert tuple(answer.status_code for answer in answers) == expected, role
        for answer in answers:
            if answer.status_code == 403:
                assert problem(answer) == (403, "FORBIDDEN", "Insufficient permissions")


async def test_headers_of_definitions_are_secret_to_viewers(face: Face) -> None:
    config = {"url": "https://example.com/", "headers": {"Authorization": "Bearer x"}}
    made = await make(face, tasks=[{"name": "x", "type": "call_api", "config": config}], synchronizationPoints=[])
    viewer = await new_tenant(face.server.platform, ["workflows:read"], of=face.tenant.id)
    async with client(face.server, viewer) as http:
        shown = (await http.get(f"/api/workflows/{made['id']}")).json()
    assert shown["tasks"][0]["config"]["headers"] == {"Authorization": "[REDACTED]"}
    assert made["tasks"][0]["config"] == config
