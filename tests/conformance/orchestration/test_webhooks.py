"""Webhooks of the orchestration face: every route, by a plain HTTP client, and events that arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import standardwebhooks

from tests.conformance.conftest import PATIENCE, Face, client
from tests.support.api import new_tenant
from tests.support.http_server import HttpServer, Request, message
from tests.support.live import Live, live_for_tests

HOOK = {"url": "https://hooks.invalid/in", "events": ["workflow.execution.completed"]}
REFUSED = "url must lead to an address that may be called"


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def make(face: Face, **changes: Any) -> dict[str, Any]:
    answer = await face.http.post("/api/webhooks", json=HOOK | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_secrets_are_shown_when_made_and_when_changed_and_never_else(face: Face) -> None:
    answer = await face.http.post("/api/webhooks", json=HOOK | {"secret": "webhook-secret"})
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/webhooks/{made['id']}")
    assert made == HOOK | {
        "id": made["id"],
        "secret": "webhook-secret",
        "hasSecret": True,
        "format": "standard",
        "active": True,
        "disabledReason": None,
        "createdAt": made["createdAt"],
    }
    assert made["id"].isdigit()
    hidden = made | {"secret": None}
    assert (await face.http.get("/api/webhooks")).json() == [hidden]
    assert (await face.http.get(f"/api/webhooks/{made['id']}")).json() == hidden
    answer = await face.http.put(f"/api/webhooks/{made['id']}", json={"events": ["*"], "active": False})
    assert (answer.status_code, answer.json()) == (200, made | {"events": ["*"], "active": False})
    for nothing in ({}, {"secret": None}, {"secret": ""}):
        assert (await make(face, **nothing))["secret"].startswith("whsec_")
    answer = await face.http.put(f"/api/webhooks/{made['id']}", json={"secret": ""})
    assert answer.json()["secret"] == "webhook-secret"


async def test_the_operator_may_keep_secrets_to_himself(face: Face, monkeypatch) -> None:
    made = await make(face)
    monkeypatch.setattr(face.server.platform.webhooks, "_secret_on_update", False)
    answer = await face.http.put(f"/api/webhooks/{made['id']}", json={"secret": "another one"})
    assert answer.json() == made | {"secret": None}


async def test_delete(face: Face) -> None:
    made = await make(face)
    answer = await face.http.delete(f"/api/webhooks/{made['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await face.http.get("/api/webhooks")).json() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/webhooks/{id}"),
        ("PUT", "/api/webhooks/{id}"),
        ("DELETE", "/api/webhooks/{id}"),
        ("GET", "/api/webhooks/{id}/deliveries"),
    ],
)
async def test_what_is_not_there_or_not_yours(face: Face, stranger: httpx.AsyncClient, method: str, path: str) -> None:
    made = await make(face)
    missing = (404, "NOT_FOUND", "Webhook registration not found")
    for id in ("999999999", "0", "x"):
        assert problem(await face.http.request(method, path.format(id=id), json={})) == missing
    assert problem(await stranger.request(method, path.format(id=made["id"]), json={})) == missing
    assert (await stranger.get("/api/webhooks")).json() == []
    assert (await face.http.get(f"/api/webhooks/{made['id']}")).status_code == 200


async def test_deliveries_that_are_not_there(face: Face) -> None:
    made = await make(face)
    for id in ("1234567", "x"):
        answer = await face.http.post(f"/api/webhooks/{made['id']}/deliveries/{id}/redeliver")
        assert problem(answer) == (404, "NOT_FOUND", "Webhook delivery not found")
    for query in ("?status=LOST", "?limit=0", "?offset=-1"):
        answer = await face.http.get(f"/api/webhooks/{made['id']}/deliveries{query}")
        assert problem(answer)[:2] == (400, "BAD_REQUEST")
    answer = await face.http.get(f"/api/webhooks/{made['id']}/deliveries?status=DEAD")
    assert (answer.json(), answer.headers["x-total-count"]) == ([], "0")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"events": ["*"]}, "/url"),
        ({"url": 1, "events": ["*"]}, "/url"),
        ({"url": "https://hooks.invalid/"}, "/events"),
        ({"url": "https://hooks.invalid/", "events": []}, "/events"),
        ({"url": "https://hooks.invalid/", "events": ["workflow.execution.finished"]}, "/events/0"),
        (HOOK | {"format": "xml"}, "/format"),
        (HOOK | {"active": "yes"}, "/active"),
        (HOOK | {"secret": "x" * 7}, "/secret"),
        (HOOK | {"url": "http://127.0.0.1/"}, "/url"),
    ],
)
async def test_bodies_that_are_not_valid(face: Face, body: dict[str, Any], path: str) -> None:
    answer = await face.http.post("/api/webhooks", json=body)
    assert problem(answer)[:2] == (400, "BAD_REQUEST")
    assert [one["path"] for one in answer.json()["errors"]] == [path]


async def test_unknown_events_are_told_which_there_are(face: Face) -> None:
    answer = await face.http.post("/api/webhooks", json=HOOK | {"events": ["nonsense"]})
    assert "workflow.execution.completed" in answer.json()["message"]


@pytest.mark.parametrize(
    ("scopes", "status"), [(["webhooks:write"], 200), (["executions:write", "workflows:write"], 403), (["admin"], 200)]
)
async def test_who_may(face: Face, scopes: list[str], status: int) -> None:
    tenant = await new_tenant(face.server.platform, scopes, of=face.tenant.id)
    made = await make(face)
    async with client(face.server, tenant) as http:
        answers = [
            await http.get("/api/webhooks"),
            await http.get(f"/api/webhooks/{made['id']}"),
            await http.put(f"/api/webhooks/{made['id']}", json={}),
            await http.get(f"/api/webhooks/{made['id']}/deliveries"),
        ]
        assert [answer.status_code for answer in answers] == [status] * 4
        for path in ("/api/webhooks", "/api/webhooks/test", f"/api/webhooks/{made['id']}/deliveries/1/redeliver"):
            answer = await http.post(path, json={})
            assert (answer.status_code == 403) == (status == 403)
        assert (await http.delete(f"/api/webhooks/{made['id']}")).status_code == (204 if status == 200 else 403)
    async with client(
        face.server, await new_tenant(face.server.platform, ["webhooks:read"], of=face.tenant.id)
    ) as http:
        made = await make(face)
        for path in ("", f"/{made['id']}", f"/{made['id']}/deliveries"):
            assert (await http.get(f"/api/webhooks{path}")).status_code == 200
        assert (await http.put(f"/api/webhooks/{made['id']}", json={})).status_code == 403
    async with client(face.server, None) as nobody:
        assert problem(await nobody.get("/api/webhooks")) == (401, "UNAUTHENTICATED", "Authentication required")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "https://[::ffff:10.0.0.1]",
        "https://localhost/",
        "https://[64:ff9b::7f00:1]/",
        "https://169.254.169.254/latest",
    ],
)
async def test_a_test_reaches_nothing_inside_and_always_says_the_same(face: Face, url: str) -> None:
    body = {"url": url, "event": "webhook.test", "payload": {}}
    assert problem(await face.http.post("/api/webhooks/test", json=body)) == (400, "BAD_REQUEST", REFUSED)
    assert problem(await face.http.post("/api/webhooks", json=HOOK | {"url": url})) == (400, "BAD_REQUEST", REFUSED)


@pytest.mark.parametrize("missing", ["url", "event", "payload"])
async def test_what_a_test_needs(face: Face, missing: str) -> None:
    body = {"url": "https://hooks.invalid/", "event": "webhook.test", "payload": {}}
    answer = await face.http.post("/api/webhooks/test", json={k: v for k, v in body.items() if k != missing})
    assert problem(answer) == (400, "BAD_REQUEST", f"{missing} is required")
    answer = await face.http.post("/api/webhooks/test", json=body | {"event": "nonsense"})
    assert problem(answer)[:2] == (400, "BAD_REQUEST")


async def test_a_name_that_leads_nowhere_is_no_error_of_the_caller(face: Face) -> None:
    body = {"url": "https://hooks.invalid/", "event": "webhook.test", "payload": {}}
    answer = await face.http.post("/api/webhooks/test", json=body)
    told = answer.json()
    assert (answer.status_code, told["success"], told["statusCode"]) == (200, False, None)
    assert told["message"].startswith("Failed to deliver webhook: ")
    assert (await face.http.get("/api/webhooks")).json() == []


async def test_tests_are_limited(face: Face) -> None:
    body = {"url": "https://hooks.invalid/", "event": "webhook.test", "payload": {}}
    tenants = face.server.platform.tenants
    from tenants.auth import operator

    await tenants.accounts.set_limits(operator(face.tenant.id), changes={"webhook_tests_per_minute": 1})
    async with asyncio.timeout(PATIENCE):
        while (answer := await face.http.post("/api/webhooks/test", json=body)).status_code != 429:
            pass
    assert answer.json()["code"] == "RATE_LIMITED" and int(answer.headers["retry-after"]) >= 1


# --- with a receiver -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def open_server(databases, valkey) -> AsyncIterator[Live]:
    """A Millrace whose workers may call this machine."""
    async with live_for_tests(databases, valkey, egress_allow=("127.0.0.0/8",)) as running:
        yield running


@pytest.fixture
async def near(open_server: Live) -> AsyncIterator[Face]:
    """A fresh account there."""
    tenant = await new_tenant(open_server.platform)
    async with client(open_server, tenant) as http, client(open_server, tenant, tenant.path) as cloud:
        yield Face(http, cloud, tenant, open_server)


class Receiver(HttpServer):
    """Keeps what comes to `/hook`, and tells when it does."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def answer_to(self, request: Request) -> Any:
        self.came.set()
        return super().answer_to(request)

    async def until(self, *events: str) -> list[dict[str, Any]]:
        """The bodies that came, once all of `events` have."""
        async with asyncio.timeout(PATIENCE):
            while not set(events) <= {json.loads(one.body)["event"] for one in self.requests}:
                self.came.clear()
                await self.came.wait()
        return [json.loads(request.body) for request in self.requests]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    server = Receiver()
    server.answer("/hook")
    await server.start()
    yield server
    await server.stop()


