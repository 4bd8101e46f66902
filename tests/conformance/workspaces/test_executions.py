"""Executions of the workspaces face: its acceptance checks, and every route, shape and error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tests.conformance.conftest import PATIENCE, Face, client
from tests.conformance.workspaces.support import (
    FAILING,
    FIVE,
    HERE,
    THREE,
    WAITS,
    at_event,
    look,
    make,
    problem,
    run,
    start,
)
from tests.support.api import new_tenant

# --- acceptance checks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_both_verbs_cancel(face: Face, method: str) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    path = f"{HERE}/workflows/executions/{id}"
    first = await face.http.request(method, path)
    assert first.status_code == 200
    body = first.json()
    assert (body["success"], body["message"]) == (True, "Execution cancelled successfully")
    assert (body["execution"]["status"], body["execution"]["error"]) == ("CANCELLED", "Cancelled by user")
    assert body["execution"]["completedAt"] is not None
    steps = [(one["actionId"], one["status"], one["error"]) for one in body["execution"]["steps"]]
    assert steps == [
        ("action-0", "success", None),
        ("action-1", "skipped", "Execution cancelled"),
        ("action-2", "skipped", "Execution cancelled"),
    ]
    again = await face.http.request("POST" if method == "DELETE" else "DELETE", path)
    assert (again.status_code, again.json()) == (200, body)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_the_audit_names_the_verb_that_cancelled(face: Face, method: str) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    await face.http.request(method, f"{HERE}/workflows/executions/{id}")
    accounts = face.server.platform.tenants.accounts
    async with asyncio.timeout(PATIENCE):
        while not (found := [line for line in await accounts.audit_lines(face.tenant.id) if "cancel" in line.action]):
            await asyncio.sleep(0.02)
    [line] = found
    assert line.action == "instance.cancel"
    assert method in str(line.detail)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_what_is_finished_cannot_be_cancelled(face: Face, method: str) -> None:
    for actions, status in ((THREE, "COMPLETED"), (FIVE, "FAILED")):
        id = (await run(face, actions))["execution"]["id"]
        answer = await face.http.request(method, f"{HERE}/workflows/executions/{id}")
        assert problem(answer) == (400, "WORKFLOW_EXECUTION_FAILED")
        assert answer.json()["message"] == f"Cannot cancel execution with status: {status}"


async def test_a_failure_that_is_passed_over(face: Face) -> None:
    told = await run(face, [*THREE[:2], {**FAILING, "onError": "continue"}, *THREE[:2]])
    assert (told["execution"]["status"], told["execution"]["error"]) == ("COMPLETED", None)
    assert [one["status"] for one in told["execution"]["steps"]] == ["success"] * 2 + ["failed"] + ["success"] * 2
    assert told["progress"] == {
        "totalSteps": 5,
        "completedSteps": 5,
        "successfulSteps": 4,
        "failedSteps": 1,
        "runningSteps": 0,
        "skippedSteps": 0,
        "percentage": 100,
    }


async def test_a_failure_stops_what_follows(face: Face) -> None:
    told = await run(face, FIVE)
    assert (told["execution"]["status"], told["execution"]["error"]) == ("FAILED", "no luck")
    assert [one["status"] for one in told["execution"]["steps"]] == ["success"] * 2 + ["failed"] + ["skipped"] * 2
    assert [one["startedAt"] for one in told["execution"]["steps"][3:]] == [None, None]
    assert (told["progress"]["skippedSteps"], told["progress"]["percentage"]) == (2, 100)


async def test_a_condition_that_is_false_skips_the_rest(face: Face) -> None:
    gate = {"type": "condition", "config": {"field": "trigger.kind", "operator": "equals", "value": "premium"}}
    told = await run(face, [gate, *THREE[:2]], triggerData={"kind": "plain"})
    assert told["execution"]["status"] == "COMPLETED"
    assert [one["status"] for one in told["execution"]["steps"]] == ["success", "skipped", "skipped"]
    assert told["execution"]["steps"][0]["output"]["conditionMet"] is False
    assert (told["progress"]["skippedSteps"], told["progress"]["percentage"]) == (2, 100)
    told = await run(face, [gate, *THREE[:2]], triggerData={"kind": "premium"})
    assert [one["status"] for one in told["execution"]["steps"]] == ["success"] * 3


async def test_a_workspace_of_another_account_is_not_found(face: Face) -> None:
    other = await new_tenant(face.server.platform)
    await face.server.platform.tenants.workspaces.create(operator(other.id), f"s-{other.hex[:12]}")
    answer = await face.http.get(f"/api/workspaces/s-{other.hex[:12]}/workflows")
    assert problem(answer) == (404, "WORKSPACE_NOT_FOUND")
    assert answer.json()["message"] == "Workspace not found or access denied"


# --- starting ----------------------------------------------------------------------------------------------------


async def test_the_answer_comes_before_the_end(face: Face) -> None:
    workflow = await make(face, WAITS)
    execution = await start(face, workflow, triggerData={"userId": "user_123"})
    assert (execution["status"], execution["workflowId"]) == ("RUNNING", workflow)
    assert (execution["triggerData"], execution["triggerType"]) == ({"userId": "user_123"}, "manual")
    assert (execution["completedAt"], execution["durationMs"], execution["isSimulation"]) == (None, None, False)


async def test_waiting_for_the_end(face: Face) -> None:
    execution = await start(face, await make(face, THREE), 60)
    assert execution["status"] == "COMPLETED"
    assert [one["actionId"] for one in execution["steps"]] == ["action-0", "action-1", "action-2"]
    assert [one["output"] for one in execution["steps"]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {one["attempts"] for one in execution["steps"]} == {1}


async def test_a_call_without_a_body(face: Face) -> None:
    workflow = await make(face, THREE)
    answer = await face.http.post(f"{HERE}/workflows/{workflow}/execute")
    assert answer.json()["execution"]["triggerData"] == {}


async def test_variables_of_one_execution(face: Face) -> None:
    actions = [{"type": "set", "config": {"values": {"to": "{{ vars.to }}"}}}]
    workflow = await make(face, actions, variables={"to": "a"})
    assert (await start(face, workflow, 60))["steps"][0]["output"] == {"to": "a"}
    assert (await start(face, workflow, 60, variables={"to": "b"}))["steps"][0]["output"] == {"to": "b"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"triggerData": []}, "triggerData"),
        ({"triggerData": "x"}, "triggerData"),
        ({"triggerData": None}, "triggerData"),
        ({"variables": 1}, "variables"),
        ({"dryRun": "yes"}, "dryRun"),
    ],
)
async def test_bodies_that_are_refused(face: Face, body: Any, field: str) -> None:
    answer = await face.http.post(f"{HERE}/workflows/{await make(face, THREE)}/execute", json=body)
    assert problem(answer) == (400, "VALIDATION_ERROR")
    assert list(answer.json()["errors"]) == [field]


async def test_bodies_that_are_no_json(face: Face) -> None:
    path = f"{HERE}/workflows/{await make(face, THREE)}/execute"
    form = await face.http.post(path, data={"a": "1"})
    assert problem(form) == (415, "UNSUPPORTED_MEDIA_TYPE")
    broken = await face.http.post(path, content=b"{", headers={"content-type": "application/json"})
    assert problem(broken) == (400, "VALIDATION_ERROR")
    large = await face.http.post(path, content=b'{"triggerData": {"a": "' + b"x" * (2 << 20) + b'"}}')
    assert problem(large) == (413, "PAYLOAD_TOO_LARGE")


async def test_only_active_workflows_start(face: Face) -> None:
    workflow = await make(face, THREE, status="DRAFT")
    path = f"{HERE}/workflows/{workflow}/execute"
    assert problem(await face.http.post(path, json={"triggerData": []})) == (400, "WORKFLOW_INACTIVE")
    await face.http.patch(f"{HERE}/workflows/{workflow}", json={"status": "ACTIVE"})
    assert (await face.http.post(path)).status_code == 200


async def test_an_idempotency_key_starts_once(face: Face) -> None:
    workflow = await make(face, THREE)

    async def post(body: Any) -> httpx.Response:
        path = f"{HERE}/workflows/{workflow}/execute"
        return await face.http.post(path, json=body, headers={"idempotency-key": "k"})

    first, second = await post({"triggerData": {"a": 1}}), await post({"triggerData": {"a": 1}})
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert problem(await post({"triggerData": {"a": 2}})) == (409, "VALIDATION_ERROR")


@pytest.mark.parametrize("dry", [False, True])
async def test_a_wait_tells_how_long_it_was_to_be(face: Face, dry: bool) -> None:
    """Not how late its worker came; and so it does to actions that come after it, and where nothing is waited for."""
    actions = [
        {"type": "wait", "config": {"durationMs": 30}},
        {"type": "set", "config": {"values": {"seen": "{{ previous }}"}}},
    ]
    told = await run(face, actions, dryRun=dry)
    slept, seen = (step["output"] for step in told["execution"]["steps"])
    assert slept == seen["seen"] == {"waited": True, "durationMs": 30}


async def test_a_dry_run_has_no_effects_and_is_not_counted(face: Face) -> None:
    actions = [
        {"type": "send_notification", "config": {"message": "Hello"}},
        {"type": "create_task", "config": {"title": "Do"}},
        {"type": "wait", "config": {"durationMs": 86_400_000}},
    ]
    workflow = await make(face, actions)
    execution = await start(face, workflow, 60, dryRun=True)
    assert (execution["status"], execution["isSimulation"]) == ("COMPLETED", True)
    assert execution["steps"][0]["output"]["message"] == "Hello"
    assert (await face.http.get(f"{HERE}/notifications")).json()["notifications"] == []
    assert (await face.http.get(f"{HERE}/tasks")).json()["tasks"] == []
    listed = (await face.http.get(f"{HERE}/workflows/{workflow}/executions")).json()
    assert [one["isSimulation"] for one in listed["executions"]] == [True]
    assert listed["statistics"]["total"] == 0


# --- looking -----------------------------------------------------------------------------------------------------


async def test_an_execution_in_full(face: Face) -> None:
    workflow = await make(face, WAITS, description="Waits", trigger={"type": "manual"})
    id = (await start(face, workflow))["id"]
    await at_event(face, id)
    told = await look(face, id)
    about = told["execution"]["workflow"]
    assert (about["id"], about["name"], about["description"]) == (workflow, "Flow", "Waits")
    assert (about["status"], about["trigger"]) == ("ACTIVE", {"type": "manual"})
    assert [one["status"] for one in told["execution"]["steps"]] == ["success", "running"]
    assert (told["progress"]["completedSteps"], told["progress"]["runningSteps"]) == (1, 1)
    assert told["progress"]["percentage"] == 33
    assert (told["timing"]["isRunning"], told["timing"]["completedAt"]) == (True, None)
    assert told["timing"]["durationMs"] >= 0


async def test_an_execution_outlives_its_workflow(face: Face) -> None:
    workflow = await make(face, THREE)
    id = (await start(face, workflow, 60))["id"]
    assert (await face.http.delete(f"{HERE}/workflows/{workflow}")).status_code == 200
    assert (await look(face, id))["execution"]["workflow"]["status"] == "ARCHIVED"


async def test_a_paused_execution_says_so(face: Face) -> None:
    workflow = await make(face, WAITS)
    execution = await start(face, workflow)
    await at_event(face, execution["id"])
    [handle] = [one["name"] for one in (await face.cloud.get("/workflows")).json()["result"]]
    [instance] = (await face.cloud.get(f"/workflows/{handle}/instances")).json()["result"]
    path = f"/workflows/{handle}/instances/{instance['id']}/status"
    assert (await face.cloud.patch(path, json={"status": "pause"})).status_code == 200
    told = (await look(face, execution["id"]))["execution"]
    assert (told["status"], told["paused"]) == ("RUNNING", True)


async def test_the_newest_execution(face: Face) -> None:
    workflow = await make(face, THREE)
    path = f"{HERE}/workflows/{workflow}/execute"
    assert (await face.http.get(path)).json() == {
        "execution": None,
        "message": "No executions found for this workflow",
    }
    await start(face, workflow, 60)
    newest = await start(face, workflow, 60)
    told = (await face.http.get(path)).json()
    assert told["execution"] == newest
    assert told["progress"]["percentage"] == 100


async def test_scripts_are_shown_as_they_run(face: Face) -> None:
    files = [
        ("metadata", (None, json.dumps({"main_module": "index.mjs"}), "application/json")),
        ("index.mjs", ("index.mjs", SCRIPT, "application/javascript+module")),
    ]
    assert (await face.cloud.put("/workers/scripts/mine", files=files)).status_code == 200
    deployed = await face.cloud.put("/workflows/script", json={"class_name": "W", "script_name": "mine"})
    assert deployed.status_code == 200, deployed.text
    execution = await start(face, "script", 60, triggerData={"n": 1})
    assert (execution["status"], execution["steps"][0]["output"]) == ("COMPLETED", 2)
    told = await look(face, execution["id"])
    assert (told["progress"]["totalSteps"], told["execution"]["workflow"]["trigger"]) == (1, None)
    dry = await face.http.post(f"{HERE}/workflows/script/execute", json={"dryRun": True})
    assert (problem(dry), list(dry.json()["errors"])) == ((400, "VALIDATION_ERROR"), ["dryRun"])


SCRIPT = """
import { WorkflowEntrypoint } from 'cloudflare:workers';
export class W extends WorkflowEntrypoint {
  async run(event, step) { return await step.do('one', async () => event.payload.n + 1); }
}
"""


# --- lists -------------------------------------------------------------------------------------------------------


async def test_a_list_with_statistics(face: Face) -> None:
    actions = [{"type": "condition", "config": {"field": "trigger.ok", "operator": "exists", "onFalse": "fail"}}]
    workflow = await make(face, [*actions, {"type": "noop"}])
    good = [(await start(face, workflow, 60, triggerData={"ok": n}))["id"] for n in range(3)]
    bad = (await start(face, workflow, 60))["id"]
    path = f"{HERE}/workflows/{workflow}/executions"
    told = (await face.http.get(path)).json()
    assert [one["id"] for one in told["executions"]] == [bad, *reversed(good)]
    assert told["executions"][0]["workflow"] == {"id": workflow, "name": "Flow"}
    assert "steps" not in told["executions"][0]
    assert told["pagination"] == {"total": 4, "offset": 0, "limit": 20, "hasMore": False}
    counts = {"PENDING": 0, "RUNNING": 0, "COMPLETED": 3, "FAILED": 1, "CANCELLED": 0}
    numbers = told["statistics"]
    assert (numbers["total"], numbers["byStatus"], numbers["successRate"]) == (4, counts, 75.0)
    failed = (await face.http.get(path, params={"status": "FAILED"})).json()
    assert [one["id"] for one in failed["executions"]] == [bad]
    assert failed["statistics"] == numbers
    page = (await face.http.get(path, params={"limit": 2, "page": 2})).json()
    assert [one["id"] for one in page["executions"]] == [good[1], good[0]]
    assert page["pagination"] == {"total": 4, "offset": 2, "limit": 2, "hasMore": False}
    skipped = (await face.http.get(path, params={"limit": 1, "offset": 1, "page": 9})).json()
    assert ([one["id"] for one in skipped["executions"]], skipped["pagination"]["hasMore"]) == ([good[2]], True)
    rising = (await face.http.get(path, params={"sortOrder": "asc"})).json()["executions"]
    assert [one["id"] for one in rising] == [*good, bad]
    for by in ("completedAt", "status"):
        sorted_ = (await face.http.get(path, params={"sortBy": by})).json()["executions"]
        assert sorted_[0]["id"] == bad
    between = {"from": told["executions"][2]["startedAt"], "to": told["executions"][1]["startedAt"]}
    some = (await face.http.get(path, params=between)).json()
    assert [one["id"] for one in some["executions"]] == [good[1]]
    assert some["statistics"]["total"] == 1
    history = (await face.http.get(f"{HERE}/workflows/{workflow}/history")).json()
    assert history == {"executions": told["executions"], "pagination": told["pagination"]}
    one = (await face.http.get(f"{HERE}/workflows/{workflow}/history", params={"executionId": bad})).json()
    assert one["execution"]["executionSummary"] == {
        "totalSteps": 2,
        "successfulSteps": 0,
        "failedSteps": 1,
        "skippedSteps": 1,
    }
    assert [step["status"] for step in one["execution"]["steps"]] == ["failed", "skipped"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=DONE", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("offset=-1", "offset"),
        ("page=0", "page"),
        ("sortBy=name", "sortBy"),
        ("sortOrder=up", "sortOrder"),
        ("from=yesterday", "from"),
        ("from=2026-01-02&to=2026-01-01", "from"),
        ("limit=1&limit=2", "limit"),
        ("status=%00", "status"),
    ],
)
async def test_queries_that_are_refused(face: Face, query: str, field: str) -> None:
    workflow = await make(face, THREE)
    for route in ("executions", "history"):
        answer = await face.http.get(f"{HERE}/workflows/{workflow}/{route}?{query}")
        assert problem(answer) == (400, "VALIDATION_ERROR")
        assert list(answer.json()["errors"]) == [field]


async def test_the_history_of_another_workflow(face: Face) -> None:
    one, two = await make(face, THREE), await make(face, THREE, "Other")
    id = (await start(face, one, 60))["id"]
    answer = await face.http.get(f"{HERE}/workflows/{two}/history", params={"executionId": id})
    assert problem(answer) == (404, "WORKFLOW_EXECUTION_NOT_FOUND")


# --- who may what ------------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/workflows"),
    ("POST", "/workflows"),
    ("GET", "/workflows/{workflow}"),
    ("PATCH", "/workflows/{workflow}"),
    ("DELETE", "/workflows/{workflow}"),
    ("POST", "/workflows/{workflow}/execute"),
    ("GET", "/workflows/{workflow}/execute"),
    ("GET", "/workflows/{workflow}/executions"),
    ("GET", "/workflows/{workflow}/history"),
    ("GET", "/workflows/executions/{execution}"),
    ("POST", "/workflows/executions/{execution}"),
    ("DELETE", "/workflows/executions/{execution}"),
    ("GET", "/workflows/executions/{execution}/stream"),
    ("GET", "/notifications"),
    ("PATCH", "/notifications/{notification}"),
    ("GET", "/tasks"),
    ("PATCH", "/tasks/{task}"),
]


async def objects(face: Face) -> dict[str, str]:
    """Ids of one of each."""
    actions = [
        {"type": "send_notification", "config": {"message": "Hello"}},
        {"type": "create_task", "config": {"title": "Do"}},
    ]
    workflow = await make(face, actions)
    execution = (await start(face, workflow, 60))["id"]
    [notification] = (await face.http.get(f"{HERE}/notifications")).json()["notifications"]
    [task] = (await face.http.get(f"{HERE}/tasks")).json()["tasks"]
    return {"workflow": workflow, "execution": execution, "notification": notification["id"], "task": task["id"]}


async def test_objects_of_another_account_are_not_found(face: Face, stranger: httpx.AsyncClient) -> None:
    ids = await objects(face)
    [workspace] = await face.server.platform.tenants.workspaces.all(face.tenant.id)
    for method, path in ROUTES:
        body = {"status": "DONE"} if "/tasks/" in path else {}
        if "{" in path:
            answer = await stranger.request(method, HERE + path.format(**ids), json=body)
            assert (answer.status_code, path) == (404, path)
        elsewhere = await stranger.request(method, f"/api/workspaces/{workspace.id}{path.format(**ids)}", json=body)
        assert problem(elsewhere) == (404, "WORKSPACE_NOT_FOUND")


async def test_nothing_without_a_credential(face: Face) -> None:
    ids = await objects(face)
    async with client(face.server, None) as nobody:
        for method, path in ROUTES:
            answer = await nobody.request(method, HERE + path.format(**ids))
            assert (problem(answer), answer.json()["message"]) == ((401, "UNAUTHORIZED"), "Authentication required")


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["executions:read", "workflows:read"], {"GET"}),
        (["webhooks:write"], set()),
    ],
)
async def test_scopes_that_are_missing(face: Face, scopes: list[str], allowed: set[str]) -> None:
    ids = await objects(face)
    async with client(face.server, await new_tenant(face.server.platform, scopes, of=face.tenant.id)) as weak:
        for method, path in ROUTES:
            answer = await weak.request(method, HERE + path.format(**ids))
            assert (answer.status_code == 403) == (method not in allowed), (method, path)
            if answer.status_code == 403:
                assert answer.json()["error"] == "FORBIDDEN"


async def test_methods_and_paths_there_are_not(face: Face) -> None:
    async with httpx.AsyncClient(base_url=face.server.base_url, headers=face.tenant.headers) as http:
        answer = await http.put(f"{HERE}/workflows/x/execute")
        assert problem(answer) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        for path in (f"{HERE}/nothing", "/api/workspaces", f"{HERE}/workflows/x/y"):
            assert problem(await http.get(path)) == (404, "NOT_FOUND")
