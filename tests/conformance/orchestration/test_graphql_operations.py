"""GraphQL of the orchestration face: what each mutation does, the nine operations of its documentation, and access."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets

from app.embedded.valkey import EmbeddedValkey
from app.faces.orchestration.graphql import operations, subscriptions
from instances.search import growing, store
from tenants.auth import operator
from tenants.sessions import COOKIE
from tests.conformance.conftest import Face
from tests.conformance.orchestration.test_graphql import TASKS, ask, code, ended, make, send, start
from tests.conformance.orchestration.test_graphql_live import PROTOCOL, Raw, streamed, url
from tests.support.api import new_tenant
from tests.support.databases import Databases
from tests.support.live import live_for_tests

DEFINITION = """id name description version createdAt updatedAt tasks { id name description dependencies }
  synchronizationPoints { id name description requiredTasks }"""
TASK = "id taskDefinitionId status startTime endTime attempts error"
CONTEXT = "context { id data version createdAt updatedAt }"
REPORT = """id workflowExecutionId completedTasks totalTasks estimatedCompletion
  blockers { id taskExecutionId description createdAt resolvedAt }
  milestones { id name description achieved achievedAt }"""
HOOK = {"url": "https://example.com/webhook", "events": ["workflow.execution.completed", "task.execution.failed"]}
WAITING = [{"name": "Approve", "type": "external"}]


async def test_the_nine_operations_of_the_documentation(face: Face) -> None:
    body = {
        "name": "Sample Workflow",
        "description": "A sample",
        "tasks": TASKS,
        "synchronizationPoints": [{"name": "All", "requiredTasks": ["task-1", "task-2"]}],
    }
    create = f"""mutation ($input: CreateWorkflowDefinitionInput!) {{
      createWorkflowDefinition(input: $input) {{ {DEFINITION} }} }}"""
    made = (await ask(face.http, create, input=body))["createWorkflowDefinition"]
    assert (made["version"], made["synchronizationPoints"][0]["requiredTasks"]) == ("1.0.0", ["task-1", "task-2"])
    query = f"query ($id: ID!) {{ workflowDefinition(id: $id) {{ {DEFINITION} }} }}"
    assert (await ask(face.http, query, id=made["id"]))["workflowDefinition"] == made

    begin = f"""mutation ($input: StartWorkflowExecutionInput!) {{ startWorkflowExecution(input: $input) {{
      id workflowDefinitionId status startTime endTime {CONTEXT} }} }}"""
    asked = {"workflowDefinitionId": made["id"], "initialContext": '{"key": "value"}'}
    started = (await ask(face.http, begin, input=asked))["startWorkflowExecution"]
    assert (started["status"], started["endTime"], started["context"]["version"]) == ("RUNNING", None, 1)
    assert json.loads(started["context"]["data"]) == {"key": "value"}

    updates = (
        f"subscription ($id: ID!) {{ workflowExecutionUpdated(id: $id) {{ id status taskExecutions {{ {TASK} }} }} }}"
    )
    _, told = await streamed(face, updates, id=started["id"])
    assert told[-2][1]["data"]["workflowExecutionUpdated"]["status"] == "COMPLETED"
    tasks = f"subscription ($id: ID!) {{ taskExecutionUpdated(workflowExecutionId: $id) {{ {TASK} }} }}"
    _, told = await streamed(face, tasks, id=started["id"])
    assert [one[1]["data"]["taskExecutionUpdated"]["status"] for one in told[:-1]] == ["COMPLETED"] * 2
    progress = f"subscription ($id: ID!) {{ progressReportUpdated(workflowExecutionId: $id) {{ {REPORT} }} }}"
    _, told = await streamed(face, progress, id=started["id"])
    report = f"query ($id: ID!) {{ progressReport(workflowExecutionId: $id) {{ {REPORT} }} }}"
    assert (await ask(face.http, report, id=started["id"]))["progressReport"] == told[0][1]["data"][
        "progressReportUpdated"
    ]

    look = f"query ($id: ID!) {{ workflowExecution(id: $id) {{ id status taskExecutions {{ {TASK} }} {CONTEXT} }} }}"
    found = (await ask(face.http, look, id=started["id"]))["workflowExecution"]
    assert found["context"]["version"] == 3
    assert "task-1-result" in json.loads(found["context"]["data"])

    register = """mutation ($input: RegisterWebhookInput!) {
      registerWebhook(input: $input) { id url events secret active createdAt } }"""
    hook = (await ask(face.http, register, input=HOOK | {"secret": "webhook-secret"}))["registerWebhook"]
    assert (hook["secret"], hook["active"], hook["events"]) == ("webhook-secret", True, HOOK["events"])


async def test_webhooks_are_made_changed_and_removed(face: Face) -> None:
    register = "mutation ($input: RegisterWebhookInput!) { registerWebhook(input: $input) { id secret format } }"
    made = (await ask(face.http, register, input=HOOK | {"format": "CLASSIC"}))["registerWebhook"]
    assert made["secret"].startswith("whsec_") and made["format"] == "CLASSIC"
    every = "{ webhookRegistrations { id secret active deliveries { id } } }"
    assert (await ask(face.http, every))["webhookRegistrations"] == [
        {"id": made["id"], "secret": None, "active": True, "deliveries": []}
    ]
    update = "mutation ($id: ID!) { updateWebhook(id: $id, input: {active: false}) { active secret url } }"
    assert (await ask(face.http, update, id=made["id"]))["updateWebhook"] == {
        "active": False,
        "secret": made["secret"],
        "url": HOOK["url"],
    }
    rotate = "mutation ($id: ID!) { rotateWebhookSecret(id: $id) { secret } }"
    assert (await ask(face.http, rotate, id=made["id"]))["rotateWebhookSecret"]["secret"] != made["secret"]
    remove = "mutation ($id: ID!) { deleteWebhook(id: $id) }"
    assert await ask(face.http, remove, id=made["id"]) == {"deleteWebhook": True}
    assert await code(face.http, remove, id=made["id"]) == (200, "NOT_FOUND")
    assert await code(face.http, "mutation { redeliverWebhook(deliveryId: 1) { id } }") == (200, "NOT_FOUND")
    test = 'mutation { testWebhook(input: {url: "http://127.0.0.1/", event: "webhook.test", payload: {}}) { success } }'
    assert await code(face.http, test) == (200, "BAD_USER_INPUT")


async def test_a_definition_changes_by_versions(face: Face) -> None:
    id = await make(face)
    update = """mutation ($id: ID!, $input: UpdateWorkflowDefinitionInput!) {
      updateWorkflowDefinition(id: $id, input: $input) { name version } }"""
    for _ in range(2):  # what changes nothing makes no version
        done = await ask(face.http, update, id=id, input={"name": "Other"})
        assert done["updateWorkflowDefinition"] == {"name": "Other", "version": "1.0.1"}
    assert await code(face.http, update, id=id, input={"tasks": None}) == (200, "BAD_USER_INPUT")
    query = "query ($id: ID!) { workflowDefinition(id: $id) { versions { version tasks { id } } executions { id } } }"
    found = (await ask(face.http, query, id=id))["workflowDefinition"]
    assert [one["version"] for one in found["versions"]] == ["1.0.1", "1.0.0"]
    run = await start(face, id)
    assert (await ask(face.http, "mutation ($id: ID!) { deleteWorkflowDefinition(id: $id) }", id=id)) == {
        "deleteWorkflowDefinition": True
    }
    look = "query ($id: ID!) { workflowExecution(id: $id) { workflowDefinition { id } workflowVersion } }"
    found = (await ask(face.http, look, id=run))["workflowExecution"]
    assert found == {"workflowDefinition": None, "workflowVersion": "1.0.1"}


async def test_executions_are_steered(face: Face) -> None:
    run = await start(face, await make(face, WAITING))
    status = "query ($id: ID!) { workflowExecution(id: $id) { status } }"
    await face.when(
        lambda: send(face.http, status, id=run), lambda body: body["data"]["workflowExecution"]["status"] == "WAITING"
    )
    for verb in ("pause", "resume", "cancel"):
        done = await ask(
            face.http, f"mutation ($id: ID!) {{ done: {verb}WorkflowExecution(id: $id) {{ id }} }}", id=run
        )
        assert done == {"done": {"id": run}}
    assert (await ended(face, run))["status"] == "CANCELLED"
    for verb in ("pause", "resume", "cancel"):
        answer = await send(face.http, f"mutation ($id: ID!) {{ {verb}WorkflowExecution(id: $id) {{ id }} }}", id=run)
        (error,) = answer.json()["errors"]
        assert (error["extensions"]["code"], error["message"]) == (
            "CONFLICT",
            f"Cannot {verb} execution with status CANCELLED",
        )
    again = await ask(face.http, "mutation ($id: ID!) { retryWorkflowExecution(id: $id) { id status } }", id=run)
    assert again["retryWorkflowExecution"]["id"] != run
    remove = "mutation ($id: ID!) { deleteWorkflowExecution(id: $id) }"
    assert await code(face.http, remove, id=again["retryWorkflowExecution"]["id"]) == (200, "CONFLICT")
    assert await ask(face.http, remove, id=run) == {"deleteWorkflowExecution": True}
    assert await ask(face.http, status, id=run) == {"workflowExecution": None}


async def test_one_key_starts_one_execution(face: Face) -> None:
    workflow = await make(face)
    assert await start(face, workflow, idempotencyKey="k") == await start(face, workflow, idempotencyKey="k")
    other = await make(face, name="Other")
    begin = "mutation ($input: StartWorkflowExecutionInput!) { startWorkflowExecution(input: $input) { id } }"
    assert await code(face.http, begin, input={"workflowDefinitionId": other, "idempotencyKey": "k"}) == (
        200,
        "CONFLICT",
    )
    assert await code(face.http, begin, input={"workflowDefinitionId": other, "initialContext": "[]"}) == (
        200,
        "BAD_USER_INPUT",
    )


async def test_executions_are_found_and_counted(face: Face) -> None:
    workflow = await make(face)
    run = await start(face, workflow)
    await ended(face, run)
    query = """query ($w: ID, $s: ExecutionStatus, $after: DateTime) {
      workflowExecutions(workflowDefinitionId: $w, status: $s, startedAfter: $after) { id taskExecutions { status } }
      workflowExecutionCount(workflowDefinitionId: $w, status: $s, startedAfter: $after) }"""
    found = await ask(face.http, query, w=workflow, s="COMPLETED", after="2020-01-01")
    assert found["workflowExecutions"] == [{"id": run, "taskExecutions": [{"status": "COMPLETED"}] * 2}]
    assert found["workflowExecutionCount"] == 1
    for filters in ({"w": "0"}, {"s": "FAILED"}, {"after": "2999-01-01T00:00:00Z"}):
        found = await ask(face.http, query, **filters)
        assert found == {"workflowExecutions": [], "workflowExecutionCount": 0}, filters
    assert await code(face.http, query, after="soon") == (400, "BAD_USER_INPUT")


# --- access ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def cookie(face: Face) -> dict[str, str]:
    """The session of a person."""
    tenants = face.server.platform.tenants
    name = f"ada-{face.tenant.hex}"
    await tenants.users.create(operator(face.tenant.id), name, role="operator", password="correct horse battery")
    person = await tenants.logins.log_in(name, "correct horse battery")
    session, *_ = await tenants.sessions.create(person.caller)
    return {"cookie": f"{COOKIE}={session}"}


async def test_a_cookie_must_come_from_a_page_of_ours(face: Face, cookie: dict[str, str]) -> None:
    query = {"query": "{ me { role } }"}
    async with httpx.AsyncClient(base_url=face.server.base_url, headers=cookie, trust_env=False) as http:
        answer = await http.get("/graphql", params=query)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")
        for shown in ({"apollo-require-preflight": "1"}, {"origin": face.server.base_url}):
            answer = await http.get("/graphql", params=query, headers=shown)
            assert answer.json() == {"data": {"me": {"role": "operator"}}}
        assert (await http.post("/graphql", json=query)).json() == {"data": {"me": {"role": "operator"}}}


async def test_a_cookie_on_the_upgrade_needs_an_origin_of_ours(face: Face, cookie: dict[str, str]) -> None:
    for origin, acknowledged in ((face.server.base_url, True), ("https://elsewhere.example", False)):
        connect = websockets.connect(
            url(face),
            subprotocols=[PROTOCOL],
            origin=origin,
            additional_headers=cookie,
            proxy=None,  # type: ignore[arg-type,list-item]
        )
        async with connect as socket:
            raw = Raw(socket)
            await raw.send({"type": "connection_init"})
            if acknowledged:
                assert (await raw.read())["type"] == "connection_ack"
            else:
                assert await raw.code() == 4403


async def test_introspection_and_the_page_can_be_switched_off(face: Face, monkeypatch: Any) -> None:
    platform, schema = face.server.platform, "{ ... on Query { __schema { queryType { name } } } }"
    await ask(face.http, schema)
    settings = dataclasses.replace(platform.settings, graphql_introspection="off", graphiql=False)
    monkeypatch.setattr(platform, "settings", settings)
    assert await code(face.http, schema) == (400, "GRAPHQL_VALIDATION_FAILED")
    assert "Did you mean" not in (await send(face.http, "{ mee { id } }")).text
    assert (await face.http.get("/graphql", headers={"accept": "text/html"})).status_code == 404


async def test_introspection_can_be_for_everybody(face: Face, monkeypatch: Any) -> None:
    platform = face.server.platform
    monkeypatch.setattr(platform, "settings", dataclasses.replace(platform.settings, graphql_introspection="public"))
    async with httpx.AsyncClient(base_url=face.server.base_url, trust_env=False) as nobody:
        answer = await nobody.post("/graphql", json={"query": "{ __schema { queryType { name } } }"})
        assert answer.json()["data"]["__schema"]["queryType"]["name"] == "Query"
        answer = await nobody.post("/graphql", json={"query": "{ __typename me { id } }"})
        assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_an_operation_that_takes_too_long(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(operations, "DEADLINE", 0.0)
    assert await code(face.http, "{ workflowDefinitions { id } }") == (200, "TIMEOUT")


async def test_bugs_are_masked(face: Face, monkeypatch: Any) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("inside")

    monkeypatch.setattr(face.server.platform.versions.definitions, "get", broken)
    answer = await send(face.http, "{ workflowDefinition(id: 1) { id } }")
    (error,) = answer.json()["errors"]
    assert (error["extensions"]["code"], error["message"]) == ("INTERNAL_SERVER_ERROR", "Internal server error")


async def test_deep_documents_are_refused(face: Face) -> None:
    chain = "".join(f"fragment f{n} on WorkflowExecution {{ ...f{n + 1} }} " for n in range(250))
    query = f"{{ workflowExecution(id: 1) {{ ...f0 }} }} {chain} fragment f250 on WorkflowExecution {{ id }}"
    assert (await send(face.http, query)).status_code in (200, 400)
    nested = "{ workflowExecution(id: 1)" + " { workflowDefinition { executions" * 200 + " { id }" + " } }" * 200 + " }"
    assert (await send(face.http, nested)).status_code == 400


async def test_sockets_are_closed_when_the_server_stops(databases: Databases, valkey: EmbeddedValkey) -> None:
    async with live_for_tests(databases, valkey) as running:
        tenant = await new_tenant(running.platform)
        face = Face(httpx.AsyncClient(), httpx.AsyncClient(), tenant, running)
        async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
            raw = Raw(socket)
            await raw.begin(face)
            running.platform.drain()
            assert await raw.code() == 1012


async def test_texts_that_no_database_takes(face: Face) -> None:
    query = "query ($t: String, $id: ID!) { workflowDefinitions(search: $t) { id } workflowDefinition(id: $id) { id } }"
    for text in ("\0", "\ud800"):
        body = json.dumps({"query": query, "variables": {"t": text, "id": text}})
        answer = await face.http.post("/graphql", content=body, headers={"content-type": "application/json"})
        assert "INTERNAL_SERVER_ERROR" not in answer.text, answer.text
    begin = (
        "mutation ($t: String) { startWorkflowExecution(input: {workflowDefinitionId: 1, initialContext: $t}) { id } }"
    )
    assert await code(face.http, begin, t="\0") == (200, "BAD_USER_INPUT")
    assert await code(face.http, begin, t='"' + "x" * 60) == (200, "BAD_USER_INPUT")


async def test_tasks_of_a_page_are_read_at_once(face: Face, monkeypatch: Any) -> None:
    workflow = await make(face)
    for _ in range(3):
        await ended(face, await start(face, workflow))
    read: list[int] = []
    entries = store.entries

    async def counted(connection: Any, account: Any, rows: Any, *rest: Any) -> Any:
        read.append(len(rows))
        return await entries(connection, account, rows, *rest)

    monkeypatch.setattr(store, "entries", counted)
    found = await ask(face.http, "{ workflowExecutions { workflowVersion taskExecutions { status } } }")
    assert [len(one["taskExecutions"]) for one in found["workflowExecutions"]] == [2, 2, 2]
    assert read == [3]


async def test_messages_keep_their_distance_and_the_last_one_is_told(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(subscriptions, "PACE", 1.0)
    run = await start(face, await make(face, [{"name": f"Task {n}"} for n in range(8)]))
    updates = "subscription ($id: ID!) { workflowExecutionUpdated(id: $id) { status taskExecutions { status } } }"
    _, told = await streamed(face, updates, id=run)
    states = [one[1]["data"]["workflowExecutionUpdated"] for one in told[:-1]]
    assert len(states) <= 3
    assert states[-1]["status"] == "COMPLETED"
    assert {one["status"] for one in states[-1]["taskExecutions"]} == {"COMPLETED"}


async def test_a_journal_that_is_followed_is_read_once(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(subscriptions, "PACE", 0.0)
    read: list[int] = []

    async def counted(*args: Any) -> Any:
        journals = await store.entries(*args)
        read.extend(entry.seq for entries in journals.values() for entry in entries)
        return journals

    monkeypatch.setattr(growing, "store", SimpleNamespace(entries=counted))
    naps = [
        {"name": f"Task {n}", "type": "wait", "config": {"duration": 60}, "dependencies": [f"task-{n - 1}"] * (n > 1)}
        for n in range(1, 6)
    ]
    run = await start(face, await make(face, naps))
    query = "subscription ($id: ID!) { taskExecutionUpdated(workflowExecutionId: $id) { taskDefinitionId status } }"
    _, told = await streamed(face, query, id=run)
    states = [one[1]["data"]["taskExecutionUpdated"] for one in told[:-1]]
    last = {one["taskDefinitionId"]: one["status"] for one in states}
    assert last == {f"task-{n}": "COMPLETED" for n in range(1, 6)}
    assert len(states) <= 10  # of each task that it waits, and that it is complete; no task because of another
    assert len(read) == len(set(read)) > 0
