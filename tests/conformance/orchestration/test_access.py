"""Who may do what in the orchestration face, in which version, and how it says no."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tests.conformance.conftest import Face, client
from tests.support.api import new_tenant

TASKS = [{"name": "First"}, {"name": "Second", "type": "external", "dependencies": ["task-1"]}]
PASSWORD = "correct horse battery"
VENDOR = "application/vnd.workflow-orchestration.{}+json"


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def running(face: Face) -> dict[str, Any]:
    """An execution whose second task waits to be completed."""
    definition = (await face.http.post("/api/workflows", json={"name": "flow", "tasks": TASKS})).json()
    made = (await face.http.post("/api/executions", json={"workflowDefinitionId": definition["id"]})).json()
    ask = lambda: face.http.get(f"/api/executions/{made['id']}")  # noqa: E731
    return await face.when(ask, lambda body: body["status"] == "WAITING")


def routes_of(execution: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Every route that names an object, for this execution."""
    definition, id, task = (
        execution["workflowDefinitionId"],
        execution["id"],
        execution["taskExecutions"][1]["id"],
    )
    return [
        ("GET", f"/api/workflows/{definition}", None),
        ("PUT", f"/api/workflows/{definition}", {"name": "mine"}),
        ("DELETE", f"/api/workflows/{definition}", None),
        ("POST", "/api/executions", {"workflowDefinitionId": definition}),
        ("GET", f"/api/executions/{id}", None),
        ("DELETE", f"/api/executions/{id}", None),
        ("GET", f"/api/executions/{id}/tasks", None),
        ("GET", f"/api/executions/{id}/progress", None),
        ("GET", f"/api/executions/{id}/logs", None),
        *(("POST", f"/api/executions/{id}/{verb}", None) for verb in ("cancel", "pause", "resume", "retry")),
        ("GET", f"/api/tasks/{task}", None),
        *(("POST", f"/api/tasks/{task}/{verb}", None) for verb in ("retry", "complete", "fail")),
    ]


async def send(http: httpx.AsyncClient, route: tuple[str, str, Any]) -> httpx.Response:
    method, path, body = route
    return await http.request(method, path, **({} if body is None else {"json": body}))


# --- credentials -------------------------------------------------------------------------------------------------


