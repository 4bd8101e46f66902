"""Subscriptions of GraphQL, and everything else that may come over a WebSocket or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog.testing
import websockets
from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from prometheus_client import REGISTRY
from websockets.exceptions import ConnectionClosed

from app.faces.orchestration.graphql import sockets
from tenants.auth import operator
from tests.conformance.conftest import Face
from tests.support.api import new_tenant

PROTOCOL = "graphql-transport-ws"
WAITING = [{"name": "Approve", "type": "external"}, {"name": "Ship", "dependencies": ["task-1"]}]
CREATE = "mutation ($input: CreateWorkflowDefinitionInput!) { createWorkflowDefinition(input: $input) { id } }"
START = "mutation ($input: StartWorkflowExecutionInput!) { startWorkflowExecution(input: $input) { id } }"
UPDATES = "subscription ($id: ID!) { workflowExecutionUpdated(id: $id) { id status taskExecutions { id status } } }"
COMPLETE = "mutation ($id: ID!) { completeTaskExecution(id: $id, output: {ok: true}) { id status output } }"
TASKS = "query ($id: ID!) { taskExecutions(workflowExecutionId: $id) { id status } }"


def url(face: Face, query: str = "") -> str:
    return face.server.base_url.replace("http", "ws", 1) + "/graphql" + query


def asked(text: str, variables: dict[str, Any] | None = None) -> GraphQLRequest:
    return GraphQLRequest(text, variable_values=variables)


def over_http(face: Face) -> Client:
    transport = AIOHTTPTransport(url=face.server.base_url + "/graphql", headers=face.tenant.headers)
    return Client(transport=transport)


def over_socket(face: Face) -> Client:
    payload = {"Authorization": face.tenant.headers["authorization"]}
    transport = WebsocketsTransport(url=url(face), init_payload=payload, subprotocols=[PROTOCOL])  # type: ignore[list-item]
    return Client(transport=transport)


@pytest.fixture
async def waiting(face: Face) -> str:
    """An execution whose first task waits to be completed."""
    async with over_http(face) as session:
        made = await session.execute(asked(CREATE, {"input": {"name": "Approval", "tasks": WAITING}}))
        workflow = made["createWorkflowDefinition"]["id"]
        started = await session.execute(asked(START, {"input": {"workflowDefinitionId": workflow}}))
    id = started["startWorkflowExecution"]["id"]
    await task(face, id, "WAITING")
    return id


async def task(face: Face, execution: str, status: str) -> str:
    """The first task, once it has that status."""
    ask = lambda: face.http.post("/graphql", json={"query": TASKS, "variables": {"id": execution}})  # noqa: E731
    body = await face.when(ask, lambda body: any(one["status"] == status for one in body["data"]["taskExecutions"]))
    return body["data"]["taskExecutions"][0]["id"]


async def complete(face: Face, execution: str) -> None:
    id = await task(face, execution, "WAITING")
    answer = await face.http.post("/graphql", json={"query": COMPLETE, "variables": {"id": id}})
    assert "errors" not in answer.json(), answer.text


async def test_a_subscription_begins_at_once_and_ends_with_the_execution(face: Face, waiting: str) -> None:
    seen: list[str] = []
    async with over_socket(face) as session:
        async for told in session.subscribe(asked(UPDATES, {"id": waiting})):
            seen.append(told["workflowExecutionUpdated"]["status"])
            if len(seen) == 1:
                await complete(face, waiting)
    assert (seen[0], seen[-1]) == ("WAITING", "COMPLETED")


async def test_one_that_is_over_tells_so_once(face: Face, waiting: str) -> None:
    await complete(face, waiting)
    async with over_socket(face) as session:
        _ = [one async for one in session.subscribe(asked(UPDATES, {"id": waiting}))]  # until it is over
        told = [one["workflowExecutionUpdated"] async for one in session.subscribe(asked(UPDATES, {"id": waiting}))]
    assert [one["status"] for one in told] == ["COMPLETED"]


async def test_tasks_and_progress_can_be_followed(face: Face, waiting: str) -> None:
    tasks = "subscription ($id: ID!) { taskExecutionUpdated(workflowExecutionId: $id) { taskDefinitionId status } }"
    progress = (
        "subscription ($id: ID!) { progressReportUpdated(workflowExecutionId: $id) { completedTasks totalTasks } }"
    )
    async with over_socket(face) as one, over_socket(face) as other:
        told, reports = (
            aiter(one.subscribe(asked(tasks, {"id": waiting}))),
            aiter(other.subscribe(asked(progress, {"id": waiting}))),
        )
        first = (await anext(told))["taskExecutionUpdated"]
        assert first == {"taskDefinitionId": "task-1", "status": "WAITING"}
        assert (await anext(reports))["progressReportUpdated"] == {"completedTasks": 0, "totalTasks": 2}
        await complete(face, waiting)
        rest = [each["taskExecutionUpdated"] async for each in told]
        assert {"taskDefinitionId": "task-1", "status": "COMPLETED"} in rest
        assert rest[-1] == {"taskDefinitionId": "task-2", "status": "COMPLETED"}
        assert [each["progressReportUpdated"] async for each in reports][-1] == {"completedTasks": 2, "totalTasks": 2}


async def test_queries_and_mutations_over_the_socket(face: Face, waiting: str) -> None:
    id = await task(face, waiting, "WAITING")
    async with over_socket(face) as session:
        done = await session.execute(asked(COMPLETE, {"id": id}))
        assert done["completeTaskExecution"]["id"] == id
        with pytest.raises(TransportQueryError, match="not found"):
            await session.execute(asked("mutation { cancelWorkflowExecution(id: 0) { id } }"))


async def test_nothing_is_told_of_another_account(face: Face, waiting: str) -> None:
    stranger = Face(face.http, face.cloud, await new_tenant(face.server.platform), face.server)
    async with over_socket(stranger) as session:
        with pytest.raises(TransportQueryError) as caught:
            await anext(aiter(session.subscribe(asked(UPDATES, {"id": waiting}))))
    assert caught.value.errors and caught.value.errors[0]["extensions"]["code"] == "NOT_FOUND"


# --- the protocol ------------------------------------------------------------------------------------------------


class Raw:
    """A socket that says what it is told to."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return json.loads(await self.socket.recv())

    async def code(self) -> int:
        """What it is closed with."""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await self.read()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    async def begin(self, face: Face) -> None:
        await self.send({"type": "connection_init", "payload": face.tenant.headers})
        assert (await self.read())["type"] == "connection_ack"


