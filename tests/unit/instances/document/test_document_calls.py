"""Calls that documents make and what becomes of the answers; with tools that only record."""

from typing import Any
from uuid import UUID

import pytest

from instances.egress import EgressFailed, EgressRefused, EgressResponse
from instances.runtimes.document.call_api import redact_headers
from instances.runtimes.protocol import Do
from tests.support.document_runs import START, call, drive, fails, noop, run_context, tools


class Egress:
    """Answers calls from a list and keeps them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    async def request(self, method: str, url: str, **options: Any) -> EgressResponse:
        self.calls.append({"method": method, "url": url, **options})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(body=b"", status=200, kind="application/json", reason="OK", **headers):
    pairs = [("content-type", kind)] if kind else []
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return EgressResponse(status, reason, pairs, body, "https://example.com/")


async def called(config: dict[str, Any], *answers: Any, **fields: Any):
    egress = Egress(*answers)
    node = call("a", config=config, **fields)
    run = await (await drive([node], tools=tools(egress=egress), input={"id": 7})).finish()
    return run, egress.calls


async def test_a_call_with_a_body():
    config = {
        "url": "https://example.com/orders/{{ trigger.id }}",
        "method": "POST",
        "query": {"q": "a b&c", "n": 1, "many": [1, "x"], "none": None, "yes": True},
        "headers": {"X-Id": "{{ trigger.id }}"},
        "body": {"id": "{{ trigger.id }}"},
    }
    run, [sent] = await called(config, answer(b'{"ok": true}', 201, reason="Created"))
    assert sent["url"] == "https://example.com/orders/7?q=a+b%26c&n=1&many=1&many=x&yes=true"
    assert (sent["method"], sent["body"], sent["lane"]) == ("POST", b'{"id":7}', UUID(int=1))
    assert sent["headers"] == [
        ("X-Id", "7"),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "test:i-1:a:invoke"),
    ]
    assert run.output == {"status": 201, "statusText": "Created", "data": {"ok": True}}


@pytest.mark.parametrize(("dry_run", "outgoing"), [(False, {"a"}), (True, set())])
async def test_only_calls_that_are_made_are_outgoing_requests(dry_run: bool, outgoing: set[str]):
    context = run_context(trigger={"source": "api", "dryRun": dry_run})
    run = await (await drive([noop("no"), call("a", "no")], tools=tools(egress=Egress(answer())), run=context)).finish()
    assert {step.key.name for step in run.commands if isinstance(step, Do) and step.outgoing} == outgoing


async def test_headers_of_the_user_win():
    config = {"url": "https://e.example", "method": "PUT", "body": "<a/>",
              "headers": {"content-type": "text/xml", "idempotency-key": "mine"}}  # fmt: skip
    _, [sent] = await called(config, answer())
    assert sent["headers"] == [("content-type", "text/xml"), ("idempotency-key", "mine")]
    assert sent["body"] == b"<a/>"


async def test_a_call_without_a_body():
    _, [sent] = await called({"url": "https://e.example/?a=1#top", "query": {"b": 2}}, answer())
    assert (sent["method"], sent["body"], sent["url"]) == ("GET", b"", "https://e.example/?a=1&b=2#top")
    assert [name for name, _ in sent["headers"]] == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("body", "kind", "data"),
    [
        (b'{"a":[1,null]}', "application/json; charset=utf-8", {"a": [1, None]}),
        (b'\xef\xbb\xbf {"a":1} ', "application/json", {"a": 1}),
        (b'"text"', "application/problem+json", "text"),
        (b"not json", "application/json", "not json"),
        (b"NaN", "application/json", "NaN"),
        (b"\xff{", "application/json", "\ufffd{"),
        (b'{"a":1}', "text/plain", '{"a":1}'),
        (b"\xe9", "text/plain; charset=ISO-8859-1", "é"),
        ("é\0".encode(), None, "é\0"),
        (b"", "application/json", None),
    ],
)
async def test_data_is_json_when_the_answer_says_so_and_is(body, kind, data):
    run, _ = await called({"url": "https://e.example"}, answer(body, kind=kind))
    assert run.output["data"] == data


async def test_a_head_has_no_data():
    run, _ = await called({"url": "https://e.example", "method": "HEAD"}, answer(b"", 200))
    assert run.output == {"status": 200, "statusText": "OK", "data": None}


async def test_a_status_outside_expect_fails_and_keeps_the_answer():
    run, _ = await called({"url": "https://e.example"}, answer(b'{"why":"full"}', 503))
    assert (run.error.name, run.error.message) == ("API_CALL_FAILED", "API call failed: 503")
    assert run.error.output == '{"status":503,"statusText":"OK","data":{"why":"full"}}'


async def test_expected_statuses():
    run, _ = await called({"url": "https://e.example", "expect": [404]}, answer(b"", 404))
    assert run.output["status"] == 404
    run, _ = await called({"url": "https://e.example", "expect": [404]}, answer(b"", 200))
    assert run.error.message == "API call failed: 200"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("Thu, 01 Jan 2026 00:00:09 GMT", 9), ("Wed, 31 Dec 2025 00:00:00 GMT", 1), ("soon", 1)],
)
async def test_retry_after_raises_the_wait(header, seconds):
    answers = [answer(b"", 429, retry_after=header), answer(b"1")]
    run, calls = await called({"url": "https://e.example"}, *answers, retries={"limit": 1, "delay": 1000})
    assert len(calls) == 2
    assert (run.now - START).total_seconds() == seconds
    assert run.output["data"] == 1


async def test_idempotency_key_is_the_same_for_every_attempt_and_differs_by_item():
    egress = Egress(answer(b"", 500), answer(b"1"))
    node = call(
        "a", retries={"limit": 1, "delay": 0}, for_each=[1, 2], config={"url": "https://e.example", "parallel": 1}
    )
    await (await drive([node], tools=tools(egress=egress))).finish()
    keys = [dict(sent["headers"])["Idempotency-Key"] for sent in egress.calls]
    assert keys == ["test:i-1:a:invoke:1", "test:i-1:a:invoke:1", "test:i-1:a:invoke:2"]


async def test_compensations_have_a_key_of_their_own():
    egress = Egress(answer(b"1"))
    undo = {"type": "call_api", "config": {"url": "https://e.example/{{ compensation.input.data }}"}}
    await drive([call("a", compensate=undo), fails("b", "a")], tools=tools(egress=egress))
    assert dict(egress.calls[1]["headers"])["Idempotency-Key"] == "test:i-1:a:compensate"
    assert egress.calls[1]["url"] == "https://e.example/1"


@pytest.mark.parametrize(
    ("error", "attempts"), [(EgressRefused("the URL must start with https://"), 1), (EgressFailed("gone"), 3)]
)
async def test_calls_that_get_no_answer(error, attempts):
    run, calls = await called({"url": "https://e.example"}, error, retries={"limit": 2, "delay": 0})
    assert len(calls) == attempts
    assert run.error.message == f"API call failed: {error}"


@pytest.mark.parametrize(
    "config",
    [
        {"url": "{{ missing }}"},
        {"url": "https://e.example", "query": "{{ trigger.id }}"},
        {"url": "https://e.example", "headers": "{{ trigger.id }}"},
        {"url": "https://e.example", "headers": {"x": "{{ trigger }}"}},
        {"url": "https://e.example", "query": {"x": "{{ [[`1`]] }}"}},
        {"url": "https://e.example", "expect": "{{ trigger.id }}"},
    ],
)
async def test_configs_that_only_turn_out_wrong_when_rendered(config):
    run, _ = await called(config, answer(), retries={"limit": 3})
    assert run.error.name == "INVALID_CONFIG"
    assert run.executed == [("a-1", 1)]


async def test_secrets_are_kept_out_of_logs():
    config = {"url": "https://e.example/?token=secret", "headers": {"Authorization": "secret", "X-API-Key": "secret"}}
    run, _ = await called(config, answer())
    assert run.logs == [
        (
            "debug",
            'GET https://e.example/ {"Authorization":"[REDACTED]","X-API-Key":"[REDACTED]",'
            '"Idempotency-Key":"test:i-1:a:invoke"}',
        )
    ]
    assert redact_headers({"cookie": "a", "Proxy-Authorization": "b", "Accept": 1}) == {
        "cookie": "[REDACTED]",
        "Proxy-Authorization": "[REDACTED]",
        "Accept": "1",
    }
