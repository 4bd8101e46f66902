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
from tests.support.api import client_of, new_tenant
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