@pytest.fixture
async def raw(face: Face) -> AsyncIterator[Raw]:
    async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        yield Raw(socket)


INIT = {"type": "connection_init"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([INIT], 4403),
        ([{**INIT, "payload": {"Authorization": "Bearer sk_wrong"}}], 4403),
        ([{**INIT, "payload": {"authToken": "sk_wrong"}}], 4403),
        ([{**INIT, "payload": 1}], 4400),
        ([{"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }"}}], 4401),
        (["{"], 4400),
        ([b'{"type":"\xff"}'], 4400),
        ([[]], 4400),
        ([{"type": "start"}], 4400),
    ],
)
async def test_what_closes_a_socket(raw: Raw, messages: list[Any], expected: int) -> None:
    for message in messages:
        await raw.send(message)
    assert await raw.code() == expected


async def test_a_second_init_closes(raw: Raw, face: Face) -> None:
    await raw.begin(face)
    await raw.send({**INIT, "payload": face.tenant.headers})
    assert await raw.code() == 4429


async def test_an_id_in_use_closes(raw: Raw, face: Face, waiting: str) -> None:
    await raw.begin(face)
    message = {"type": "subscribe", "id": "1", "payload": {"query": UPDATES, "variables": {"id": waiting}}}
    await raw.send(message)
    await raw.send(message)
    assert await raw.code() == 4409


async def test_an_id_can_be_used_again_after_complete(raw: Raw, face: Face, waiting: str) -> None:
    await raw.begin(face)
    message = {"type": "subscribe", "id": "1", "payload": {"query": UPDATES, "variables": {"id": waiting}}}
    for _ in range(2):
        await raw.send(message)
        assert (await raw.read())["type"] == "next"
        await raw.send({"type": "complete", "id": "1"})
    await raw.send({"type": "ping", "payload": {"n": 1}})
    assert await raw.read() == {"type": "pong", "payload": {"n": 1}}


