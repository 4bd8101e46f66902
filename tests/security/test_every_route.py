"""Every route of the Cloudflare face: nobody without credentials, nothing across accounts or without the scope."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from tenants.policies import ACCOUNT_RESOURCE, PERMISSION_GROUPS
from tests.support.api import Tenant, client_of, new_tenant, outsider
from tests.support.databases import Databases
from tests.support.live import settings_for_tests
from tests.support.openapi import operations_of

DOCUMENT = {
    "spec": "workflow/1",
    "name": "w",
    "nodes": [{"id": "w", "type": "wait_for_event", "config": {"event": "e"}}],
}
PUBLIC = {"/healthz", "/readyz", "/openapi.yaml", "/openapi.json", "/hooks/{token}"}
# Whose the credential is: answered for every accepted credential, whatever its scopes.
ABOUT_THE_CREDENTIAL = {
    "/user",
    "/user/tokens/verify",
    "/accounts",
    "/accounts/{account_id}",
    "/memberships",
    "/accounts/{account_id}/tokens/verify",
}
BODIES: dict[str, Any] = {
    "putWorkflow": {"definition": DOCUMENT},
    "createInstances": [{}],
    "terminateInstances": ["i"],
    "deleteInstances": {"instances": ["i"]},
    "changeInstanceStatus": {"status": "pause"},
    "putSecret": {"name": "KEY", "text": "x"},
    "changeSecrets": {"secrets": {"KEY": None}},
    "putScriptSchedules": [],
    "putUsageModel": {"usage_model": "standard"},
    "putWorkersAccountSettings": {},
    "putEventTriggers": [],
    "addEventTriggers": [],
    "putSubdomain": {"subdomain": "x"},
}
UPLOADS = ("uploadScript", "uploadScriptVersion", "replaceScriptCode")
QUERIES = {"getInstanceStep": {"name": "w-1", "type": "waitForEvent"}}

OPERATIONS = [
    pytest.param(method, path, operation["operationId"], id=operation["operationId"])
    for (method, path), operation in operations_of(None).items()
    if path not in PUBLIC
]
IN_AN_ACCOUNT = [each for each in OPERATIONS if "{account_id}" in each.values[1]]
OF_OBJECTS = [
    each for each in IN_AN_ACCOUNT if any(name in each.values[1] for name in ("{workflow_name}", "{token_id}"))
]
SCOPED = [each for each in OPERATIONS if each.values[1] not in ABOUT_THE_CREDENTIAL]


@pytest.fixture(scope="module")
async def platform(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Platform]:
    """Shared: every test has accounts of its own."""
    async with settings_for_tests(databases, valkey) as settings, Platform(settings).opened() as platform:
        yield platform


@pytest.fixture(scope="module")
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(platform.settings, platform) as client:
        yield client


@pytest.fixture
async def owner(platform: Platform, http: httpx.AsyncClient) -> tuple[Tenant, dict[str, str]]:
    """An account with one of everything, and how a path names those."""
    tenant = await new_tenant(platform)
    root = f"{tenant.path}/workflows/w"
    made = await http.put(root, json={"definition": DOCUMENT}, headers=tenant.headers)
    await http.post(f"{root}/instances", json={"instance_id": "i"}, headers=tenant.headers)
    tokens = (await http.get(f"{tenant.path}/tokens", headers=tenant.headers)).json()["result"]
    names = {
        "account_id": tenant.hex,
        "workflow_name": "w",
        "instance_id": "i",
        "version_id": made.json()["result"]["version_id"],
        "event_type": "e",
        "event_name": "e",
        "script_name": "s",
        "secret_name": "KEY",
        "deployment_id": "00000000-0000-7000-8000-000000000000",
        "token_id": tokens[0]["id"],
    }
    return tenant, names


@pytest.fixture
async def script(http: httpx.AsyncClient, owner: tuple[Tenant, dict[str, str]]) -> tuple[Tenant, dict[str, str]]:
    """The account with a script that has a secret, and how a path names its version and deployment."""
    tenant, names = owner
    root = f"{tenant.path}/workers/scripts/s"
    metadata = {"main_module": "s.js", "bindings": [{"type": "secret_text", "name": "KEY", "text": "hidden"}]}
    files = {
        "metadata": (None, json.dumps(metadata)),
        "s.js": ("s.js", "export default {}", "application/javascript+module"),
    }
    made = await http.put(root, files=files, headers=tenant.headers)
    assert made.status_code == 200, made.text
    [deployment] = (await http.get(f"{root}/deployments", headers=tenant.headers)).json()["result"]["deployments"]
    version = deployment["versions"][0]["version_id"]
    return tenant, names | {"version_id": version, "deployment_id": deployment["id"]}


def body_of(operation: str, names: dict[str, str]) -> Any:
    """A body the operation would accept."""
    account_id = names["account_id"]
    if operation == "deployScriptVersion":
        return {"versions": [{"version_id": names["version_id"], "percentage": 100}]}
    if operation in ("createToken", "updateToken"):
        resources = {f"{ACCOUNT_RESOURCE}.{account_id}": "*"}
        groups = [{"id": PERMISSION_GROUPS[0].id}]
        return {"name": "t", "policies": [{"effect": "allow", "permission_groups": groups, "resources": resources}]}
    return BODIES.get(operation, {})


async def call(
    http: httpx.AsyncClient, method: str, path: str, operation: str, names: dict[str, str], headers: dict[str, str]
) -> httpx.Response:
    return await http.request(
        method,
        "/client/v4" + path.format(**names),
        params=QUERIES.get(operation, {}),
        json=body_of(operation, names) if method in ("PUT", "POST", "PATCH") else None,
        headers=headers,
    )


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
async def test_without_a_credential(
    http: httpx.AsyncClient, owner: tuple[Tenant, dict[str, str]], method: str, path: str, operation: str
) -> None:
    for headers in ({}, {"authorization": "Bearer sk_0000000000000000000000000000000000000000"}):
        answer = await call(http, method, path, operation, owner[1], headers)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, 10000)


@pytest.mark.parametrize(("method", "path", "operation"), IN_AN_ACCOUNT)
async def test_with_a_credential_of_another_account(
    http: httpx.AsyncClient,
    platform: Platform,
    owner: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    stranger = await new_tenant(platform)
    answer = await call(http, method, path, operation, owner[1], stranger.headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, 7003)


@pytest.mark.parametrize(("method", "path", "operation"), OF_OBJECTS)
async def test_objects_of_another_account_named_in_ones_own(
    http: httpx.AsyncClient,
    platform: Platform,
    owner: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    stranger = await new_tenant(platform)
    answer = await call(http, method, path, operation, owner[1] | {"account_id": stranger.hex}, stranger.headers)
    if operation == "putWorkflow":
        assert answer.status_code == 200  # a workflow of the stranger's own
    else:
        assert answer.status_code == 404
    untouched = await http.get(f"{owner[0].path}/workflows/w", headers=owner[0].headers)
    assert untouched.json()["result"]["instances"]["queued"] == 1


@pytest.mark.parametrize(("method", "path", "operation"), OF_OBJECTS)
async def test_objects_of_another_workspace(
    http: httpx.AsyncClient,
    platform: Platform,
    owner: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    """For a token that is restricted to another workspace they are not there; only their name is taken."""
    tenant, names = owner
    answer = await call(http, method, path, operation, names, (await outsider(platform, tenant.id)).headers)
    assert answer.status_code == (400 if operation == "putWorkflow" else 404), answer.text
    untouched = await http.get(f"{tenant.path}/workflows/w", headers=tenant.headers)
    assert untouched.json()["result"]["instances"]["queued"] == 1


async def test_lists_show_a_workspace_what_is_its(
    http: httpx.AsyncClient, platform: Platform, owner: tuple[Tenant, dict[str, str]]
) -> None:
    tenant, restricted = owner[0], await outsider(platform, owner[0].id)
    listed = await http.get(f"{tenant.path}/workflows", headers=restricted.headers)
    assert (listed.json()["result"], listed.json()["result_info"]["total_count"]) == ([], 0)
    [token] = (await http.get(f"{tenant.path}/tokens", headers=restricted.headers)).json()["result"]
    verified = await http.get(f"{tenant.path}/tokens/verify", headers=restricted.headers)
    assert token["id"] == verified.json()["result"]["id"]


@pytest.mark.parametrize(
    ("method", "path", "operation"), [each for each in IN_AN_ACCOUNT if "{script_name}" in each.values[1]]
)
async def test_scripts_of_another_account_named_in_ones_own(
    http: httpx.AsyncClient,
    platform: Platform,
    script: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    owner, names = script
    stranger = await new_tenant(platform)
    before = await everything_about(http, owner)
    answer = await call(http, method, path, operation, names | {"account_id": stranger.hex}, stranger.headers)
    # An upload is looked at first, and these bodies are none.
    assert answer.status_code == (400 if operation in UPLOADS else 404)
    assert await everything_about(http, owner) == before


@pytest.mark.parametrize(
    ("method", "path", "operation"), [each for each in IN_AN_ACCOUNT if "{script_name}" in each.values[1]]
)
async def test_scripts_of_another_workspace(
    http: httpx.AsyncClient,
    platform: Platform,
    script: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    """They are answered for as scripts that are nowhere."""
    owner, names = script
    restricted = await outsider(platform, owner.id)
    before = await everything_about(http, owner)
    answer = await call(http, method, path, operation, names, restricted.headers)
    unknown = await call(http, method, path, operation, names | {"script_name": "nowhere"}, restricted.headers)
    assert answer.status_code == (400 if operation in UPLOADS else 404)
    assert (answer.status_code, answer.json()["errors"]) == (unknown.status_code, unknown.json()["errors"])
    assert await everything_about(http, owner) == before


async def test_the_name_of_a_script_of_another_workspace_is_taken(
    http: httpx.AsyncClient, platform: Platform, script: tuple[Tenant, dict[str, str]]
) -> None:
    owner, _ = script
    restricted, before = await outsider(platform, owner.id), await everything_about(http, owner)
    root = f"{owner.path}/workers/scripts"
    files = {
        "metadata": (None, json.dumps({"main_module": "s.js", "keep_bindings": ["secret_text"]})),
        "s.js": ("s.js", "export default {}", "application/javascript+module"),
    }
    for method, path in (("PUT", "s"), ("POST", "s/versions")):
        answer = await http.request(method, f"{root}/{path}", files=files, headers=restricted.headers)
        [error] = answer.json()["errors"]
        said = "the name 's' is taken by a script of another workspace"
        assert (answer.status_code, error["code"], error["message"]) == (409, 10215, said)
    assert (await http.get(root, headers=restricted.headers)).json()["result"] == []
    made = {"script_name": "s", "class_name": "Flow"}
    answer = await http.put(f"{owner.path}/workflows/mine", json=made, headers=restricted.headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, 10007)
    assert await everything_about(http, owner) == before


async def everything_about(http: httpx.AsyncClient, owner: Tenant) -> list[Any]:
    """What there is to know about the owner's script."""
    root = f"{owner.path}/workers/scripts/s"
    paths = ("versions", "deployments", "secrets", "settings", "script-settings")
    return [(await http.get(f"{root}/{path}", headers=owner.headers)).json()["result"] for path in paths]


