"""Workflows, notifications and tasks of a workspace, and who may do what in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.errors import Problem
from app.faces.workspaces.errors import refuse
from tenants.auth import operator
from tests.conformance.conftest import Face, client
from tests.conformance.workspaces.support import HERE, THREE, WAITS, make, problem, run, start
from tests.support.api import new_tenant
from versions.errors import DocumentInvalid

BODY: dict[str, Any] = {
    "name": "Welcome",
    "description": "Greets",
    "trigger": {"type": "manual"},
    "actions": [
        {"type": "send_notification", "config": {"message": "Welcome!", "recipient": "user_123"}},
        {"id": "ask", "type": "create_task", "config": {"title": "Call", "priority": "HIGH"}, "onError": "retry"},
    ],
    "variables": {"a": 1},
    "tags": ["x"],
    "metadata": {"team": "one"},
}


# --- workflows ---------------------------------------------------------------------------------------------------


async def test_a_workflow_is_made_changed_and_retired(face: Face) -> None:
    made = (await face.http.post(f"{HERE}/workflows", json=BODY)).json()["workflow"]
    assert made["status"] == "ACTIVE"
    assert {key: made[key] for key in ("name", "description", "trigger", "variables", "tags", "metadata")} == {
        key: value for key, value in BODY.items() if key != "actions"
    }
    assert [(one["id"], one["onError"], one["timeout"]) for one in made["actions"]] == [
        ("action-0", "stop", 30_000),
        ("ask", "retry", 30_000),
    ]
    path = f"{HERE}/workflows/{made['id']}"
    changed = await face.http.patch(path, json={"actions": THREE, "status": "INACTIVE", "tags": []})
    told = changed.json()["workflow"]
    assert (told["version"], told["status"], told["tags"], told["metadata"]) == (2, "INACTIVE", [], {"team": "one"})
    assert [one["type"] for one in told["actions"]] == ["set"] * 3
    shown = (await face.http.get(path)).json()["workflow"]
    assert shown == {**told, "executionCount": 0, "lastExecutionAt": None}
    gone = await face.http.delete(path)
    assert gone.json() == {"success": True, "workflow": {**told, "status": "ARCHIVED"}}
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/execute"), ("GET", "/executions")):
        assert problem(await face.http.request(method, path + rest, json={})) == (404, "WORKFLOW_NOT_FOUND")


async def test_workflows_are_listed_by_pages(face: Face) -> None:
    ids = [await make(face, THREE, name) for name in ("One", "Two", "Three")]
    await face.http.patch(f"{HERE}/workflows/{ids[0]}", json={"status": "ARCHIVED"})
    told = (await face.http.get(f"{HERE}/workflows", params={"limit": 2})).json()
    assert [one["id"] for one in told["workflows"]] == [ids[2], ids[1]]
    assert told["pagination"] == {"total": 3, "offset": 0, "limit": 2, "hasMore": True}
    archived = (await face.http.get(f"{HERE}/workflows?status=ARCHIVED")).json()["workflows"]
    assert [one["name"] for one in archived] == ["One"]
    found = (await face.http.get(f"{HERE}/workflows?search=t")).json()["workflows"]
    assert [one["name"] for one in found] == ["Three", "Two"]
    assert problem(await face.http.get(f"{HERE}/workflows?status=active")) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"actions": [{"type": "nonsense"}]}, "WORKFLOW_VALIDATION_FAILED", "actions.0.type"),
        ({"actions": [{"config": {}}]}, "WORKFLOW_VALIDATION_FAILED", "actions.0.type"),
        ({"actions": [{"type": "noop", "onErr": "stop"}]}, "WORKFLOW_VALIDATION_FAILED", "actions.0.onErr"),
        ({"actions": [{"type": "noop", "timeout": 0}]}, "WORKFLOW_VALIDATION_FAILED", "actions.0.timeout"),
        ({"status": "active"}, "VALIDATION_ERROR", "status"),
        ({"tags": "x"}, "VALIDATION_ERROR", "tags"),
        ({"metadata": []}, "VALIDATION_ERROR", "metadata"),
    ],
)
async def test_definitions_that_are_refused(face: Face, change: dict[str, Any], code: str, field: str) -> None:
    made = (await face.http.post(f"{HERE}/workflows", json=BODY)).json()["workflow"]
    for answer in (
        await face.http.post(f"{HERE}/workflows", json=BODY | change),
        await face.http.patch(f"{HERE}/workflows/{made['id']}", json=change),
    ):
        assert problem(answer) == (400, code)
        assert field in answer.json()["errors"]
        if field == "status":
            assert answer.json()["message"] == "status must be one of ACTIVE, INACTIVE, DRAFT, ARCHIVED"


async def test_a_circle_has_a_code_of_its_own(face: Face) -> None:
    """Actions cannot make one; it is what the compiler says of a form that can."""
    problems = [Problem("dependency cycle: a → b → a", "/actions/0", kind="CYCLE")]
    answer = refuse(DocumentInvalid(problems), {}, datetime(2026, 1, 1, tzinfo=UTC))
    assert answer.status == 400
    assert b'"WORKFLOW_CIRCULAR_DEPENDENCY"' in answer.body


async def test_another_form_is_not_changed_in_parts(face: Face) -> None:
    await face.deploy("doc", [{"id": "a"}])
    shown = (await face.http.get(f"{HERE}/workflows/doc")).json()["workflow"]
    assert [one["id"] for one in shown["actions"]] == ["a"]
    answer = await face.http.patch(f"{HERE}/workflows/doc", json={"variables": {"a": 1}})
    assert problem(answer) == (409, "CONFLICT")


# --- notifications and tasks -------------------------------------------------------------------------------------


async def test_notifications_are_read(face: Face) -> None:
    execution = (await run(face, BODY["actions"]))["execution"]
    told = (await face.http.get(f"{HERE}/notifications")).json()
    [found] = told["notifications"]
    assert told["pagination"] == {"total": 1, "offset": 0, "limit": 20, "hasMore": False}
    assert (found["executionId"], found["actionId"]) == (execution["id"], "action-0")
    assert (found["message"], found["recipient"], found["read"]) == ("Welcome!", "user_123", False)
    path = f"{HERE}/notifications/{found['id']}"
    read = (await face.http.patch(path)).json()["notification"]
    assert (read["read"], read["readAt"] is None) == (True, False)
    for query, number in (("unread=true", 0), ("unread=false", 1), ("recipient=user_123", 1), ("recipient=x", 0)):
        answer = await face.http.get(f"{HERE}/notifications?{query}")
        assert len(answer.json()["notifications"]) == number
    unread = (await face.http.patch(path, json={"read": False})).json()["notification"]
    assert (unread["read"], unread["readAt"]) == (False, None)
    assert problem(await face.http.patch(path, json={"read": 1})) == (400, "VALIDATION_ERROR")
    assert problem(await face.http.patch(f"{HERE}/notifications/x")) == (404, "NOTIFICATION_NOT_FOUND")
    assert problem(await face.http.get(f"{HERE}/notifications?unread=1")) == (400, "VALIDATION_ERROR")


async def test_tasks_are_done(face: Face) -> None:
    await run(face, BODY["actions"])
    [found] = (await face.http.get(f"{HERE}/tasks?status=TODO")).json()["tasks"]
    assert (found["title"], found["priority"], found["status"], found["actionId"]) == ("Call", "HIGH", "TODO", "ask")
    path = f"{HERE}/tasks/{found['id']}"
    done = (await face.http.patch(path, json={"status": "DONE"})).json()["task"]
    assert (done["status"], done["completedAt"] is None) == ("DONE", False)
    assert (await face.http.get(f"{HERE}/tasks?status=TODO")).json()["tasks"] == []
    by = found["assignedTo"]
    assert len((await face.http.get(f"{HERE}/tasks", params={"assignedTo": by or ""})).json()["tasks"]) == bool(by)
    refused = await face.http.patch(path, json={"status": "LATER"})
    assert (problem(refused), list(refused.json()["errors"])) == ((400, "VALIDATION_ERROR"), ["status"])
    assert problem(await face.http.patch(path, json={})) == (400, "VALIDATION_ERROR")
    assert problem(await face.http.patch(f"{HERE}/tasks/x", json={"status": "DONE"})) == (404, "TASK_NOT_FOUND")
    assert problem(await face.http.get(f"{HERE}/tasks?status=x")) == (400, "VALIDATION_ERROR")


# --- members -----------------------------------------------------------------------------------------------------


async def person(face: Face, role: str = "operator") -> tuple[httpx.AsyncClient, Any]:
    """Somebody who logged in with a browser, and the user; the caller closes the client."""
    tenants = face.server.platform.tenants
    by, name = operator(face.tenant.id), f"u-{face.tenant.hex}"
    user = await tenants.users.create(by, name, role=role, password="correct horse battery")
    login = await tenants.logins.log_in(name, "correct horse battery", account=face.tenant.hex)
    cookie, _ = await tenants.sessions.create(login.caller)
    return client(face.server, None), (user, cookie)


async def test_members_start_and_cancel_others_of_the_account_read(face: Face) -> None:
    tenants = face.server.platform.tenants
    [workspace] = await tenants.workspaces.all(face.tenant.id)
    id = await make(face, WAITS)
    execution = (await start(face, id))["id"]
    http, (user, cookie) = await person(face)
    async with http:
        http.headers["cookie"] = f"connect.sid={cookie}"
        http.headers["origin"] = face.server.base_url
        reads = ("/workflows", f"/workflows/{id}/executions", f"/workflows/executions/{execution}", "/tasks")
        writes = (
            ("POST", f"/workflows/{id}/execute"),
            ("POST", f"/workflows/executions/{execution}"),
            ("DELETE", f"/workflows/executions/{execution}"),
        )
        for path in reads:
            assert (await http.get(HERE + path)).status_code == 200
        for method, path in writes:
            answer = await http.request(method, HERE + path)
            assert (problem(answer), answer.json()["message"]) == (
                (403, "FORBIDDEN"),
                "You are not a member of this workspace",
            )
        await tenants.workspaces.add_member(operator(face.tenant.id), workspace, user.id)
        for method, path in writes:
            answer = await http.request(method, HERE + path)
            assert answer.status_code == 200, answer.text
        shown = (await http.get(f"{HERE}/workflows/{id}/execute")).json()["execution"]
        assert shown["triggeredBy"] == str(user.id)
        assert problem(await http.post(f"{HERE}/workflows", json=BODY)) == (403, "FORBIDDEN")
        await tenants.workspaces.add_member(operator(face.tenant.id), workspace, user.id, "admin")
        assert (await http.post(f"{HERE}/workflows", json=BODY)).status_code == 200
        del http.headers["origin"]
        assert problem(await http.post(f"{HERE}/workflows/executions/{execution}")) == (403, "FORBIDDEN")


async def test_the_slug_may_be_the_id(face: Face) -> None:
    [workspace] = await face.server.platform.tenants.workspaces.all(face.tenant.id)
    id = await make(face, THREE)
    for spelled in (str(workspace.id), workspace.id.hex, workspace.slug):
        answer = await face.http.get(f"/api/workspaces/{spelled}/workflows/{id}")
        assert answer.status_code == 200
    assert problem(await face.http.get("/api/workspaces/nobody/workflows")) == (404, "WORKSPACE_NOT_FOUND")


async def test_workflows_of_another_workspace_are_not_found(face: Face) -> None:
    other = await face.server.platform.tenants.workspaces.create(operator(face.tenant.id), f"w-{face.tenant.hex[:12]}")
    id = await make(face, WAITS)
    execution = (await start(face, id))["id"]
    there = f"/api/workspaces/{other.slug}"
    assert (await face.http.get(f"{there}/workflows")).json()["workflows"] == []
    for method, path, code in (
        ("GET", f"/workflows/{id}", "WORKFLOW_NOT_FOUND"),
        ("POST", f"/workflows/{id}/execute", "WORKFLOW_NOT_FOUND"),
        ("GET", f"/workflows/{id}/executions", "WORKFLOW_NOT_FOUND"),
        ("GET", f"/workflows/executions/{execution}", "WORKFLOW_EXECUTION_NOT_FOUND"),
        ("POST", f"/workflows/executions/{execution}", "WORKFLOW_EXECUTION_NOT_FOUND"),
        ("DELETE", f"/workflows/executions/{execution}", "WORKFLOW_EXECUTION_NOT_FOUND"),
    ):
        assert problem(await face.http.request(method, there + path)) == (404, code)


async def test_a_token_of_another_account_with_the_same_slug(face: Face) -> None:
    """Every account has a workspace `default`: the one of the caller is meant."""
    id = await make(face, THREE)
    async with client(face.server, await new_tenant(face.server.platform)) as other:
        assert problem(await other.get(f"{HERE}/workflows/{id}")) == (404, "WORKFLOW_NOT_FOUND")


async def test_checks_come_in_one_order(face: Face) -> None:
    """Credential, workspace, membership, workflow, execution, body: each hides what comes behind."""
    id = await make(face, THREE)
    bad = {"triggerData": []}
    http, (_, cookie) = await person(face)
    async with http:
        http.headers["origin"] = face.server.base_url
        assert problem(await http.post("/api/workspaces/nobody/workflows/x/execute", json=bad)) == (401, "UNAUTHORIZED")
        http.headers["cookie"] = f"connect.sid={cookie}"
        answer = await http.post("/api/workspaces/nobody/workflows/x/execute", json=bad)
        assert problem(answer) == (404, "WORKSPACE_NOT_FOUND")
        assert problem(await http.post(f"{HERE}/workflows/x/execute", json=bad)) == (403, "FORBIDDEN")
        assert problem(await http.delete(f"{HERE}/workflows/executions/x")) == (403, "FORBIDDEN")
    assert problem(await face.http.post(f"{HERE}/workflows/x/execute", json=bad)) == (404, "WORKFLOW_NOT_FOUND")
    answer = await face.http.get(f"{HERE}/workflows/x/history?executionId=x")
    assert problem(answer) == (404, "WORKFLOW_NOT_FOUND")
    answer = await face.http.get(f"{HERE}/workflows/{id}/history?executionId=x")
    assert problem(answer) == (404, "WORKFLOW_EXECUTION_NOT_FOUND")
    assert problem(await face.http.post(f"{HERE}/workflows/{id}/execute", json=bad)) == (400, "VALIDATION_ERROR")


async def test_a_login_of_another_face_is_good_here(face: Face) -> None:
    tenants, name = face.server.platform.tenants, f"u-{face.tenant.hex}"
    await tenants.users.create(operator(face.tenant.id), name, role="admin", password="correct horse battery")
    async with client(face.server, None) as http:
        credentials = {"username": name, "password": "correct horse battery", "account": face.tenant.hex}
        token = (await http.post("/api/auth/login", json=credentials)).json()["token"]
        http.headers["authorization"] = f"Bearer {token}"
        assert (await http.post(f"{HERE}/workflows", json=BODY)).status_code == 200


async def test_limits_are_shown_and_kept(face: Face) -> None:
    assert "ratelimit-limit" not in (await face.http.get(f"{HERE}/workflows")).headers
    await face.server.platform.tenants.accounts.set_limits(operator(face.tenant.id), changes={"requests_per_minute": 2})
    async with client(face.server, await new_tenant(face.server.platform, of=face.tenant.id)) as http:
        answers = [await http.get(f"{HERE}/workflows") for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"2"}
    assert all(0 < int(answer.headers["ratelimit-reset"]) <= 60 for answer in answers)
    assert problem(refused[0]) == (429, "RATE_LIMITED")
    assert refused[0].headers["retry-after"] == str(refused[0].json()["retryAfter"])
