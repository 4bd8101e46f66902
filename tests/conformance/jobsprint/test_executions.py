"""Executions of the JobSprint face: every route, by a plain HTTP client."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face, client
from tests.support.api import new_tenant

TWO = [
    {"id": "node_1", "type": "trigger", "name": "Received"},
    {"id": "node_2", "type": "set", "name": "Greet", "depends_on": ["node_1"], "config": {"values": {"a": 1}}},
]
FAILS = [
    {"id": "node_1", "type": "set", "config": {"values": {"a": 1}}},
    {"id": "node_2", "type": "fail", "depends_on": ["node_1"], "config": {"message": "no carrier"}},
]
WAITS = [{"id": "node_1", "type": "wait_for_event", "config": {"event": "go"}}]


async def execute(face: Face, workflow: str, wait: bool = True, **body: Any) -> dict[str, Any]:
    body.setdefault("options", {"waitForCompletion": wait})
    answer = await face.http.post(f"/v1/workflows/{workflow}/execute", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def problem(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["success"] is False
    assert body["meta"]["requestId"] == f"req_{answer.headers['x-request-id']}"
    return answer.status_code, body["error"]["code"]


async def test_a_synchronous_run_answers_its_output(face: Face) -> None:
    await face.deploy("flow", TWO)
    data = await execute(face, "flow", inputData={"email": {"from": "user@example.com"}})
    assert (data["status"], data["outputData"]) == ("success", {"a": 1})
    assert data["duration"] >= 0
    assert "url" not in data
    shown = (await face.http.get(f"/v1/executions/{data['executionId']}")).json()
    assert shown["success"] is True
    told = shown["data"]
    assert told["inputData"] == {"email": {"from": "user@example.com"}}
    assert told["triggeredBy"] == "manual"
    assert told["workflowName"] == "flow"
    assert [(step["stepId"], step["stepName"], step["status"]) for step in told["executionSteps"]] == [
        ("node_1", "Received", "success"),
        ("node_2", "Greet", "success"),
    ]
    messages = [line["message"] for line in told["logs"]]
    assert messages.index("Starting workflow execution") < messages.index("Workflow execution completed successfully")


async def test_an_asynchronous_run_says_where_it_is(face: Face) -> None:
    await face.deploy("flow", WAITS)
    data = await execute(face, "flow", wait=False)
    assert data["status"] == "running"
    assert data["startedAt"] is not None
    assert data["url"].endswith(f"/v1/executions/{data['executionId']}")


async def test_a_failing_run_is_a_success_of_the_request(face: Face) -> None:
    await face.deploy("flow", FAILS)
    data = await execute(face, "flow")
    assert (data["status"], data["outputData"]) == ("error", None)
    assert data["error"]["message"] == "no carrier"
    assert data["error"]["stepId"] == "node_2"


async def test_a_deadline_ends_a_run_and_the_call(face: Face) -> None:
    await face.deploy("flow", WAITS)
    data = await execute(face, "flow", options={"waitForCompletion": True, "timeout": 1})
    assert (data["status"], data["outputData"], data["error"]["code"]) == ("error", None, "EXECUTION_TIMEOUT")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"inputData": []}, "inputData"),
        ({"inputData": "x"}, "inputData"),
        ({"options": {"timeout": 0}}, "options.timeout"),
        ({"options": {"timeout": 31_536_001}}, "options.timeout"),
        ({"options": {"waitForCompletion": "yes"}}, "options.waitForCompletion"),
    ],
)
async def test_bodies_that_are_refused(face: Face, body: Any, field: str) -> None:
    await face.deploy("flow", TWO)
    answer = await face.http.post("/v1/workflows/flow/execute", json=body)
    assert problem(answer) == (400, "VALIDATION_ERROR")
    assert answer.json()["error"]["details"]["errors"][0]["field"] == field


@pytest.mark.parametrize("path", ["executions/{id}/retry", "workflows/flow/execute", "workflows/validate"])
async def test_bodies_that_are_not_json(face: Face, path: str) -> None:
    """Clients without a body may say of it what they like."""
    await face.deploy("flow", FAILS)
    path = "/v1/" + path.format(id=(await execute(face, "flow"))["executionId"])
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await face.http.post(path, content=b"{}", headers=form)
    assert problem(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await face.http.post(path, headers=form)).status_code == 200
    assert (
        await face.http.post(path, content=b"{}", headers={"content-type": "application/x+json"})
    ).status_code != 415


async def test_unknown_fields_are_ignored(face: Face) -> None:
    await face.deploy("flow", TWO)
    await execute(face, "flow", extra=1)


async def test_an_idempotency_key_starts_once(face: Face) -> None:
    await face.deploy("flow", TWO)
    post = lambda body: face.http.post(  # noqa: E731
        "/v1/workflows/flow/execute", json=body, headers={"idempotency-key": "k"}
    )
    first, second = await post({"inputData": {"a": 1}}), await post({"inputData": {"a": 1}})
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert problem(await post({"inputData": {"a": 2}})) == (409, "CONFLICT")


async def test_a_step_is_given_up_by_a_failure_or_by_the_user(face: Face) -> None:
    branches = [*WAITS, {"id": "node_2", "type": "fail", "config": {"message": "no carrier"}}]
    await face.deploy("flow", branches)
    await face.deploy("waits", WAITS)
    failed = await execute(face, "flow")
    cancelled = await execute(face, "waits", wait=False)
    await face.http.post(f"/v1/executions/{cancelled['executionId']}/cancel")
    told: list[tuple[str, str]] = []
    for execution in (failed, cancelled):
        shown = (await face.http.get(f"/v1/executions/{execution['executionId']}")).json()["data"]
        step = shown["executionSteps"][0]
        told.append((step["status"], step["error"]["message"]))
    assert told == [("cancelled", "Given up because the execution failed"), ("cancelled", "Cancelled by user")]


async def test_cancelling_twice_says_the_same(face: Face) -> None:
    await face.deploy("flow", WAITS)
    id = (await execute(face, "flow", wait=False))["executionId"]
    first = await face.http.post(f"/v1/executions/{id}/cancel")
    second = await face.http.post(f"/v1/executions/{id}/cancel")
    assert first.json()["data"] == second.json()["data"]
    assert first.json()["data"]["status"] == "cancelled"
    shown = (await face.http.get(f"/v1/executions/{id}")).json()["data"]
    assert (shown["status"], shown["finishedAt"]) == ("cancelled", first.json()["data"]["cancelledAt"])


async def test_what_is_finished_cannot_be_cancelled(face: Face) -> None:
    await face.deploy("flow", TWO)
    id = (await execute(face, "flow"))["executionId"]
    answer = await face.http.post(f"/v1/executions/{id}/cancel")
    assert problem(answer) == (409, "CONFLICT")
    assert answer.json()["error"]["details"] == {"status": "success"}


async def test_a_retry_from_a_step_takes_over_what_came_before(face: Face) -> None:
    await face.deploy("flow", FAILS)
    id = (await execute(face, "flow"))["executionId"]
    retried = (await face.http.post(f"/v1/executions/{id}/retry", json={"fromStep": "node_2"})).json()["data"]
    assert retried["originalExecutionId"] == id
    ask = lambda: face.http.get(f"/v1/executions/{retried['executionId']}")  # noqa: E731
    shown = (await face.when(ask, lambda body: body["data"]["status"] == "error"))["data"]
    assert shown["originalExecutionId"] == id
    assert shown["triggeredBy"] == "retry"
    first, second = shown["executionSteps"]
    assert (first["status"], first["output"]) == ("success", {"a": 1})
    assert second["status"] == "error"
    assert (await face.http.get(f"/v1/executions/{id}")).json()["data"]["retriedBy"] == [retried["executionId"]]


async def test_retries_that_are_refused(face: Face) -> None:
    await face.deploy("flow", FAILS)
    await face.deploy("fine", TWO)
    failed = (await execute(face, "flow"))["executionId"]
    fine = (await execute(face, "fine"))["executionId"]
    assert problem(await face.http.post(f"/v1/executions/{fine}/retry")) == (409, "CONFLICT")
    answer = await face.http.post(f"/v1/executions/{failed}/retry", json={"fromStep": "nope"})
    assert problem(answer) == (400, "VALIDATION_ERROR")
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "fromStep"


async def test_a_deleted_execution_is_gone_on_all_routes(face: Face) -> None:
    await face.deploy("flow", TWO)
    await face.deploy("waits", WAITS)
    running = (await execute(face, "waits", wait=False))["executionId"]
    assert problem(await face.http.delete(f"/v1/executions/{running}")) == (409, "CONFLICT")
    id = (await execute(face, "flow"))["executionId"]
    assert (await face.http.delete(f"/v1/executions/{id}")).json()["data"] == {"id": id, "deleted": True}
    for method, rest in (("GET", ""), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        assert problem(await face.http.request(method, f"/v1/executions/{id}{rest}")) == (404, "NOT_FOUND")
    assert [one["id"] for one in (await face.http.get("/v1/executions")).json()["data"]] == [running]
    assert (await face.http.get("/v1/executions/metrics")).json()["data"]["totalExecutions"] == 1


async def test_walking_a_list_that_grows(face: Face) -> None:
    await face.deploy("flow", WAITS)
    batch = [{"instance_id": f"i{n}"} for n in range(25)]
    await face.cloud.post("/workflows/flow/instances/batch", json=batch)
    seen, cursor = [], None
    while True:
        query = {"limit": 7} | ({"after": cursor} if cursor else {})
        body = (await face.http.get("/v1/executions", params=query)).json()
        seen.append([one["id"] for one in body["data"]])
        await face.cloud.post("/workflows/flow/instances", json={})
        cursor = body["pagination"]["nextCursor"]
        assert body["pagination"]["hasMore"] is (cursor is not None)
        if cursor is None:
            break
        previous = body["pagination"]["previousCursor"]  # of the third page in the end; the last page has no next
    walked = [id for page in seen for id in page]
    assert len(walked) == len(set(walked)) == 25
    back = (await face.http.get("/v1/executions", params={"limit": 7, "before": previous})).json()
    assert [one["id"] for one in back["data"]] == seen[1]
    assert (await face.http.get("/v1/executions", params={"before": previous, "after": previous})).status_code == 400


async def test_cursors_belong_to_their_list(face: Face, stranger: httpx.AsyncClient) -> None:
    await face.deploy("flow", WAITS)
    await face.cloud.post("/workflows/flow/instances/batch", json=[{}, {}, {}])
    cursor = (await face.http.get("/v1/executions?limit=1")).json()["pagination"]["nextCursor"]
    for query in (f"after={cursor}&status=running", f"after={cursor}x", "after=nope", "before=nope"):
        answer = await face.http.get(f"/v1/executions?{query}")
        assert problem(answer) == (400, "VALIDATION_ERROR")
        assert answer.json()["error"]["details"]["errors"][0]["field"] == query.partition("=")[0]
    assert problem(await stranger.get(f"/v1/executions?after={cursor}")) == (400, "VALIDATION_ERROR")


async def test_filters(face: Face) -> None:
    made = await face.deploy("flow", TWO)
    await face.deploy("fails", FAILS)
    good, bad = await execute(face, "flow"), await execute(face, "fails")

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await face.http.get(f"/v1/executions?{query}")).json()["data"]]

    assert await ids("status=success") == [good["executionId"]]
    assert await ids("status=error") == [bad["executionId"]]
    assert await ids("status=success,error") == [bad["executionId"], good["executionId"]]
    assert await ids("status=running") == await ids("status=pending") == await ids("status=cancelled") == []
    assert await ids("workflowId=flow") == await ids(f"workflowId={made['id']}") == [good["executionId"]]
    assert await ids("workflowId=nope") == []
    assert len(await ids("fromDate=2020-01-01")) == 2
    assert await ids("toDate=2020-01-01") == []
    assert len(await ids(f"toDate={bad['startedAt'][:10]}")) == 2


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "status=done",
        "fromDate=yesterday",
        "fromDate=2026-01-02&toDate=2026-01-01",
        "limit=1&limit=2",
    ],
)
async def test_queries_that_are_refused(face: Face, query: str) -> None:
    assert problem(await face.http.get(f"/v1/executions?{query}")) == (400, "VALIDATION_ERROR")


async def test_metrics_add_up(face: Face) -> None:
    await face.deploy("flow", TWO)
    await face.deploy("fails", FAILS)
    await face.deploy("waits", WAITS)
    await asyncio.gather(*(execute(face, "flow") for _ in range(3)), execute(face, "fails"))
    await execute(face, "waits", wait=False)
    told = (await face.http.get("/v1/executions/metrics?granularity=hour")).json()["data"]
    assert told["successfulExecutions"] + told["failedExecutions"] == told["totalExecutions"] == 4
    assert told["successRate"] == 0.75
    assert sum(bucket["count"] for bucket in told["timeSeries"]) == 4
    assert len(told["timeSeries"]) in (24, 25)
    only = (await face.http.get("/v1/executions/metrics?workflowId=fails")).json()["data"]
    assert (only["totalExecutions"], only["successRate"]) == (1, 0)
    assert problem(await face.http.get("/v1/executions/metrics?workflowId=nope")) == (404, "NOT_FOUND")
    assert problem(await face.http.get("/v1/executions/metrics?granularity=year")) == (400, "VALIDATION_ERROR")
    for query in ("granularity=hour&fromDate=2020-01-01", "fromDate=2999-01-01"):
        answer = await face.http.get(f"/v1/executions/metrics?{query}")
        assert problem(answer) == (400, "VALIDATION_ERROR")
        assert answer.json()["error"]["details"]["errors"][0]["field"] == "fromDate"


async def test_logs_by_level_step_and_page(face: Face) -> None:
    await face.deploy("flow", TWO)
    id = (await execute(face, "flow"))["executionId"]
    path = f"/v1/executions/{id}/logs"
    every = (await face.http.get(path)).json()
    assert "pagination" not in every
    lines = every["data"]["logs"]
    assert lines[0]["stepId"] is None
    assert {line["stepId"] for line in lines} == {None, "node_1", "node_2"}
    began, ended = (line for line in lines if line["stepId"] == "node_2")
    assert (began["level"], began["message"]) == ("debug", "Step started")
    assert (ended["level"], ended["message"]) == ("info", "Step completed")
    shown = (await face.http.get(f"/v1/executions/{id}")).json()["data"]["logs"]
    assert shown == [_without(line, "stepId") for line in lines if line["level"] != "debug"]
    of_one = (await face.http.get(path, params={"stepId": "node_2"})).json()["data"]["logs"]
    assert of_one == [line for line in lines if line["stepId"] == "node_2"]
    assert (await face.http.get(path, params={"level": "error"})).json()["data"]["logs"] == []
    walked, cursor = [], None
    while cursor is not None or not walked:
        page = (await face.http.get(path, params={"limit": 2} | ({"after": cursor} if cursor else {}))).json()
        walked += page["data"]["logs"]
        cursor = page.get("pagination", {}).get("nextCursor")
    assert walked == lines


async def test_the_log_has_what_nodes_were_given(face: Face) -> None:
    """Templates rendered as they were when the node began; nothing that is a secret."""
    call = {"url": "http://127.0.0.1/{{ vars.a }}", "headers": {"Authorization": "Bearer x", "X-A": "{{ vars.a }}"}}
    nodes = [
        {"id": "first", "type": "set", "config": {"values": {"a": "{{ trigger.n }}"}}},
        {"id": "second", "type": "set", "config": {"values": {"a": "{{ vars.a }}!"}}, "depends_on": ["first"]},
        {"id": "each", "type": "set", "for_each": "{{ `[4,5]` }}", "depends_on": ["second"]}
        | {"config": {"values": {"b": "{{ item }}", "of": "{{ steps.first.output.a }}", "now": "{{ vars.a }}"}}},
        {"id": "nap", "type": "wait", "config": {"durationMs": "{{ steps.each.output[0].b }}"}, "depends_on": ["each"]},
        {"id": "call", "type": "call_api", "config": call, "depends_on": ["nap"], "on_error": "continue"},
        {"id": "after", "type": "set", "depends_on": ["call"]}
        | {"config": {"values": {"text": "{{ steps.call.status }} {{ length(previousStepResults) }}"}}},
        {"id": "nothing", "depends_on": ["after"]},
    ]
    await face.deploy("flow", nodes)
    data = await execute(face, "flow", inputData={"n": 7})
    lines = (await face.http.get(f"/v1/executions/{data['executionId']}/logs")).json()["data"]["logs"]
    given = [(line["stepId"], line["data"]) for line in lines if "data" in line]
    assert given == [
        ("first", {"input": {"values": {"a": 7}}}),
        ("second", {"input": {"values": {"a": "7!"}}}),
        ("each", {"input": {"values": {"b": 4, "of": 7, "now": "7!"}}}),
        ("each", {"input": {"values": {"b": 5, "of": 7, "now": "7!"}}}),
        ("nap", {"input": {"durationMs": 4}}),
        ("call", {"input": {"url": call["url"].replace("{{ vars.a }}", "7!")} | SHOWN_HEADERS}),
        ("after", {"input": {"values": {"text": "failed 5"}}}),
    ]


SHOWN_HEADERS = {"headers": {"Authorization": "[REDACTED]", "X-A": "7!"}}


def _without(line: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in names}


async def test_nobody_sees_anothers(face: Face, stranger: httpx.AsyncClient) -> None:
    await face.deploy("flow", WAITS)
    id = (await execute(face, "flow", wait=False))["executionId"]
    for method, path in (
        ("GET", f"/v1/executions/{id}"),
        ("GET", f"/v1/executions/{id}/logs"),
        ("POST", f"/v1/executions/{id}/cancel"),
        ("POST", f"/v1/executions/{id}/retry"),
        ("DELETE", f"/v1/executions/{id}"),
        ("POST", "/v1/workflows/flow/execute"),
        ("GET", "/v1/executions/metrics?workflowId=flow"),
    ):
        assert problem(await stranger.request(method, path)) == (404, "NOT_FOUND"), path
    assert (await stranger.get("/v1/executions")).json()["data"] == []


async def test_credentials_and_scopes(face: Face) -> None:
    await face.deploy("flow", WAITS)
    id = (await execute(face, "flow", wait=False))["executionId"]
    reader = await new_tenant(face.server.platform, ["executions:read"], of=face.tenant.id)
    async with client(face.server, None) as nobody, client(face.server, reader) as reading:
        assert problem(await nobody.get("/v1/executions")) == (401, "UNAUTHORIZED")
        assert problem(await nobody.get("/v1/executions", headers={"authorization": "Bearer sk_x"}))[0] == 401
        assert (await reading.get(f"/v1/executions/{id}")).status_code == 200
        for method, path, scope in (
            ("POST", f"/v1/executions/{id}/cancel", "execute:workflows"),
            ("POST", f"/v1/executions/{id}/retry", "execute:workflows"),
            ("DELETE", f"/v1/executions/{id}", "write:workflows"),
            ("POST", "/v1/workflows/flow/execute", "execute:workflows"),
        ):
            answer = await reading.request(method, path)
            assert problem(answer) == (403, "FORBIDDEN")
            assert answer.json()["error"]["details"] == {"requiredScope": scope}


async def test_paths_and_methods_that_do_not_exist(face: Face) -> None:
    answer = await face.http.get("/v1/executions/nope")
    assert problem(answer) == (404, "NOT_FOUND")
    assert answer.json()["error"]["details"] == {"resource": "execution", "id": "nope"}