@pytest.mark.parametrize(("method", "path", "operation"), SCOPED)
async def test_without_the_scope(
    http: httpx.AsyncClient,
    platform: Platform,
    owner: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    weak = await new_tenant(platform, ["webhooks:read"], of=owner[0].id)
    answer = await call(http, method, path, operation, owner[1], weak.headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, 10000)


@pytest.mark.parametrize(
    ("method", "path", "operation"), [each for each in SCOPED if each.values[0] in ("PUT", "POST", "PATCH", "DELETE")]
)
async def test_readers_change_nothing(
    http: httpx.AsyncClient,
    platform: Platform,
    owner: tuple[Tenant, dict[str, str]],
    method: str,
    path: str,
    operation: str,
) -> None:
    scopes = ["workflows:read", "executions:read", "scripts:read", "tokens:read", "account:read", "webhooks:read"]
    reader = await new_tenant(platform, scopes, of=owner[0].id)
    answer = await call(http, method, path, operation, owner[1], reader.headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, 10000)


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
async def test_a_token_in_the_query_is_no_credential(
    http: httpx.AsyncClient, owner: tuple[Tenant, dict[str, str]], method: str, path: str, operation: str
) -> None:
    answer = await http.request(method, "/client/v4" + path.format(**owner[1]), params={"token": owner[0].token})
    assert answer.status_code == 401
