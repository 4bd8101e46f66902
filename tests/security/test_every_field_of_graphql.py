"""Every query, mutation and subscription of the graph: nobody without credentials, nothing across accounts or without
the scope; over HTTP, and over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import websockets
from graphql import GraphQLObjectType, get_named_type

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from app.faces.orchestration.graphql.api import SCHEMA
from tenants.auth import ROLE_SCOPES, expand
from tests.support import belongings
from tests.support.api import new_tenant, outsider
from tests.support.belongings import Belongings
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests

DEFINITIONS, EXECUTIONS, HOOKS = "workflows:read", "executions:read", "webhooks:read"
EDIT, RETIRE, DRIVE, REMOVE, CONNECT = (
    "workflows:write",
    "workflows:delete",
    "executions:write",
    "executions:delete",
    "webhooks:write",
)
NOBODY: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer sk_0000000000000000000000000000000000000000"},
    {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
    {"cookie": "connect.sid=x"},
]
JSON = "application/graphql-response+json"
PROTOCOL: Any = "graphql-transport-ws"
PATIENCE = 20.0


@dataclass(frozen=True)
class Root:
    """How a root field is asked. `%(name)s` in `arguments` is an id of the owner; `scope` is what it needs."""

    scope: str | None
    arguments: str = ""
    of_a_stranger: Any = "NOT_FOUND"
    """What somebody of another account is told: a code, or the data. None: nothing is named, so it is not asked."""


HOOK = 'input: {url: "https://hooks.invalid/in", events: ["*"]}'
PROBE = 'input: {url: "http://127.0.0.1/", event: "test", payload: {}}'
ROOTS: dict[str, dict[str, Root]] = {
    "query": {
        "me": Root(None, "", None),
        "workflowDefinition": Root(DEFINITIONS, "id: %(workflow)s", {"found": None}),
        "workflowDefinitions": Root(DEFINITIONS, "", {"found": []}),
        "workflowDefinitionCount": Root(DEFINITIONS, "", {"found": 0}),
        "workflowExecution": Root(EXECUTIONS, "id: %(execution)s", {"found": None}),
        "workflowExecutions": Root(EXECUTIONS, "workflowDefinitionId: %(workflow)s", {"found": []}),
        "workflowExecutionCount": Root(EXECUTIONS, "workflowDefinitionId: %(workflow)s", {"found": 0}),
        "taskExecution": Root(EXECUTIONS, "id: %(task)s", {"found": None}),
        "taskExecutions": Root(EXECUTIONS, "workflowExecutionId: %(execution)s", {"found": []}),
        "progressReport": Root(EXECUTIONS, "workflowExecutionId: %(execution)s", {"found": None}),
        "webhookRegistration": Root(HOOKS, "id: %(hook)s", {"found": None}),
        "webhookRegistrations": Root(HOOKS, "", {"found": []}),
    },
    "mutation": {
        "createWorkflowDefinition": Root(EDIT, 'input: {name: "x"}', None),
        "updateWorkflowDefinition": Root(EDIT, 'id: %(workflow)s, input: {name: "x"}'),
        "deleteWorkflowDefinition": Root(RETIRE, "id: %(workflow)s"),
        "startWorkflowExecution": Root(DRIVE, "input: {workflowDefinitionId: %(workflow)s}"),
        "cancelWorkflowExecution": Root(DRIVE, "id: %(execution)s"),
        "pauseWorkflowExecution": Root(DRIVE, "id: %(execution)s"),
        "resumeWorkflowExecution": Root(DRIVE, "id: %(execution)s"),
        "retryWorkflowExecution": Root(DRIVE, "id: %(execution)s"),
        "deleteWorkflowExecution": Root(REMOVE, "id: %(execution)s"),
        "retryTaskExecution": Root(DRIVE, "id: %(task)s"),
        "completeTaskExecution": Root(DRIVE, "id: %(task)s"),
        "failTaskExecution": Root(DRIVE, 'id: %(task)s, error: "no"'),
        "registerWebhook": Root(CONNECT, HOOK, None),
        "updateWebhook": Root(CONNECT, "id: %(hook)s, input: {active: false}"),
        "deleteWebhook": Root(CONNECT, "id: %(hook)s"),
        "rotateWebhookSecret": Root(CONNECT, "id: %(hook)s"),
        "testWebhook": Root(CONNECT, PROBE, None),
        "redeliverWebhook": Root(CONNECT, "deliveryId: %(delivery)s"),
    },
    "subscription": {
        "workflowExecutionUpdated": Root(EXECUTIONS, "id: %(execution)s"),
        "taskExecutionUpdated": Root(EXECUTIONS, "workflowExecutionId: %(execution)s"),
        "progressReportUpdated": Root(EXECUTIONS, "workflowExecutionId: %(execution)s"),
    },
}
BELOW: dict[str, tuple[str, str, str]] = {
    "WorkflowDefinition.versions": (DEFINITIONS, "workflowDefinitions", "versions { version }"),
    "WorkflowDefinition.executions": (DEFINITIONS, "workflowDefinitions", "executions { id }"),
    "WorkflowExecution.workflowDefinition": (EXECUTIONS, "workflowExecutions", "workflowDefinition { id }"),
    "WorkflowExecution.logs": (EXECUTIONS, "workflowExecutions", "logs { message }"),
    "WorkflowExecution.progress": (EXECUTIONS, "workflowExecutions", "progress { id }"),
    "WebhookRegistration.deliveries": (HOOKS, "webhookRegistrations", "deliveries { id }"),
}
"""Fields that look further than their object: the scope and the root field one comes to them with, and how."""
NEEDS_MORE = {"WorkflowDefinition.executions": EXECUTIONS, "WorkflowExecution.workflowDefinition": DEFINITIONS}
EACH = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, fields in ROOTS.items() for name in fields]
SCOPED = [each for each in EACH if ROOTS[str(each.values[0])][str(each.values[1])].scope]
FOREIGN = [each for each in EACH if ROOTS[str(each.values[0])][str(each.values[1])].of_a_stranger is not None]


def test_every_field_of_the_schema_is_listed() -> None:
    kinds = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
    assert {kind: list(fields) for kind, fields in ROOTS.items()} == {
        kind: list(known.fields) for kind, known in kinds.items() if known
    }


def test_every_field_with_arguments_is_listed() -> None:
    """What takes arguments looks something up; so does what leads to an object of another kind that has an id."""
    roots = {SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.subscription_type}
    types = [each for each in SCHEMA.type_map.values() if isinstance(each, GraphQLObjectType) and each not in roots]
    found = {
        f"{each.name}.{name}"
        for each in types
        for name, field in each.fields.items()
        if not each.name.startswith("__") and (field.args or get_named_type(field.type).name in _LOOKED_UP)
    }
    assert found == BELOW.keys()


_LOOKED_UP = {"WorkflowDefinition", "WorkflowExecution", "ProgressReport", "WebhookRegistration"}


@pytest.fixture(scope="module")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    async with live_for_tests(databases, valkey, workers=0) as running:
        yield running


@pytest.fixture(scope="module")
def platform(server: Live) -> Platform:
    return server.platform


@pytest.fixture(scope="module")
async def http(server: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
async def owner(platform: Platform, http: httpx.AsyncClient) -> Belongings:
    """Everybody tries to get at what is here; nobody does."""
    return await belongings.make(platform, http)


def document(owner: Belongings, kind: str, name: str) -> str:
    """One operation with one root field, called `found` in the answer."""
    root = ROOTS[kind][name]
    types = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
    known = types[kind]
    assert known is not None
    ids = {key: json.dumps(getattr(owner, key)) for key in ("workflow", "execution", "task", "hook", "delivery")}
    arguments = f"({root.arguments % ids})" if root.arguments else ""
    inside = " { __typename }" if isinstance(get_named_type(known.fields[name].type), GraphQLObjectType) else ""
    return f"{kind} {{ found: {name}{arguments}{inside} }}"


async def by_http(http: httpx.AsyncClient, text: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The answer; of a subscription the first message of the stream."""
    if not text.startswith("subscription"):
        answer = await http.post("/graphql", json={"query": text}, headers={"accept": JSON, **headers})
        return answer.json() | {"status": answer.status_code}
    stream = http.stream(
        "POST", "/graphql", json={"query": text}, headers={"accept": f"text/event-stream, {JSON}", **headers}
    )
    async with asyncio.timeout(PATIENCE), stream as answer:
        if answer.status_code != 200:
            return json.loads(await answer.aread()) | {"status": answer.status_code}
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: ")) | {"status": 200}
    raise AssertionError("the stream ended without a message")