def headers_of(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers}


async def test_a_workflow_and_its_execution_are_told_of_and_the_signatures_verify(
    near: Face, receiver: Receiver
) -> None:
    made = await make(near, url=receiver.url("/hook"), events=["workflow.*", "task.execution.completed"])
    body = {"name": "Told", "tasks": [{"name": "One"}, {"name": "Two", "dependencies": ["One"]}]}
    definition = (await near.http.post("/api/workflows", json=body)).json()
    answer = await near.http.post("/api/executions", json={"workflowDefinitionId": definition["id"]})
    execution = answer.json()["id"]
    told = await receiver.until(
        "workflow.definition.created",
        "workflow.execution.started",
        "task.execution.completed",
        "workflow.execution.completed",
    )
    verifier = standardwebhooks.Webhook(made["secret"])
    for request in receiver.requests:
        assert verifier.verify(request.body, headers_of(request)) == json.loads(request.body)
    by_event = {one["event"]: one["data"] for one in told}
    assert by_event["workflow.definition.created"] == definition
    shown = (await near.http.get(f"/api/executions/{execution}")).json()
    ended = by_event["workflow.execution.completed"]
    assert {key: shown[key] for key in ended if key != "context"} == {k: v for k, v in ended.items() if k != "context"}
    assert ended["context"] == {"id": execution, "version": 3}
    [task] = [one["data"] for one in told if one["data"].get("taskDefinitionId") == "task-2"]
    assert task == shown["taskExecutions"][1] | {
        "workflowExecutionId": execution,
        "workflowDefinitionId": definition["id"],
    }

    page = await near.when(
        lambda: near.http.get(f"/api/webhooks/{made['id']}/deliveries?status=DELIVERED"),
        lambda rows: len(rows) == len(receiver.requests),
    )
    assert {one["eventId"] for one in page} == {headers_of(one)["webhook-id"] for one in receiver.requests}
    first = page[-1]
    receiver.requests.clear()
    answer = await near.http.post(f"/api/webhooks/{made['id']}/deliveries/{first['id']}/redeliver")
    assert (answer.status_code, answer.json()["status"]) == (200, "PENDING")
    [again] = await receiver.until(first["event"])
    assert again["id"] == first["eventId"] == headers_of(receiver.requests[0])["webhook-id"]