async def test_an_operation_that_is_refused_leaves_the_socket_open(raw: Raw, face: Face) -> None:
    await raw.begin(face)
    await raw.send({"type": "subscribe", "id": "1", "payload": {"query": "{ nothing }"}})
    told = await raw.read()
    assert (told["type"], told["id"]) == ("error", "1")
    assert told["payload"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert told["payload"][0]["extensions"]["requestId"]
    await raw.send({"type": "subscribe", "id": "1", "payload": {"query": "{ me { role } }"}})
    assert await raw.read() == {"type": "next", "id": "1", "payload": {"data": {"me": {"role": "admin"}}}}
    assert await raw.read() == {"type": "complete", "id": "1"}


async def test_the_hundredth_operation_is_the_last_one(raw: Raw, face: Face, waiting: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(sockets, "OPERATIONS_MAX", 1)
    await raw.begin(face)
    for id in "12":
        await raw.send({"type": "subscribe", "id": id, "payload": {"query": UPDATES, "variables": {"id": waiting}}})
    messages = {(told := await raw.read())["type"]: told for _ in range(2)}
    assert messages["error"]["id"] == "2"
    assert messages["error"]["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_the_old_protocol_is_refused(face: Face) -> None:
    async with websockets.connect(url(face), subprotocols=["graphql-ws"], proxy=None) as socket:  # type: ignore[list-item]
        assert await Raw(socket).code() == 4406


async def test_without_init_in_time(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(sockets, "INIT_WAIT", 0.05)
    async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        assert await Raw(socket).code() == 4408


async def test_a_silent_client_is_asked_and_then_left(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(sockets, "PING_EVERY", 0.05)
    monkeypatch.setattr(sockets, "SILENCE", 0.3)
    async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        raw = Raw(socket)
        await raw.begin(face)
        assert (await raw.read())["type"] == "ping"
        assert await raw.code() == 1011


async def test_a_credential_that_is_revoked_closes(face: Face, monkeypatch: Any) -> None:
    monkeypatch.setattr(sockets, "RECHECK_EVERY", 0.05)
    async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        raw = Raw(socket)
        await raw.begin(face)
        verified = (await face.cloud.get("/tokens/verify")).json()["result"]["id"]
        deleted = await face.cloud.delete(f"/tokens/{verified}")
        assert deleted.status_code == 200, deleted.text
        assert await raw.code() == 4403


async def test_a_header_or_a_ticket_on_the_upgrade(face: Face) -> None:
    ticket = (await face.http.post("/api/auth/stream-ticket", json={"path": "/graphql"})).json()["ticket"]
    for query, headers in (("", face.tenant.headers), (f"?ticket={ticket}", {})):
        connect = websockets.connect(url(face, query), subprotocols=[PROTOCOL], additional_headers=headers, proxy=None)  # type: ignore[list-item]
        async with connect as socket:
            raw = Raw(socket)
            await raw.send(INIT)
            assert (await raw.read())["type"] == "connection_ack"
    async with websockets.connect(url(face, f"?ticket={ticket}"), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        raw = Raw(socket)
        await raw.send(INIT)
        assert await raw.code() == 4403


async def test_a_token_in_the_url_is_no_credential(face: Face) -> None:
    tokened = url(face, f"?ticket={face.tenant.token}")
    async with websockets.connect(tokened, subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        raw = Raw(socket)
        await raw.send(INIT)
        assert await raw.code() == 4403


async def test_the_payload_says_which_account_of_several(face: Face) -> None:
    """As `x-account-id` does for requests."""
    tenants, other = face.server.platform.tenants, await new_tenant(face.server.platform)
    password, name = "correct horse battery", f"ada-{face.tenant.hex}"
    ada = await tenants.users.create(operator(face.tenant.id), name, role="operator", password=password)
    double = await tenants.users.create(operator(other.id), name, role="viewer")
    await tenants.users.link(operator(other.id), double.id, face.tenant.id, ada.id)
    login = await face.http.post("/api/auth/login", json={"username": name, "password": password})
    bearer = f"Bearer {login.json()['token']}"
    me = {"type": "subscribe", "id": "1", "payload": {"query": "{ me { accountId role } }"}}
    for payload, account, role in (
        ({"Authorization": bearer}, face.tenant, "operator"),
        ({"Authorization": bearer, "X-Account-Id": other.hex}, other, "viewer"),
        ({"headers": {"authorization": bearer, "x-account-id": other.hex}}, other, "viewer"),
    ):
        async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
            raw = Raw(socket)
            await raw.send({**INIT, "payload": payload})
            assert (await raw.read())["type"] == "connection_ack"
            await raw.send(me)
            assert (await raw.read())["payload"] == {"data": {"me": {"accountId": account.hex, "role": role}}}
    stranger = await new_tenant(face.server.platform)
    for foreign in (stranger.hex, "", "x"):
        async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
            raw = Raw(socket)
            await raw.send({**INIT, "payload": {"Authorization": bearer, "x-account-id": foreign}})
            assert await raw.code() == 4403


async def noted(lines: list[Any]) -> dict[str, Any]:
    """The line of the access log about a socket, once it is there."""
    async with asyncio.timeout(20):
        while not (found := [line for line in lines if line["event"] == "websocket"]):
            await asyncio.sleep(0.01)
    return found[0]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_socket_is_logged_and_counted(face: Face) -> None:
    async with asyncio.timeout(20):
        while metric("millrace_websockets_open"):  # those of earlier tests
            await asyncio.sleep(0.01)
    ended, came, went = (
        metric("millrace_websockets_closed_total", code="4400"),
        metric("millrace_websocket_messages_total", direction="in"),
        metric("millrace_websocket_messages_total", direction="out"),
    )
    with structlog.testing.capture_logs() as lines:
        hidden = url(face, "?ticket=hidden")
        async with websockets.connect(hidden, subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
            raw = Raw(socket)
            await raw.begin(face)
            assert metric("millrace_websockets_open") == 1
            await raw.send({"type": "nonsense"})
            assert await raw.code() == 4400
        line = await noted(lines)
    assert line.pop("ms") >= 0
    assert line == {
        "event": "websocket",
        "log_level": "info",
        "path": "/graphql",
        "code": 4400,
        "received": 2,
        "sent": 1,
        "client": "127.0.0.1",
        "account": face.tenant.hex,
    }
    assert "hidden" not in str(lines) and face.tenant.token not in str(lines)
    after = (
        metric("millrace_websockets_closed_total", code="4400"),
        metric("millrace_websocket_messages_total", direction="in"),
        metric("millrace_websocket_messages_total", direction="out"),
    )
    assert after == (ended + 1, came + 2, went + 1)
    assert metric("millrace_websockets_open") == 0


async def test_what_a_client_closes_with_is_logged(face: Face) -> None:
    for code, counted_as in ((1000, "1000"), (4321, "other")):
        before = metric("millrace_websockets_closed_total", code=counted_as)
        with structlog.testing.capture_logs() as lines:
            async with websockets.connect(url(face), subprotocols=[PROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
                await socket.close(code)
            line = await noted(lines)
        assert (line["code"], line["account"]) == (code, None)
        assert metric("millrace_websockets_closed_total", code=counted_as) == before + 1


async def test_a_socket_that_is_not_accepted_is_logged(face: Face) -> None:
    with structlog.testing.capture_logs() as lines:
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(face.server.base_url.replace("http", "ws", 1) + "/nope", proxy=None):
                pass
        line = await noted(lines)
    assert (line["path"], line["code"], line["sent"]) == ("/nope", 403, 0)


async def test_other_paths_have_no_sockets(face: Face) -> None:
    for path in ("/graphql/more", "/api/workflows", "/graphql//"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(face.server.base_url.replace("http", "ws", 1) + path, proxy=None):
                pass
        assert refused.value.response.status_code == 403


# --- server-sent events ------------------------------------------------------------------------------------------


def events(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"]) if lines.get("data") else None))
    return found


async def streamed(face: Face, query: str, **variables: Any) -> tuple[httpx.Response, list[tuple[str, Any]]]:
    async with asyncio.timeout(20):
        answer = await face.http.post(
            "/graphql", json={"query": query, "variables": variables}, headers={"accept": "text/event-stream"}
        )
    return answer, events(answer.text)


async def test_a_subscription_as_events(face: Face, waiting: str) -> None:
    following = asyncio.create_task(streamed(face, UPDATES, id=waiting))
    await complete(face, waiting)
    answer, told = await following
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert told[-1] == ("complete", None)
    assert told[-2][1]["data"]["workflowExecutionUpdated"]["status"] == "COMPLETED"


async def test_a_query_and_an_error_as_events(face: Face) -> None:
    _, told = await streamed(face, "{ me { role } }")
    assert told == [("next", {"data": {"me": {"role": "admin"}}}), ("complete", None)]
    for query, expected in (("{ nothing }", "GRAPHQL_VALIDATION_FAILED"), (UPDATES, "NOT_FOUND")):
        answer, told = await streamed(face, query, id="0")
        assert answer.status_code == 200
        assert told[0][1]["errors"][0]["extensions"]["code"] == expected
        assert told[1:] == [("complete", None)]


async def test_a_subscription_needs_a_stream(face: Face) -> None:
    answer = await face.http.post("/graphql", json={"query": UPDATES, "variables": {"id": "1"}})
    assert answer.status_code == 400


async def test_a_subscription_by_get_with_a_ticket(face: Face, waiting: str) -> None:
    await complete(face, waiting)
    ticket = (await face.http.post("/api/auth/stream-ticket", json={"path": "/graphql"})).json()["ticket"]
    query = {"query": UPDATES, "variables": json.dumps({"id": waiting}), "ticket": ticket}
    async with httpx.AsyncClient(base_url=face.server.base_url, trust_env=False, timeout=20) as nobody:
        answer = await nobody.get("/graphql", params=query, headers={"accept": "text/event-stream"})
    assert events(answer.text)[-1] == ("complete", None)