async def by_socket(http: httpx.AsyncClient, text: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The first message about the operation."""
    url = str(http.base_url).replace("http", "ws", 1).rstrip("/") + "/graphql"
    async with asyncio.timeout(PATIENCE), websockets.connect(url, subprotocols=[PROTOCOL], proxy=None) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": dict(headers)}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": text}}))
        message = json.loads(await socket.recv())
    told = message["payload"]
    return {"errors": told} if message["type"] == "error" else told


def code(answer: Mapping[str, Any]) -> str:
    """What the answer says no with, and nothing else."""
    [error] = answer["errors"]
    assert not any((answer.get("data") or {}).values())
    assert error["message"] and error["extensions"]["requestId"]
    return error["extensions"]["code"]


async def everything(http: httpx.AsyncClient, owner: Belongings) -> list[Any]:
    """What there is to know about what the owner has."""
    deliveries = f"/api/webhooks/{owner.hook}/deliveries"
    paths = [
        "/api/workflows",
        "/api/executions",
        f"/api/executions/{owner.execution}/tasks",
        "/api/webhooks",
        deliveries,
    ]
    return [(await http.get(path, headers=owner.tenant.headers)).json() for path in paths]


@pytest.mark.parametrize(("kind", "name"), EACH)
async def test_without_a_credential(http: httpx.AsyncClient, owner: Belongings, kind: str, name: str) -> None:
    text = document(owner, kind, name)
    before = await everything(http, owner)
    for headers in NOBODY:
        answer = await by_http(http, text, headers)
        told = answer.get("code") or code(answer)  # a stream that cannot begin is refused as by REST
        assert (answer["status"], told) == (401, "UNAUTHENTICATED"), (headers, answer)
    assert await everything(http, owner) == before


@pytest.mark.parametrize("headers", NOBODY, ids=["none", "token", "jwt", "cookie"])
async def test_no_socket_without_a_credential(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """What is asked before somebody is recognised, and what nobody asks, closes the socket: no field is looked at."""
    url = str(http.base_url).replace("http", "ws", 1).rstrip("/") + "/graphql"
    first = {"type": "connection_init", "payload": headers}
    early = {"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }"}}
    for message, closed_with in ((first, 4403), (early, 4401)):
        connect = websockets.connect(url, subprotocols=[PROTOCOL], proxy=None, additional_headers=headers)
        async with asyncio.timeout(PATIENCE), connect as socket:
            await socket.send(json.dumps(message))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == closed_with


@pytest.mark.parametrize("ask", [by_http, by_socket], ids=["http", "socket"])
@pytest.mark.parametrize("elsewhere", ["account", "workspace"])
@pytest.mark.parametrize(("kind", "name"), FOREIGN)
async def test_with_a_credential_of_another(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, kind: str, name: str, elsewhere: str, ask: Any
) -> None:
    """A token that is restricted to another workspace gets to no more than somebody of another account."""
    stranger = await (new_tenant(platform) if elsewhere == "account" else outsider(platform, owner.tenant.id))
    before = await everything(http, owner)
    answer = await ask(http, document(owner, kind, name), stranger.headers)
    expected = ROOTS[kind][name].of_a_stranger
    assert (code(answer) if isinstance(expected, str) else answer.get("data")) == expected, answer
    assert await everything(http, owner) == before


@pytest.mark.parametrize("ask", [by_http, by_socket], ids=["http", "socket"])
@pytest.mark.parametrize(("kind", "name"), SCOPED)
async def test_without_the_scope(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, kind: str, name: str, ask: Any
) -> None:
    """Everything else one may do does not help."""
    needed = ROOTS[kind][name].scope
    others = {DEFINITIONS, EXECUTIONS, HOOKS, EDIT, RETIRE, DRIVE, REMOVE, CONNECT, "scripts:write", "tokens:write"}
    others -= {str(needed)}
    if str(needed).endswith(":read"):
        others = {each for each in others if each.partition(":")[0] != str(needed).partition(":")[0]}
    weak = await new_tenant(platform, sorted(others), of=owner.tenant.id)
    before = await everything(http, owner)
    answer = await ask(http, document(owner, kind, name), weak.headers)
    assert code(answer) == "FORBIDDEN", answer
    assert await everything(http, owner) == before


@pytest.mark.parametrize("role", [role for role in ROLE_SCOPES if role != "admin"])
@pytest.mark.parametrize(("kind", "name"), SCOPED)
async def test_what_a_role_may_not(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, kind: str, name: str, role: str
) -> None:
    if ROOTS[kind][name].scope in expand(ROLE_SCOPES[role]):
        return  # it may; that this works is shown where the operation is tested
    weak = await new_tenant(platform, sorted(ROLE_SCOPES[role]), of=owner.tenant.id)
    before = await everything(http, owner)
    assert code(await by_http(http, document(owner, kind, name), weak.headers)) == "FORBIDDEN"
    assert await everything(http, owner) == before


@pytest.mark.parametrize("field", list(BELOW))
async def test_fields_that_look_further(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, field: str
) -> None:
    """With the scope that leads to them they tell only what that scope is for; with a stranger's they tell nothing."""
    scope, root, inside = BELOW[field]
    text = f"{{ found: {root} {{ id {inside} }} }}"
    weak = await new_tenant(platform, [scope], of=owner.tenant.id)
    for stranger in (await new_tenant(platform), await outsider(platform, owner.tenant.id)):
        assert (await by_http(http, text, stranger.headers))["data"] == {"found": []}
    assert (await by_http(http, text, owner.tenant.headers))["data"]["found"]
    answer = await by_http(http, text, weak.headers)
    if field in NEEDS_MORE:
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}
    else:
        assert answer["data"]["found"] and "errors" not in answer
