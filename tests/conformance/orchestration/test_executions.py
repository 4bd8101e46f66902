"""Executions and tasks of the orchestration face: every route, by a plain HTTP client."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from jobs.figures.roll_up import MeasureNodes
from tests.conformance.conftest import Face

SETS = {"type": "set", "config": {"values": {"a": 1}}}
TWO = [{"name": "Task 1"}, {"name": "Task 2", "dependencies": ["task-1"]}]
OUTSIDE = [{"name": "First"}, {"name": "Second", "type": "external", "dependencies": ["task-1"]}, {"name": "Third", "dependencies": ["task-2"]}]  # fmt: skip  # noqa: E501


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def define(face: Face, tasks: list[dict[str, Any]], **more: Any) -> str:
    answer = await face.http.post("/api/workflows", json={"name": "flow", "tasks": tasks, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def start(face: Face, tasks: list[dict[str, Any]], context: Any = None, **more: Any) -> dict[str, Any]:
    body = {"workflowDefinitionId": await define(face, tasks, **more), "initialContext": context}
    answer = await face.http.post("/api/executions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def when(face: Face, id: str, *statuses: str) -> dict[str, Any]:
    """The execution once it has one of `statuses`."""
    return await face.when(lambda: face.http.get(f"/api/executions/{id}"), lambda body: body["status"] in statuses)


def tasks_of(execution: dict[str, Any], *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(task[key] for key in ("taskDefinitionId", "status", *keys)) for task in execution["taskExecutions"]]


async def test_the_example_of_the_reference(face: Face) -> None:
    definition = await define(face, TWO)
    body = {"workflowDefinitionId": definition, "initialContext": {"key": "value"}}
    answer = await face.http.post("/api/executions", json=body)
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/executions/{made['id']}")
    assert made["id"].isdigit()
    created = made["context"]["createdAt"]
    assert created <= made["startTime"]  # a worker may have begun already
    assert made == {
        "id": made["id"],
        "workflowDefinitionId": definition,
        "status": "RUNNING",
        "startTime": made["startTime"],
        "endTime": None,
        "taskExecutions": [],
        "context": {
            "id": made["id"],
            "data": '{"key":"value"}',
            "version": 1,
            "createdAt": created,
            "updatedAt": created,
        },
    }
    ended = await when(face, made["id"], "COMPLETED")
    assert ended["endTime"] >= ended["startTime"]
    assert tasks_of(ended, "attempts", "error") == [("task-1", "COMPLETED", 1, None), ("task-2", "COMPLETED", 1, None)]
    assert ended["context"]["data"] == '{"key":"value","task-1-result":"success","task-2-result":"success"}'
    assert ended["context"]["version"] == 3
    assert ended["context"]["updatedAt"] == ended["taskExecutions"][1]["endTime"]


async def test_the_context_is_a_text_that_tasks_add_to(face: Face) -> None:
    made = await start(face, [{"name": "A", **SETS}, {"name": "B", "type": "external"}], {"n": 1.50, "o": {"x": [1]}})
    told = await when(face, made["id"], "WAITING")
    assert (told["context"]["version"], json.loads(told["context"]["data"])) == (
        2,
        {"n": 1.5, "o": {"x": [1]}, "task-1-result": {"a": 1}},
    )
    assert (await face.http.post(f"/api/executions/{made['id']}/cancel")).json()["context"] == told["context"]


@pytest.mark.parametrize(
    ("given", "data"), [('{"key":"value"}', '{"key":"value"}'), (None, "{}"), ({}, "{}"), ('{"a":{}}', '{"a":{}}')]
)
async def test_contexts_may_be_objects_or_texts_of_objects(face: Face, given: Any, data: str) -> None:
    assert (await start(face, [], given))["context"]["data"] == data


@pytest.mark.parametrize("given", ["", "x", "[]", "1", [], 1, True, '"{}"', "[" * 100])
async def test_other_contexts_are_refused(face: Face, given: Any) -> None:
    id = await define(face, [])
    answer = await face.http.post("/api/executions", json={"workflowDefinitionId": id, "initialContext": given})
    assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_what_cannot_be_started(face: Face) -> None:
    answer = await face.http.post("/api/executions", json={"initialContext": {}})
    assert (problem(answer)[:2], answer.json()["errors"][0]["path"]) == ((400, "BAD_REQUEST"), "/workflowDefinitionId")
    answer = await face.http.post("/api/executions", json={"workflowDefinitionId": "999999999"})
    assert problem(answer) == (404, "NOT_FOUND", "Workflow definition not found")


async def test_a_start_is_repeated_under_its_key(face: Face) -> None:
    id = await define(face, TWO)
    headers, body = {"idempotency-key": "k"}, {"workflowDefinitionId": id}
    first = await face.http.post("/api/executions", json=body, headers=headers)
    again = await face.http.post("/api/v1/executions", json=body, headers=headers)
    assert again.json() == first.json()
    assert (again.headers["idempotent-replayed"], again.status_code) == ("true", 201)
    assert again.headers["location"] == f"/api/v1/executions/{first.json()['id']}"
    other = await face.http.post("/api/executions", json=body | {"initialContext": {"a": 1}}, headers=headers)
    assert problem(other)[:2] == (409, "IDEMPOTENCY_KEY_REUSED")
    assert len((await face.http.get("/api/executions")).json()) == 1


async def test_a_running_execution_keeps_its_version(face: Face) -> None:
    made = await start(face, OUTSIDE)
    path = f"/api/workflows/{made['workflowDefinitionId']}"
    assert (await face.http.put(path, json={"tasks": [{"name": "Only"}]})).json()["version"] == "1.0.1"
    told = await when(face, made["id"], "WAITING")
    assert [task["taskDefinitionId"] for task in told["taskExecutions"]] == ["task-1", "task-2", "task-3"]


async def test_cancelling(face: Face) -> None:
    made = await start(face, OUTSIDE)
    path = f"/api/executions/{made['id']}"
    before = await when(face, made["id"], "WAITING")
    assert tasks_of(before) == [("task-1", "COMPLETED"), ("task-2", "WAITING"), ("task-3", "PENDING")]
    told = (await face.http.post(f"{path}/cancel")).json()
    assert (told["status"], told["endTime"] is None) == ("CANCELLED", False)
    assert tasks_of(told) == [("task-1", "COMPLETED"), ("task-2", "CANCELLED"), ("task-3", "CANCELLED")]
    assert told["taskExecutions"][0] == before["taskExecutions"][0]
    assert [task["endTime"] for task in told["taskExecutions"][1:]] == [told["endTime"]] * 2
    assert told["taskExecutions"][2]["startTime"] is None
    assert told["context"] == before["context"]
    assert (await face.http.get(path)).json() == told
    answer = await face.http.post(f"{path}/cancel")
    assert problem(answer) == (409, "CONFLICT", "Cannot cancel execution with status CANCELLED")
    done = await start(face, TWO)
    await when(face, done["id"], "COMPLETED")
    answer = await face.http.post(f"/api/executions/{done['id']}/cancel")
    assert problem(answer) == (409, "CONFLICT", "Cannot cancel execution with status COMPLETED")


async def test_lists_of_executions(face: Face) -> None:
    waits = [await start(face, OUTSIDE) for _ in range(2)]
    done = await start(face, TWO)
    for one in waits:
        await when(face, one["id"], "WAITING")
    await when(face, done["id"], "COMPLETED")
    answer = await face.http.get("/api/executions", params={"limit": 2})
    assert [one["id"] for one in answer.json()] == [done["id"], waits[1]["id"]]
    assert answer.headers["x-total-count"] == "3"
    assert answer.json()[0] == (await face.http.get(f"/api/executions/{done['id']}")).json()

    async def ids(**query: Any) -> list[str]:
        return [one["id"] for one in (await face.http.get("/api/executions", params=query)).json()]

    assert await ids(status="WAITING") == [waits[1]["id"], waits[0]["id"]]
    assert await ids(status="FAILED") == []
    assert await ids(workflowDefinitionId=done["workflowDefinitionId"]) == [done["id"]]
    assert await ids(workflowDefinitionId="999999999") == []
    assert await ids(status="WAITING", offset=1) == [waits[0]["id"]]
    answer = await face.http.get("/api/executions", params={"status": "running"})
    assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_lists_of_tasks(face: Face) -> None:
    made = await start(face, OUTSIDE)
    told = await when(face, made["id"], "WAITING")
    path = f"/api/executions/{made['id']}/tasks"
    answer = await face.http.get(path)
    assert answer.json() == told["taskExecutions"]
    assert answer.headers["x-total-count"] == "3"
    page = await face.http.get(path, params={"limit": 1, "offset": 1})
    assert page.json() == told["taskExecutions"][1:2]
    assert f'<{path}?offset=2&limit=1>; rel="next"' in page.headers["link"]
    for status, expected in (("WAITING", 1), ("PENDING", 1), ("COMPLETED", 1), ("RUNNING", 0), ("CANCELLED", 0)):
        assert len((await face.http.get(path, params={"status": status})).json()) == expected, status
    assert problem(await face.http.get(path, params={"status": "DONE"}))[:2] == (400, "BAD_REQUEST")
    for task in told["taskExecutions"]:
        assert (await face.http.get(f"/api/tasks/{task['id']}")).json() == task


async def test_a_task_is_retried_in_place(face: Face) -> None:
    made = await start(face, OUTSIDE)
    id = made["id"]
    second = (await when(face, id, "WAITING"))["taskExecutions"][1]["id"]
    await face.http.post(f"/api/tasks/{second}/fail", json={"error": {"message": "no carrier"}})
    failed = await when(face, id, "FAILED")
    assert tasks_of(failed, "error", "attempts") == [
        ("task-1", "COMPLETED", None, 1),
        ("task-2", "FAILED", "no carrier", 1),
        ("task-3", "CANCELLED", None, 0),
    ]
    before = failed["taskExecutions"][1]
    again = (await face.http.post(f"/api/tasks/{second}/retry")).json()
    assert again == before | {"status": "RUNNING", "attempts": 2, "error": None, "endTime": None}
    assert problem(await face.http.post(f"/api/tasks/{second}/retry"))[:2] == (409, "CONFLICT")
    told = await when(face, id, "WAITING")
    assert (told["id"], told["endTime"], told["startTime"]) == (id, None, failed["startTime"])
    assert tasks_of(told, "attempts") == [
        ("task-1", "COMPLETED", 1),
        ("task-2", "WAITING", 2),
        ("task-3", "PENDING", 0),
    ]
    assert [task["id"] for task in told["taskExecutions"]] == [task["id"] for task in failed["taskExecutions"]]
    await face.http.post(f"/api/tasks/{second}/complete", json={"output": {"x": 1}})
    done = await when(face, id, "COMPLETED")
    assert tasks_of(done, "attempts") == [
        ("task-1", "COMPLETED", 1),
        ("task-2", "COMPLETED", 2),
        ("task-3", "COMPLETED", 1),
    ]
    assert json.loads(done["context"]["data"])["task-2-result"] == {"x": 1}


async def test_an_execution_runs_again_when_a_task_is_retried(face: Face) -> None:
    """Seen before any worker has it: the answer, and whatever is read next, is of a running execution."""
    made = await start(face, OUTSIDE)
    second = (await when(face, made["id"], "WAITING"))["taskExecutions"][1]["id"]
    await face.http.post(f"/api/tasks/{second}/fail", json={"error": "no"})
    await when(face, made["id"], "FAILED")
    await face.http.post(f"/api/tasks/{second}/retry")
    told = (await face.http.get(f"/api/executions/{made['id']}")).json()
    assert (told["status"] in ("RUNNING", "WAITING"), told["endTime"]) == (True, None)
    assert told["taskExecutions"][1]["error"] is None


async def test_a_task_that_backs_off_is_tried_at_once(face: Face) -> None:
    tasks = [{"name": "x", "type": "external", "retryPolicy": {"maxRetries": 3, "maxBackoff": 86400000}}]
    made = await start(face, tasks)
    task = (await when(face, made["id"], "WAITING"))["taskExecutions"][0]["id"]
    for attempt in (1, 2, 3):  # each failure doubles the wait; a retry cuts it short
        await face.http.post(f"/api/tasks/{task}/fail", json={"error": "no"})
        ask = lambda: face.http.get(f"/api/tasks/{task}")  # noqa: E731
        backs_off = lambda body, n=attempt: (body["error"], body["attempts"]) == ("no", n)  # noqa: E731
        told = await face.when(ask, backs_off)
        assert told["status"] == "WAITING"
        again = await face.http.post(f"/api/tasks/{task}/retry")
        assert (again.status_code, again.json()["attempts"]) == (200, attempt + 1), again.text
        await face.when(ask, lambda body, n=attempt: (body["error"], body["attempts"]) == (None, n + 1))
    assert (await face.http.get(f"/api/executions/{made['id']}/progress")).json()["completedTasks"] == 0


WAITS = [
    {"name": "First"},
    {"name": "Go", "type": "wait_for_event", "config": {"event": "go", "timeout": 50}, "dependencies": ["First"]},
    {"name": "Last", "dependencies": ["Go"]},
]


async def test_a_wait_for_an_event_is_retried_in_place(face: Face) -> None:
    """It waits again, with all its time; as often as it is retried."""
    made = await start(face, WAITS)
    for attempt in (1, 2):
        failed = await when(face, made["id"], "FAILED")
        assert tasks_of(failed) == [("task-1", "COMPLETED"), ("task-2", "FAILED"), ("task-3", "CANCELLED")]
        task = failed["taskExecutions"][1]
        assert (task["attempts"], task["error"]) == (attempt, "Execution timed out after 50ms")
        answer = await face.http.post(f"/api/tasks/{task['id']}/retry")
        begun = {"status": "RUNNING", "endTime": None, "attempts": attempt + 1, "error": None}
        assert (answer.status_code, answer.json()) == (200, task | begun)
    await when(face, made["id"], "FAILED")

    longer = [WAITS[0], WAITS[1] | {"config": {"event": "go", "timeout": 86400000}}, WAITS[2]]
    made = await start(face, longer)
    task = (await when(face, made["id"], "WAITING"))["taskExecutions"][1]["id"]
    await face.http.post(f"/api/tasks/{task}/fail", json={"error": "no"})
    await when(face, made["id"], "FAILED")
    assert (await face.http.post(f"/api/tasks/{task}/retry")).status_code == 200
    ask = lambda: face.http.get(f"/api/tasks/{task}")  # noqa: E731
    again = await face.when(ask, lambda body: body["status"] == "WAITING")
    assert (again["attempts"], again["error"], again["endTime"]) == (2, None, None)
    await when(face, made["id"], "WAITING")
    done = await face.http.post(f"/api/tasks/{task}/complete", json={"output": {"n": 1}})
    assert done.status_code == 200, done.text
    told = await when(face, made["id"], "COMPLETED")
    assert json.loads(told["context"]["data"])["task-2-result"] == {"n": 1}
    assert [one["attempts"] for one in told["taskExecutions"]] == [1, 2, 1]


async def test_a_wait_that_was_passed_over_is_not_retried(face: Face) -> None:
    wait = {"id": "w", "type": "wait_for_event", "config": {"event": "go", "timeout": 50}, "on_error": "continue"}
    await face.deploy("over", [wait, {"id": "x", "type": "fail", "config": {"message": "x"}, "depends_on": ["w"]}])
    made = (await face.http.post("/api/executions", json={"workflowDefinitionId": "over"})).json()
    failed = await when(face, made["id"], "FAILED")
    answer = await face.http.post(f"/api/tasks/{failed['taskExecutions'][0]['id']}/retry")
    assert problem(answer) == (
        409,
        "CONFLICT",
        "the execution went on without the event: retry the execution from the step",
    )


async def test_what_cannot_be_retried(face: Face) -> None:
    made = await start(face, OUTSIDE)
    tasks = [task["id"] for task in (await when(face, made["id"], "WAITING"))["taskExecutions"]]
    for task in tasks:
        assert problem(await face.http.post(f"/api/tasks/{task}/retry")) == (
            409,
            "CONFLICT",
            "Only failed tasks can be retried",
        )
    await face.http.post(f"/api/executions/{made['id']}/cancel")
    assert problem(await face.http.post(f"/api/tasks/{tasks[1]}/retry"))[0] == 409


async def test_what_was_rolled_back_is_not_retried(face: Face) -> None:
    await face.deploy("flow", [{"id": "a", "compensate": {"type": "noop"}}, {"id": "b", "type": "fail", "config": {"message": "x"}, "depends_on": ["a"]}])  # fmt: skip  # noqa: E501
    made = (await face.http.post("/api/executions", json={"workflowDefinitionId": "flow"})).json()
    failed = await when(face, made["id"], "FAILED")
    answer = await face.http.post(f"/api/tasks/{failed['taskExecutions'][1]['id']}/retry")
    assert problem(answer)[:2] == (409, "EXECUTION_ROLLED_BACK")


async def test_tasks_are_completed_from_outside_once(face: Face) -> None:
    made = await start(face, OUTSIDE)
    first, second, third = (task["id"] for task in (await when(face, made["id"], "WAITING"))["taskExecutions"])
    for task in (first, third):
        assert problem(await face.http.post(f"/api/tasks/{task}/complete"))[:2] == (409, "CONFLICT")
        assert problem(await face.http.post(f"/api/tasks/{task}/fail"))[:2] == (409, "CONFLICT")
    answer = await face.http.post(f"/api/tasks/{second}/complete")
    assert (answer.status_code, answer.json()["id"]) == (200, second)
    assert problem(await face.http.post(f"/api/tasks/{second}/complete"))[:2] == (409, "CONFLICT")
    await when(face, made["id"], "COMPLETED")


async def test_pausing(face: Face) -> None:
    made = await start(face, OUTSIDE)
    path = f"/api/executions/{made['id']}"
    await when(face, made["id"], "WAITING")
    assert (await face.http.post(f"{path}/pause")).status_code == 200
    ask = lambda: face.http.get(f"{path}/progress")  # noqa: E731
    paused = await face.when(ask, lambda body: any(one["description"] == "Paused" for one in body["blockers"]))
    assert paused["estimatedCompletion"] is None
    assert (await face.http.post(f"{path}/resume")).status_code == 200
    await face.http.post(f"{path}/cancel")
    for verb in ("pause", "resume"):
        answer = await face.http.post(f"{path}/{verb}")
        assert problem(answer) == (409, "CONFLICT", f"Cannot {verb} execution with status CANCELLED")


async def test_an_execution_is_repeated_as_a_new_one(face: Face) -> None:
    made = await start(
        face, [{"name": "A", **SETS}, {"name": "B", "type": "external", "dependencies": ["A"]}], {"k": 1}
    )
    path = f"/api/executions/{made['id']}"
    told = await when(face, made["id"], "WAITING")
    assert problem(await face.http.post(f"{path}/retry"))[0] == 409
    await face.http.post(f"/api/tasks/{told['taskExecutions'][1]['id']}/fail", json={"error": "no"})
    failed = await when(face, made["id"], "FAILED")
    answer = await face.http.post(f"{path}/retry")
    again = answer.json()
    assert (answer.status_code, again["id"] != made["id"], again["status"]) == (201, True, "RUNNING")
    assert answer.headers["location"] == f"/api/executions/{again['id']}"
    told = await when(face, again["id"], "WAITING")
    assert tasks_of(told) == [("task-1", "COMPLETED"), ("task-2", "WAITING")]
    assert json.loads(told["context"]["data"]) == {"k": 1, "task-1-result": {"a": 1}}
    assert (await face.http.get(path)).json() == failed
    answer = await face.http.post(f"{path}/retry", json={"fromTask": "task-9"})
    assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_hiding(face: Face) -> None:
    made = await start(face, OUTSIDE)
    path = f"/api/executions/{made['id']}"
    await when(face, made["id"], "WAITING")
    answer = await face.http.delete(path)
    assert problem(answer) == (409, "CONFLICT", "Cannot delete execution with status WAITING")
    told = (await face.http.post(f"{path}/cancel")).json()
    assert (await face.http.delete(path)).status_code == 204
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/tasks"), ("GET", "/progress")):
        answer = await face.http.request(method, path + tail)
        assert problem(answer) == (404, "NOT_FOUND", "Workflow execution not found"), (method, tail)
    answer = await face.http.get(f"/api/tasks/{told['taskExecutions'][0]['id']}")
    assert problem(answer) == (404, "NOT_FOUND", "Task execution not found")
    assert (await face.http.get("/api/executions")).json() == []


async def test_progress(face: Face) -> None:
    points = [{"name": "Halfway", "requiredTasks": ["task-1"]}]
    made = await start(face, OUTSIDE, synchronizationPoints=points)
    told = await when(face, made["id"], "WAITING")
    path = f"/api/executions/{made['id']}/progress"
    report = (await face.http.get(path)).json()
    assert (report["id"], report["workflowExecutionId"]) == (made["id"], made["id"])
    assert (report["completedTasks"], report["totalTasks"], report["estimatedCompletion"]) == (1, 3, None)
    [blocker] = report["blockers"]
    assert (blocker["taskExecutionId"], blocker["resolvedAt"]) == (told["taskExecutions"][1]["id"], None)
    assert [(one["id"], one["name"], one["achieved"]) for one in report["milestones"]] == [
        ("1", "Initialization", True),
        ("2", "Halfway", True),
        ("3", "Completion", False),
    ]
    assert report["milestones"][2]["achievedAt"] is None
    await face.http.post(f"/api/tasks/{blocker['taskExecutionId']}/complete")
    await when(face, made["id"], "COMPLETED")
    report = (await face.http.get(path)).json()
    assert (report["completedTasks"], report["totalTasks"], report["estimatedCompletion"]) == (3, 3, None)
    assert report["blockers"][0]["id"] == blocker["id"]
    assert report["blockers"][0]["resolvedAt"] is not None
    assert all(one["achieved"] for one in report["milestones"])


async def test_an_estimate_comes_from_earlier_runs(face: Face) -> None:
    """Of the same definition, whose first task waits for a time that is known."""
    measure = MeasureNodes(face.server.platform.db)
    await measure.tick()  # the worker does it, too, by and by: what was before the first time is not measured
    tasks = [{"name": "Wait", "type": "wait", "config": {"durationMs": 10}}, {"name": "End", "dependencies": ["Wait"]}]
    first = await start(face, tasks)
    await when(face, first["id"], "COMPLETED")
    tasks[0] = {"name": "Wait", "type": "wait", "config": {"durationMs": 60000}}
    path = f"/api/workflows/{first['workflowDefinitionId']}"
    await face.http.put(path, json={"tasks": tasks})

    body = {"workflowDefinitionId": first["workflowDefinitionId"]}
    made = (await face.http.post("/api/executions", json=body)).json()
    began = (await when(face, made["id"], "WAITING"))["taskExecutions"][0]["startTime"]

    async def report() -> httpx.Response:
        await measure.tick()
        return await face.http.get(f"/api/executions/{made['id']}/progress")

    told = await face.when(report, lambda body: body["estimatedCompletion"] is not None)
    estimated = datetime.fromisoformat(told["estimatedCompletion"]) - datetime.fromisoformat(began)
    assert timedelta(seconds=59) < estimated < timedelta(seconds=75)


async def test_logs(face: Face) -> None:
    made = await start(face, TWO)
    await when(face, made["id"], "COMPLETED")
    path = f"/api/executions/{made['id']}/logs"
    lines = (await face.http.get(path)).json()
    assert [line["id"] for line in lines] == sorted((line["id"] for line in lines), key=int)
    assert {line["taskDefinitionId"] for line in lines} == {None, "task-1", "task-2"}
    page = await face.http.get(path, params={"limit": 2})
    assert page.json() == lines[:2]
    following = page.headers["link"].partition(">")[0].removeprefix("<")
    assert (await face.http.get(following)).json() == lines[2:4]
    assert (await face.http.get(path, params={"level": "error"})).json() == []
    assert problem(await face.http.get(path, params={"level": "loud"}))[0] == 400


async def test_steps_of_scripts_are_tasks(face: Face) -> None:
    code = (
        "import { WorkflowEntrypoint } from 'cloudflare:workers';\n"
        "export class Flow extends WorkflowEntrypoint { async run(event, step) {\n"
        "  await step.do('fetch', async () => ({ got: event.payload.key }));\n"
        "  await step.do('fetch', async () => {}); return 1; } }\n"
    )
    metadata = json.dumps({"main_module": "index.js", "compatibility_date": "2026-01-01"})
    form = {
        "metadata": (None, metadata, "application/json"),
        "index.js": ("index.js", code, "application/javascript+module"),
    }
    uploaded = await face.cloud.put("/workers/scripts/flow", files=form)
    assert uploaded.status_code == 200, uploaded.text
    deployed = await face.cloud.put("/workflows/flow", json={"class_name": "Flow", "script_name": "flow"})
    assert deployed.status_code == 200, deployed.text
    shown = (await face.http.get("/api/workflows/flow")).json()
    assert (shown["version"], shown["tasks"], shown["synchronizationPoints"]) == ("1.0.0", [], [])
    body = {"workflowDefinitionId": shown["id"], "initialContext": {"key": 7}}
    made = (await face.http.post("/api/executions", json=body)).json()
    told = await when(face, made["id"], "COMPLETED", "FAILED")
    assert tasks_of(told) == [("fetch-1", "COMPLETED"), ("fetch-2", "COMPLETED")]
    assert json.loads(told["context"]["data"]) == {
        "key": 7,
        "fetch-1-result": {"got": 7},
        "fetch-2-result": "success",
    }
    progress = (await face.http.get(f"/api/executions/{made['id']}/progress")).json()
    assert (progress["completedTasks"], progress["totalTasks"]) == (2, 2)
    shown = (await face.http.get("/api/workflows/flow")).json()
    assert [task["id"] for task in shown["tasks"]] == ["fetch-1", "fetch-2"]
    [listed] = (await face.http.get("/api/workflows")).json()
    assert listed == shown
    assert problem(await face.http.put("/api/workflows/flow", json={"name": "Other"}))[:2] == (409, "CONFLICT")
