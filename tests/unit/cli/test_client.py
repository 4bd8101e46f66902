"""The commands' view of the API (app.cli.client), against a scripted server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.cli.client import Api, ApiError

ACCOUNT = "0123456789abcdef0123456789abcdef"


class Server:
    """Answers from a list, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def api(self) -> Api:
        return Api("http://m/", ACCOUNT, "sk_x", transport=httpx.MockTransport(self.handle), sleep=self.slept.append)


def ok(result: Any, **info: Any) -> httpx.Response:
    body = {"success": True, "errors": [], "messages": [], "result": result}
    return httpx.Response(200, json={**body, "result_info": info} if info else body)


def failed(status: int, code: int, message: str = "no", headers: dict[str, str] | None = None) -> httpx.Response:
    errors = [{"code": code, "message": message}]
    return httpx.Response(
        status, json={"success": False, "errors": errors, "messages": [], "result": None}, headers=headers
    )


def test_requests_carry_account_credential_and_encoded_ids() -> None:
    server = Server(ok({"id": 1}))
    with server.api() as api:
        assert api.get("workflows", "w", "instances", "*/5 * * * *-1", simple="true", status=None).result == {"id": 1}
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer sk_x"
    assert request.url.raw_path == (
        f"/client/v4/accounts/{ACCOUNT}/workflows/w/instances/%2A%2F5%20%2A%20%2A%20%2A%20%2A-1?simple=true".encode()
    )


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadError("cut"), httpx.ReadTimeout("slow"), failed(503, 10459), failed(502, 0), failed(429, 10456)],
)
def test_reads_are_repeated(failure: httpx.Response | Exception) -> None:
    server = Server(failure, ok(1))
    assert server.api().get("workflows").result == 1
    assert server.slept == [0.5]


@pytest.mark.parametrize("failure", [httpx.ReadError("cut"), failed(503, 10459), failed(500, 10001)])
def test_writes_are_not_repeated_unless_the_server_says_so(failure: httpx.Response | Exception) -> None:
    server = Server(failure)
    with pytest.raises(ApiError):
        server.api().post("workflows", "w", "instances", body={})
    assert len(server.requests) == 1


def test_a_write_with_an_idempotency_key_is_repeated_with_the_same_key() -> None:
    server = Server(httpx.ReadError("cut"), ok(1))
    server.api().post("x", body={}, once=True)
    first, second = (request.headers["idempotency-key"] for request in server.requests)
    assert first == second


def test_the_servers_word_on_retries_counts() -> None:
    server = Server(failed(409, 10401, headers={"x-should-retry": "false"}))
    with pytest.raises(ApiError) as raised:
        server.api().get("x")
    assert raised.value.code == 10401
    server = Server(failed(429, 10457, headers={"x-should-retry": "true", "retry-after": "7"}), ok(1))
    server.api().patch("x", body={})
    assert server.slept == [7.0]


def test_attempts_are_bounded() -> None:
    server = Server(*[failed(503, 10459) for _ in range(9)])
    with pytest.raises(ApiError):
        server.api().get("x")
    assert len(server.requests) == 4
    assert server.slept == [0.5, 1.0, 2.0]


def test_errors_say_what_to_do() -> None:
    server = Server(failed(404, 10200, "workflows.api.error.workflow.not_found"))
    with pytest.raises(ApiError) as raised:
        server.api().get("x")
    assert "workflows list" in raised.value.hint


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (failed(400, 10002), "--help"),
        (failed(500, 10001), "log of the server"),
        (httpx.ConnectTimeout("slow"), "--url"),
        (httpx.UnsupportedProtocol("ftp"), "--url"),
    ],
)
def test_every_error_has_a_hint(answer: httpx.Response | Exception, hint: str) -> None:
    with pytest.raises(ApiError) as raised:
        Server(answer).api().post("x")
    assert hint in raised.value.hint


def test_an_empty_name_does_not_become_a_list() -> None:
    server = Server()
    with pytest.raises(ApiError, match="is empty"):
        server.api().get("workflows", "w", "instances", "")
    assert server.requests == []


def test_no_server() -> None:
    with pytest.raises(ApiError, match="cannot reach http://m") as raised:
        Server(httpx.ConnectError("refused")).api().get("x")
    assert "millrace dev" in raised.value.hint


@pytest.mark.parametrize(
    "body",
    ["<html>", "[]", '{"errors": []}', '{"errors": ["no"]}', '{"errors": [{"code": "E1", "message": "no"}]}'],
)
def test_something_else_answers(body: str) -> None:
    with pytest.raises(ApiError, match="answered 404 in a form") as raised:
        Server(httpx.Response(404, text=body)).api().get("x")
    assert "--url" in raised.value.hint


@pytest.mark.parametrize(
    ("answers", "queries"),
    [
        ([ok([1, 2], cursor="c"), ok([3], cursor=None)], [{}, {"cursor": "c"}]),
        ([ok([1, 2], page=1), ok([3], page=2)], [{}, {"page": "2"}]),
        ([ok([1, 2], page=1), ok([], page=2)], [{}, {"page": "2"}]),
    ],
)
def test_lists_are_read_to_the_end(answers: list[httpx.Response], queries: list[dict[str, str]]) -> None:
    server = Server(*answers)
    list(server.api().pages("x", per_page=2))
    assert [dict(request.url.params) for request in server.requests] == [
        {"per_page": "2", **query} for query in queries
    ]


def streamed(text: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def test_streams_are_read_event_by_event() -> None:
    text = "retry: 3000\n\n: ping\n\nid: 4\nevent: log\ndata: a\ndata: b\n\nevent: complete\ndata: {}\n\ndata: cut off"
    server = Server(streamed(text)())
    events = list(server.api().stream("logs", last_event_id="3"))
    assert [(event.event, event.data, event.id) for event in events] == [("log", "a\nb", "4"), ("complete", "{}", "4")]
    assert server.requests[0].headers["last-event-id"] == "3"


def test_a_refused_stream_is_an_error() -> None:
    with pytest.raises(ApiError) as raised:
        list(Server(failed(429, 10466)).api().stream("logs"))
    assert raised.value.code == 10466