async def test_logging_in(face: Face) -> None:
    boss, tenants = operator(face.tenant.id), face.server.platform.tenants
    user = await tenants.users.create(boss, f"ada-{face.tenant.hex}", role="operator", password=PASSWORD)
    async with client(face.server, None) as http:
        answer = await http.post("/api/auth/login", json={"username": user.name, "password": PASSWORD})
        told = answer.json()
        assert (answer.status_code, told["tokenType"], told["expiresIn"]) == (200, "Bearer", 3600)
        payload = told["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert claims.items() >= {"id": user.id.hex, "username": user.name, "role": "operator"}.items()
        assert claims["exp"] - claims["iat"] == 3600
        assert {"sub", "account_id", "jti"} <= claims.keys()
        bearer = {"authorization": f"Bearer {told['token']}"}
        assert (await http.get("/api/workflows", headers=bearer)).json() == []
        answer = await http.post("/api/workflows", json={"name": "x"}, headers=bearer)
        assert problem(answer) == (403, "FORBIDDEN", "Insufficient permissions")
        for wrong in ({"username": user.name, "password": "x"}, {"username": "nobody", "password": PASSWORD}):
            assert problem(await http.post("/api/auth/login", json=wrong)) == (
                401,
                "UNAUTHENTICATED",
                "Invalid credentials",
            )
        for missing, field in (({"username": "x"}, "/password"), ({"password": "x"}, "/username")):
            answer = await http.post("/api/auth/login", json=missing)
            assert (problem(answer)[:2], answer.json()["errors"][0]["path"]) == ((400, "BAD_REQUEST"), field)
        elsewhere = {"username": user.name, "password": PASSWORD, "account": face.tenant.hex}
        assert (await http.post("/api/auth/login", json=elsewhere)).status_code == 200


async def test_logins_are_limited(face: Face) -> None:
    async with client(face.server, None) as http:
        body = {"username": f"eve-{face.tenant.hex}", "password": "guess"}
        answers = [await http.post("/api/auth/login", json=body) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    told = answers[-1].json()
    assert (told["code"], 1 <= told["retryAfter"] <= 6) == ("RATE_LIMITED", True)  # minutes
    assert told["retryAfter"] * 60 - 60 < int(answers[-1].headers["retry-after"]) <= told["retryAfter"] * 60


async def test_without_a_credential(face: Face) -> None:
    execution = await running(face)
    routes = [
        *routes_of(execution),
        ("GET", "/api/workflows", None),
        ("POST", "/api/workflows", {}),
        ("GET", "/api/executions", None),
        ("POST", "/api/auth/stream-ticket", None),
    ]
    async with client(face.server, None) as http:
        for route in routes:
            answer = await send(http, route)
            assert problem(answer) == (401, "UNAUTHENTICATED", "Authentication required"), route
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = await http.get("/api/workflows", headers={"authorization": "Bearer nonsense"})
        assert problem(answer) == (401, "UNAUTHENTICATED", "Invalid or expired token")
        assert (await http.get("/api/health")).json() == {"status": "ok"}
        assert (await http.get("/api/version")).json()["supportedVersions"] == ["v1", "v2"]


async def test_nobody_reaches_another_account(face: Face, stranger: httpx.AsyncClient) -> None:
    execution = await running(face)
    for route in routes_of(execution):
        answer = await send(stranger, route)
        assert problem(answer)[:2] == (404, "NOT_FOUND"), route
    assert (await stranger.get("/api/workflows")).json() == []
    assert (await stranger.get("/api/executions")).json() == []
    assert (await face.http.get(f"/api/executions/{execution['id']}")).json() == execution


async def test_viewers_only_read(face: Face) -> None:
    execution = await running(face)
    viewer = await new_tenant(face.server.platform, ["workflows:read", "executions:read"], of=face.tenant.id)
    async with client(face.server, viewer) as http:
        for route in routes_of(execution):
            answer = await send(http, route)
            if route[0] == "GET":
                assert answer.status_code == 200, route
            else:
                assert problem(answer) == (403, "FORBIDDEN", "Insufficient permissions"), route
    nothing = await new_tenant(face.server.platform, ["webhooks:read"], of=face.tenant.id)
    async with client(face.server, nothing) as http:
        for route in routes_of(execution):
            assert problem(await send(http, route))[:2] == (403, "FORBIDDEN"), route


async def test_a_ticket_opens_one_path(face: Face) -> None:
    answer = await face.http.post("/api/auth/stream-ticket")
    assert (answer.status_code, answer.json()["expiresIn"], bool(answer.json()["ticket"])) == (200, 60, True)
    answer = await face.http.post("/api/auth/stream-ticket", json={"path": "nowhere"})
    assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_limits_are_shown_and_kept(face: Face) -> None:
    answer = await face.http.get("/api/workflows")
    assert "ratelimit-limit" not in answer.headers
    await face.server.platform.tenants.accounts.set_limits(operator(face.tenant.id), changes={"requests_per_minute": 2})
    async with client(face.server, await new_tenant(face.server.platform, of=face.tenant.id)) as http:
        answers = [await http.get("/api/workflows") for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code == 429]
    allowed = [answer for answer in answers if answer.status_code == 200]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"2"}
    assert allowed[0].headers["ratelimit-remaining"] == "1"
    assert all(0 < int(answer.headers["ratelimit-reset"]) <= 60 for answer in answers)
    assert problem(refused[0])[1] == "RATE_LIMITED"
    assert (refused[0].json()["retryAfter"], 0 < int(refused[0].headers["retry-after"]) <= 60) == (1, True)


# --- refusals ----------------------------------------------------------------------------------------------------


async def test_refusals_before_any_handler(face: Face) -> None:
    http = httpx.AsyncClient(base_url=face.server.base_url, headers=face.tenant.headers, trust_env=False)
    async with http:
        for path in ("/api", "/api/nothing", "/api/workflows/1/nothing", "/api/workflows/a%2Fb"):
            answer = await http.get(path)
            assert problem(answer) == (404, "NOT_FOUND", "Not found"), path
            assert (answer.headers["api-version"], answer.headers["vary"]) == ("1", "Accept")
        answer = await http.patch("/api/workflows/1", json={})
        assert problem(answer) == (405, "METHOD_NOT_ALLOWED", "Method not allowed")
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}
        answer = await http.post("/api/workflows", content=b"<x/>", headers={"content-type": "application/xml"})
        assert problem(answer)[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")
        answer = await http.post("/api/workflows", json={"name": "x" * (1 << 20)})
        assert problem(answer)[:2] == (413, "PAYLOAD_TOO_LARGE")
        deep = b'{"name": "x", "tasks": ' + b"[" * 70 + b"]" * 70 + b"}"
        answer = await http.post("/api/workflows", content=deep, headers={"content-type": "application/json"})
        assert problem(answer)[:2] == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "id", ["0", "x", "9" * 19, "9" * 40, "-1", "1.0", "%00", "wf_x", "00000000-0000-0000-0000-000000000000"]
)
async def test_ids_that_name_nothing(face: Face, id: str) -> None:
    async with httpx.AsyncClient(base_url=face.server.base_url, headers=face.tenant.headers, trust_env=False) as http:
        for path in (
            f"/api/workflows/{id}",
            f"/api/executions/{id}",
            f"/api/executions/{id}/tasks",
            f"/api/tasks/{id}",
        ):
            assert problem(await http.get(path))[:2] == (404, "NOT_FOUND"), path


# --- versions ----------------------------------------------------------------------------------------------------