async def test_gone_switches_off_and_redelivery_then_is_a_conflict(near: Face, receiver: Receiver) -> None:
    receiver.answer("/hook", b"", "410 Gone")
    made = await make(near, url=receiver.url("/hook"), events=["workflow.definition.created"])
    await near.http.post("/api/workflows", json={"name": "Told"})
    told = await near.when(lambda: near.http.get(f"/api/webhooks/{made['id']}"), lambda body: not body["active"])
    assert told["disabledReason"] == "gone"
    [dead] = (await near.http.get(f"/api/webhooks/{made['id']}/deliveries")).json()
    assert (dead["status"], dead["lastStatusCode"], dead["attempts"]) == ("DEAD", 410, 1)
    answer = await near.http.post(f"/api/webhooks/{made['id']}/deliveries/{dead['id']}/redeliver")
    assert problem(answer)[:2] == (409, "CONFLICT")
    answer = await near.http.put(f"/api/webhooks/{made['id']}", json={"active": True})
    assert (answer.json()["active"], answer.json()["disabledReason"]) == (True, None)


@pytest.mark.parametrize("secret", [None, "my webhook secret", "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQ="])
async def test_a_test_sends_the_payload_as_it_is(near: Face, receiver: Receiver, secret: str | None) -> None:
    body = {"url": receiver.url("/hook"), "event": "task.execution.failed", "payload": {"a": [1, None]}}
    answer = await near.http.post("/api/webhooks/test", json=body | ({} if secret is None else {"secret": secret}))
    assert answer.json() == {"success": True, "statusCode": 200, "message": "Webhook delivered successfully"}
    [request] = receiver.requests
    told = json.loads(request.body)
    assert (told["data"], told["type"], told["accountId"]) == (
        {"a": [1, None]},
        "task.execution.failed",
        near.tenant.hex,
    )
    headers = headers_of(request)
    if secret is None:
        assert "webhook-signature" not in headers
    else:
        assert standardwebhooks.Webhook(secret).verify(request.body, headers) == told


@pytest.mark.parametrize("status", ["301 Moved Permanently", "404 Not Found", "500 Internal Server Error"])
async def test_what_a_test_hears_is_told_without_the_body(near: Face, receiver: Receiver, status: str) -> None:
    receiver.answers["/hook"] = message(b"internal secret", status, ["Location: http://127.0.0.1:1/"])
    body = {"url": receiver.url("/hook"), "event": "webhook.test", "payload": None}
    answer = await near.http.post("/api/webhooks/test", json=body)
    number = int(status[:3])
    told = {
        "success": False,
        "statusCode": number,
        "message": f"Failed to deliver webhook: the endpoint answered {number}",
    }
    assert answer.json() == told
