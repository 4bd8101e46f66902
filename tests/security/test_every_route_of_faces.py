"""Every route of the translated faces: nobody without credentials, nothing across accounts or without the scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from app.faces.registry import FACES
from tests.support import belongings
from tests.support.api import client_of, new_tenant, new_workspace, outsider
from tests.support.belongings import Belongings
from tests.support.databases import Databases
from tests.support.live import settings_for_tests
from tests.support.openapi import operations_of

GRAPHQL = ("graphqlQuery", "graphqlOperate")
"""Say no in the body of an answer (tests/conformance/orchestration/test_graphql.py)."""
WITHOUT_CREDENTIAL = {
    "jobsprintLogIn",
    "jobsprintRefresh",
    "medusaLogIn",
    "orchestrationLogIn",
    "orchestrationVersion",
    "orchestrationHealth",
}
ABOUT_THE_CREDENTIAL = {
    "medusaMe",
    "medusaOpenSession",
    "medusaEndSession",
    "medusaRefresh",
    "orchestrationStreamTicket",
}
"""Answered for every accepted credential, whatever its scopes."""
CHANGING_NOTHING = {"jobsprintValidateWorkflow"}
TASKS = [{"name": "First"}]
NODE = {"id": "a", "type": "set", "name": "a", "parameters": {"values": {"n": 1}}}
DEFINITION = {"nodes": [NODE], "connections": []}
ACTIONS = [{"type": "set", "config": {"values": {"n": 1}}}]
STEP = {"transaction_id": "i", "step_id": "w", "action": "invoke"}
BODIES: dict[str, Any] = {
    "jobsprintCreateWorkflow": {"name": "x", "definition": DEFINITION},
    "jobsprintValidateWorkflow": {"name": "x", "definition": DEFINITION},
    "jobsprintUpdateWorkflow": {"name": "x"},
    "jobsprintDuplicateWorkflow": {"name": "x"},
    "orchestrationCreateDefinition": {"name": "x", "tasks": TASKS},
    "orchestrationUpdateDefinition": {"name": "x"},
    "orchestrationCreateWebhook": belongings.HOOK,
    "orchestrationUpdateWebhook": {"active": False},
    "orchestrationTestWebhook": {"url": "http://127.0.0.1/", "event": "test", "payload": {}},
    "orchestrationFailTask": {"error": {"message": "no"}},
    "medusaStepSuccess": STEP,
    "medusaStepFailure": STEP,
    "workspacesCreateWorkflow": {"name": "x", "actions": ACTIONS},
    "workspacesUpdateWorkflow": {"name": "x"},
    "workspacesUpdateNotification": {"read": True},
    "workspacesUpdateTask": {"status": "DONE"},
    "workspacesCancelExecution": {"action": "cancel"},
}
OPERATIONS = [
    pytest.param(method, path, operation["operationId"], id=operation["operationId"])
    for face in FACES
    for (method, path), operation in operations_of(face.name).items()
    if operation["operationId"] not in GRAPHQL
]
PROTECTED = [each for each in OPERATIONS if each.id not in WITHOUT_CREDENTIAL]
SCOPED = [each for each in PROTECTED if each.id not in ABOUT_THE_CREDENTIAL]
NAMING = [each for each in SCOPED if "{" in str(each.values[1]) or each.id == "orchestrationStartExecution"]
IN_A_WORKSPACE = "{slug}"


@pytest.fixture(scope="module")
async def platform(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Platform]:
    async with settings_for_tests(databases, valkey, run_wait=0) as settings, Platform(settings).opened() as platform:
        yield platform


@pytest.fixture(scope="module")
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(platform.settings, platform) as client:
        yield client


@pytest.fixture(scope="module")
async def owner(platform: Platform, http: httpx.AsyncClient) -> Belongings:
    """Everybody tries to get at what is here; nobody does."""
    return await belongings.make(platform, http)


async def call(
    http: httpx.AsyncClient,
    route: tuple[str, str, str],
    names: dict[str, str],
    headers: dict[str, str],
    **query: str,
) -> httpx.Response:
    method, path, operation = route
    body = BODIES.get(operation, {})
    if operation == "orchestrationStartExecution":
        body = {"workflowDefinitionId": names["workflow_id"]}
    sends = method in ("PUT", "POST", "PATCH")
    return await http.request(method, path.format(**names), params=query, json=body if sends else None, headers=headers)


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status of a refusal, and what the face calls it."""
    body = answer.json()
    path = answer.request.url.path
    if path.startswith("/v1/"):
        assert body["success"] is False
        return answer.status_code, body["error"]["code"]
    if path.startswith(("/admin/", "/auth/")):
        assert body["message"]
        return answer.status_code, body["type"]
    if path.startswith("/api/workspaces/"):
        assert body["error"]
        return answer.status_code, "error"
    return answer.status_code, body["code"]