async def test_versions_in_the_url(face: Face) -> None:
    for prefix, version in (("/api", "1"), ("/api/v1", "1"), ("/api/v2", "2")):
        answer = await face.http.get(f"{prefix}/workflows")
        assert (answer.status_code, answer.headers["api-version"], answer.headers["vary"]) == (200, version, "Accept")
        assert answer.headers["content-type"] == "application/json"
        made = await face.http.post(f"{prefix}/workflows", json={"name": "x"})
        assert made.headers["location"] == f"{prefix}/workflows/{made.json()['id']}"
    async with client(face.server, None) as nobody:
        refused = await nobody.get("/api/v2/workflows")
    assert (refused.status_code, refused.headers["api-version"]) == (401, "2")


@pytest.mark.parametrize("version", ["v0", "v3", "v12", "v01"])
async def test_versions_there_are_not(face: Face, version: str) -> None:
    async with httpx.AsyncClient(base_url=face.server.base_url, trust_env=False) as http:
        for path in (f"/api/{version}", f"/api/{version}/workflows", f"/api/{version}/nothing"):
            answer = await http.get(path)
            assert answer.status_code == 404
            assert answer.json() == {
                "message": f"API version '{version}' is not supported",
                "code": "NOT_FOUND",
                "supportedVersions": ["v1", "v2"],
            }


async def test_the_media_type_is_echoed(face: Face) -> None:
    for version in ("v1", "v2"):
        media_type = VENDOR.format(version)
        for path in ("/api/workflows", f"/api/{version}/workflows", "/api/workflows/999999", "/api/version"):
            answer = await face.http.get(path, headers={"accept": media_type})
            assert (answer.headers["content-type"], answer.headers["api-version"]) == (media_type, version[1:]), path
        body = {"content-type": media_type, "accept": media_type}
        made = await face.http.post("/api/workflows", content=b'{"name":"x"}', headers=body)
        assert (made.status_code, made.headers["content-type"]) == (201, media_type)


async def test_long_answers_are_compressed_whatever_they_are_called(face: Face) -> None:
    made = await face.http.post("/api/workflows", json={"name": "x", "description": "x" * 2000})
    for media_type in ("application/json", VENDOR.format("v1")):
        headers = {"accept": media_type, "accept-encoding": "gzip"}
        answer = await face.http.get(made.headers["location"], headers=headers)
        assert (answer.headers["content-encoding"], answer.json()) == ("gzip", made.json())
        assert set(answer.headers["vary"].lower().split(", ")) == {"accept", "accept-encoding"}


@pytest.mark.parametrize(
    ("path", "accept", "status", "version"),
    [
        ("/api/workflows", "*/*", 200, "1"),
        ("/api/workflows", "text/html, application/xml;q=0.9", 200, "1"),
        ("/api/workflows", f"{VENDOR.format('v1')};q=0.5, {VENDOR.format('v2')};q=0.9", 200, "2"),
        ("/api/workflows", f"{VENDOR.format('v9')}, {VENDOR.format('v2')};q=0.1", 200, "2"),
        ("/api/workflows", f"{VENDOR.format('v9')}, application/json;q=0.1", 200, "1"),
        ("/api/workflows", VENDOR.format("v9"), 406, "1"),
        ("/api/workflows", VENDOR.format("vX"), 406, "1"),
        ("/api/workflows", f"{VENDOR.format('v9')}, application/json;q=0", 406, "1"),
        ("/api/v1/workflows", VENDOR.format("v9"), 406, "1"),
        ("/api/v1/workflows", VENDOR.format("v1"), 200, "1"),
        ("/api/v2/workflows", "application/json", 200, "2"),
        ("/api/v1/workflows", VENDOR.format("v2"), 400, "1"),
        ("/api/v2/workflows", VENDOR.format("v1"), 400, "1"),
    ],
)
async def test_versions_in_accept(face: Face, path: str, accept: str, status: int, version: str) -> None:
    answer = await face.http.get(path, headers={"accept": accept})
    assert (answer.status_code, answer.headers["api-version"], answer.headers["vary"]) == (status, version, "Accept")
    if status == 406:
        assert problem(answer)[1] == "NOT_ACCEPTABLE"
        assert answer.json()["supportedVersions"] == ["v1", "v2"]


async def test_versions_of_bodies(face: Face) -> None:
    def of(version: str) -> dict[str, str]:
        return {"content-type": VENDOR.format(version)}

    post = lambda path, headers: face.http.post(path, content=b'{"name":"x"}', headers=headers)  # noqa: E731
    assert (await post("/api/v2/workflows", of("v2"))).status_code == 201
    assert (await post("/api/workflows", {"content-type": "application/json; charset=utf-8"})).status_code == 201
    assert problem(await post("/api/v1/workflows", of("v2")))[:2] == (400, "BAD_REQUEST")
    assert (await post("/api/workflows", of("v2"))).headers["api-version"] == "1"  # of the answer, by Accept
    assert problem(await post("/api/workflows", of("v9")))[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")
