"""Workflows and logins of the JobSprint face."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tests.conformance.conftest import Face, client
from tests.support.api import new_tenant

BODY: dict[str, Any] = {
    "name": "Email Auto-Responder",
    "description": "Answers",
    "definition": {
        "nodes": [
            {"id": "node_1", "type": "trigger", "name": "Email Received", "parameters": {}},
            {
                "id": "node_2",
                "type": "set",
                "name": "Answer",
                "parameters": {"values": {"to": "{{ email.from }}"}},
            },
        ],
        "connections": [{"from": "node_1", "to": "node_2"}],
    },
    "settings": {"timeout": 60, "retryOnFailure": True, "maxRetries": 2},
}


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_workflow_is_made_run_changed_and_retired(face: Face) -> None:
    made = (await face.http.post("/v1/workflows", json=BODY)).json()["data"]
    assert (made["name"], made["status"], made["version"]) == ("Email Auto-Responder", "active", 1)
    assert made["definition"] == BODY["definition"]
    assert made["settings"] == BODY["settings"]
    run = await face.http.post(
        f"/v1/workflows/{made['id']}/execute",
        json={"inputData": {"email": {"from": "user@example.com"}}, "options": {"waitForCompletion": True}},
    )
    assert run.json()["data"]["outputData"] == {"to": "user@example.com"}

    same = (await face.http.put(f"/v1/workflows/{made['id']}", json=BODY)).json()["data"]
    assert same["version"] == 1
    changed = (await face.http.put(f"/v1/workflows/{made['id']}", json={"description": "More"})).json()["data"]
    assert (changed["version"], changed["description"], changed["definition"]) == (2, "More", BODY["definition"])
    shown = (await face.http.get(f"/v1/workflows/{made['id']}")).json()["data"]
    assert (shown["executionCount"], shown["lastExecutionAt"] is None) == (1, False)

    gone = await face.http.delete(f"/v1/workflows/{made['id']}")
    assert gone.json()["data"] == {"id": made["id"], "deleted": True}
    assert problem(await face.http.get(f"/v1/workflows/{made['id']}")) == (404, "NOT_FOUND")
    assert problem(await face.http.post(f"/v1/workflows/{made['id']}/execute")) == (404, "NOT_FOUND")
    assert len((await face.http.get("/v1/executions")).json()["data"]) == 1


async def test_only_active_workflows_run(face: Face) -> None:
    made = (await face.http.post("/v1/workflows", json=BODY | {"status": "draft"})).json()["data"]
    path = f"/v1/workflows/{made['id']}"
    assert made["status"] == "draft"
    answer = await face.http.post(f"{path}/execute")
    assert (problem(answer), answer.json()["error"]["details"]) == ((409, "CONFLICT"), {"status": "draft"})
    assert (await face.http.post(f"{path}/activate")).json()["data"]["status"] == "active"
    assert (await face.http.post(f"{path}/execute")).status_code == 200
    assert (await face.http.post(f"{path}/deactivate")).json()["data"]["status"] == "inactive"
    assert problem(await face.http.post(f"{path}/execute")) == (409, "CONFLICT")


async def test_a_copy_is_a_draft(face: Face) -> None:
    made = (await face.http.post("/v1/workflows", json=BODY)).json()["data"]
    copy = (await face.http.post(f"/v1/workflows/{made['id']}/duplicate")).json()["data"]
    named = (await face.http.post(f"/v1/workflows/{made['id']}/duplicate", json={"name": "Mine"})).json()["data"]
    assert (copy["name"], copy["status"], named["name"]) == ("Email Auto-Responder (copy)", "draft", "Mine")
    assert copy["definition"] == BODY["definition"]
    listed = (await face.http.get("/v1/workflows")).json()["data"]
    assert [one["id"] for one in listed] == [named["id"], copy["id"], made["id"]]
    drafts = (await face.http.get("/v1/workflows?status=draft&limit=1")).json()
    assert [one["id"] for one in drafts["data"]] == [named["id"]]
    after = drafts["pagination"]["nextCursor"]
    rest = (await face.http.get(f"/v1/workflows?status=draft&limit=1&after={after}")).json()
    assert ([one["id"] for one in rest["data"]], rest["pagination"]["hasMore"]) == ([copy["id"]], False)


async def test_all_that_is_wrong_is_told_at_once(face: Face) -> None:
    wrong = BODY | {"definition": {"nodes": [{"id": "a", "type": "nope"}], "connections": [{"from": "a", "to": "z"}]}}
    verdict = (await face.http.post("/v1/workflows/validate", json=wrong)).json()["data"]
    assert verdict["valid"] is False
    assert {one["type"] for one in verdict["errors"]} == {"UNKNOWN_TYPE", "UNKNOWN_REFERENCE"}
    assert {one["field"] for one in verdict["errors"]} == {"definition.nodes.0.type", "definition.connections.0.to"}
    refused = await face.http.post("/v1/workflows", json=wrong)
    assert problem(refused) == (400, "VALIDATION_ERROR")
    assert len(refused.json()["error"]["details"]["errors"]) == 2
    fine = (await face.http.post("/v1/workflows/validate", json=BODY)).json()["data"]
    assert (fine["valid"], fine["errors"]) == (True, [])


@pytest.mark.parametrize("body", [{}, {"name": ""}, BODY | {"status": "archived"}, BODY | {"settings": {"timeOut": 1}}])
async def test_bodies_that_are_refused(face: Face, body: dict[str, Any]) -> None:
    assert problem(await face.http.post("/v1/workflows", json=body)) == (400, "VALIDATION_ERROR")


async def test_nobody_sees_or_changes_anothers(face: Face, stranger: httpx.AsyncClient) -> None:
    made = (await face.http.post("/v1/workflows", json=BODY)).json()["data"]
    path = f"/v1/workflows/{made['id']}"
    for method, rest in (
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/activate"),
        ("POST", "/deactivate"),
        ("POST", "/duplicate"),
    ):
        body = {} if method == "PUT" else None
        assert problem(await stranger.request(method, path + rest, json=body)) == (404, "NOT_FOUND")
    reader = await new_tenant(face.server.platform, ["workflows:read"], of=face.tenant.id)
    async with client(face.server, reader) as reading:
        assert (await reading.get(path)).status_code == 200
        for method, rest in (("PUT", ""), ("DELETE", ""), ("POST", "/activate"), ("POST", "/duplicate")):
            body = {} if method == "PUT" else None
            assert problem(await reading.request(method, path + rest, json=body)) == (403, "FORBIDDEN")


async def test_people_log_in(face: Face) -> None:
    users = face.server.platform.tenants.users
    email = f"ada-{face.tenant.hex[:8]}@example.com"
    await users.create(operator(face.tenant.id), email, email=email, role="operator", password="correct horse battery")
    async with client(face.server, None) as nobody:
        good = {"email": email, "password": "correct horse battery"}
        told = (await nobody.post("/v1/auth/login", json=good)).json()["data"]
        assert (told["user"]["email"], told["tokens"]["expiresIn"]) == (email, 900)
        bearer = {"authorization": f"Bearer {told['tokens']['accessToken']}"}
        assert (await nobody.get("/v1/executions", headers=bearer)).status_code == 200
        assert problem(await nobody.post("/v1/workflows", json=BODY, headers=bearer)) == (403, "FORBIDDEN")
        again = await nobody.post("/v1/auth/refresh", json={"refreshToken": told["tokens"]["refreshToken"]})
        assert again.status_code == 200
        assert problem(await nobody.post("/v1/auth/login", json=good | {"password": "wrong"})) == (401, "UNAUTHORIZED")
        assert problem(await nobody.post("/v1/auth/login", json={"email": email})) == (400, "VALIDATION_ERROR")