UNAUTHENTICATED = {"UNAUTHORIZED", "UNAUTHENTICATED", "AUTHENTICATION_ERROR", "unauthorized", "error"}
FORBIDDEN = {"FORBIDDEN", "AUTHORIZATION_ERROR", "forbidden", "not_allowed", "error"}
NOT_FOUND = {"NOT_FOUND", "not_found", "error"}


async def everything(http: httpx.AsyncClient, owner: Belongings) -> list[Any]:
    """What there is to know about what the owner has."""
    paths = ["/api/workflows", "/api/executions", "/api/webhooks", "/v1/executions"]
    paths += [f"{belongings.WORKSPACE}/{what}" for what in ("notifications", "tasks", "workflows")]
    answers = [(await http.get(path, headers=owner.tenant.headers)).json() for path in paths]
    answers[3].pop("meta")
    return answers


@pytest.mark.parametrize(("method", "path", "operation"), PROTECTED)
async def test_without_a_credential(
    http: httpx.AsyncClient, owner: Belongings, method: str, path: str, operation: str
) -> None:
    for headers in (
        {},
        {"authorization": "Bearer sk_0000000000000000000000000000000000000000"},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"cookie": "connect.sid=x"},
    ):
        answer = await call(http, (method, path, operation), owner.names(path), headers)
        status, code = refused(answer)
        assert (status, code in UNAUTHENTICATED) == (401, True), (headers, answer.text)


@pytest.mark.parametrize(("method", "path", "operation"), NAMING)
async def test_with_a_credential_of_another_account(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, method: str, path: str, operation: str
) -> None:
    """Numbers and names are each account's own: the stranger has none, so whatever is found is the owner's."""
    stranger = await new_tenant(platform)
    before = await everything(http, owner)
    answer = await call(http, (method, path, operation), owner.names(path), stranger.headers)
    ids = path.replace(IN_A_WORKSPACE, "")
    if "{" not in ids and operation != "orchestrationStartExecution":
        assert answer.status_code == 200  # everybody has a workspace of this name
    else:
        status, code = refused(answer)
        assert (status, code in NOT_FOUND) == (404, True), answer.text
    assert await everything(http, owner) == before


@pytest.mark.parametrize(("method", "path", "operation"), NAMING)
async def test_with_a_credential_for_another_workspace(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, method: str, path: str, operation: str
) -> None:
    """What is in one workspace is not there for a token that is restricted to another, by whichever slug."""
    workspace = await new_workspace(platform, owner.tenant.id)
    restricted = await new_tenant(platform, of=owner.tenant.id, workspace=workspace.id)
    before = await everything(http, owner)
    answers = [await call(http, (method, path, operation), owner.names(path), restricted.headers)]
    if "{" in path.replace(IN_A_WORKSPACE, "") and IN_A_WORKSPACE in path:
        names = owner.names(path) | {"slug": workspace.slug}
        answers.append(await call(http, (method, path, operation), names, restricted.headers))
    for answer in answers:
        status, code = refused(answer)
        assert (status, code in NOT_FOUND) == (404, True), answer.text
    assert await everything(http, owner) == before


LISTS = [
    each
    for each in SCOPED
    if each.values[0] == "GET" and "{" not in str(each.values[1]).replace(IN_A_WORKSPACE, "") and each.id not in GRAPHQL
]


@pytest.mark.parametrize(("method", "path", "operation"), LISTS)
async def test_lists_and_figures_are_of_the_workspace(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, method: str, path: str, operation: str
) -> None:
    """A token of the workspace sees what is seen without a restriction; one of another sees nothing."""
    there, elsewhere = (
        await platform.tenants.workspaces.get(owner.tenant.id, "default"),
        await new_workspace(platform, owner.tenant.id),
    )
    told: list[Any] = []
    for workspace in (None, there, elsewhere):
        id, slug = (None, "default") if workspace is None else (workspace.id, workspace.slug)
        token = await new_tenant(platform, of=owner.tenant.id, workspace=id)
        answer = await call(http, (method, path, operation), {"slug": slug}, token.headers)
        assert answer.status_code == 200, answer.text
        told.append(answer.json())
        told[-1].pop("meta", None) if isinstance(told[-1], dict) else None
    if operation == "orchestrationListWebhooks":
        assert told[1] == []  # this one hears of all workspaces
    else:
        assert told[0] == told[1]
    assert not figures(told[2]), told[2]
    assert figures(told[0]) or operation == "jobsprintMetrics"  # nothing has ended yet


def figures(told: Any) -> list[Any]:
    """What a list or a figure tells of: items, and counts of at least 1; not the window it looks through."""
    if isinstance(told, dict):
        return [found for key, value in told.items() if key not in ABOUT_THE_PAGE for found in figures(value)]
    if isinstance(told, list):
        return [found for value in told for found in figures(value)]
    return [told] if told and not isinstance(told, bool) else []


ABOUT_THE_PAGE = {"limit", "offset", "success", "timestamp", "period", "granularity", "pagination"}


MAKING: dict[str, tuple[str, str, Any]] = {
    "cloudflare": ("PUT", "/client/v4/accounts/{account}/workflows/made", {"definition": belongings.DOCUMENT}),
    "jobsprint": ("POST", "/v1/workflows", {"name": "made", "definition": DEFINITION}),
    "orchestration": ("POST", "/api/workflows", {"name": "made", "tasks": TASKS}),
    "workspaces": ("POST", "/api/workspaces/{slug}/workflows", {"name": "made", "actions": ACTIONS}),
    "graphql": ("POST", "/graphql", {"query": 'mutation { createWorkflowDefinition(input: {name: "made"}) { id } }'}),
}


@pytest.mark.parametrize("face", MAKING)
async def test_what_is_made_is_in_the_workspace(http: httpx.AsyncClient, platform: Platform, face: str) -> None:
    """A workflow that a restricted token makes, and an execution of it, are seen there and nowhere else."""
    account = (await new_tenant(platform)).id
    workspace = await new_workspace(platform, account)
    maker = await new_tenant(platform, of=account, workspace=workspace.id)
    method, path, body = MAKING[face]
    url = path.format(account=maker.hex, slug=workspace.slug)
    made = await http.request(method, url, json=body, headers=maker.headers)
    assert made.status_code in (200, 201) and "errors" not in (made.json() if face == "graphql" else {}), made.text
    started = await http.post("/api/executions", json={"workflowDefinitionId": "made"}, headers=maker.headers)
    assert started.status_code == 201, started.text
    everywhere, other = await new_tenant(platform, of=account), await outsider(platform, account)
    for token, seen in ((maker, 1), (everywhere, 1), (other, 0)):
        for where in ("/api/workflows", "/api/executions"):
            assert len((await http.get(where, headers=token.headers)).json()) == seen, (token, where)


@pytest.mark.parametrize(("method", "path", "operation"), SCOPED)
async def test_without_the_scope(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, method: str, path: str, operation: str
) -> None:
    scope = "scripts:read" if "/webhooks" in path else "webhooks:read"
    weak = await new_tenant(platform, [scope], of=owner.tenant.id)
    before = await everything(http, owner)
    answer = await call(http, (method, path, operation), owner.names(path), weak.headers)
    status, code = refused(answer)
    assert (status, code in FORBIDDEN) == (403, True), answer.text
    assert await everything(http, owner) == before


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [each for each in SCOPED if each.values[0] != "GET" and each.id not in CHANGING_NOTHING],
)
async def test_readers_change_nothing(
    http: httpx.AsyncClient, platform: Platform, owner: Belongings, method: str, path: str, operation: str
) -> None:
    scopes = ["workflows:read", "executions:read", "scripts:read", "tokens:read", "account:read", "webhooks:read"]
    reader = await new_tenant(platform, scopes, of=owner.tenant.id)
    before = await everything(http, owner)
    answer = await call(http, (method, path, operation), owner.names(path), reader.headers)
    status, code = refused(answer)
    assert (status, code in FORBIDDEN) == (403, True), answer.text
    assert await everything(http, owner) == before


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
async def test_a_token_in_the_query_is_no_credential(
    http: httpx.AsyncClient, owner: Belongings, method: str, path: str, operation: str
) -> None:
    for query in ({"token": owner.tenant.token}, {"ticket": owner.tenant.token}, {owner.tenant.token: ""}):
        answer = await call(http, (method, path, operation), owner.names(path), {}, **query)
        status, code = refused(answer)
        assert (status, code in UNAUTHENTICATED) == (401, True), answer.text
