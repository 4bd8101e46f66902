"""fetch, requests, responses, headers and bodies inside the engine; the outside is told what is asked of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.javascript_engine import Engine

THROWN = """
const thrown = async (work) => {
  try { await work(); return "nothing"; } catch (error) { return `${error.name}: ${error.message}`; }
};
"""


def test_a_fetch_tells_the_worker_what_to_send(engine: Engine) -> None:
    outcome = engine.run(
        """
        const answer = await fetch("https://EXAMPLE.com/a b?c#part", {
          method: "post", headers: { "X-One": " 1 ", accept: "text/x" }, body: JSON.stringify({ a: "é" }),
          redirect: "manual",
        });
        return [answer.status, answer.ok, answer.statusText, answer.url, answer.redirected, answer.headers.get("X-Two"),
          await answer.json(), answer.bodyUsed];
        """,
        fetched=({"status": 201, "statusText": "Made", "headers": [["x-two", "2"]], "body": ['{"b":', '"\xc3\xa9"}']},),
    )
    assert outcome.value == [201, True, "Made", "https://example.com/a%20b?c", False, "2", {"b": "é"}, True]
    fetch, read = outcome.calls
    assert fetch == {
        "kind": "fetch",
        "method": "POST",
        "url": "https://example.com/a%20b?c",
        "redirect": "manual",
        "text": '{"a":"é"}',
        "headers": [["x-one", "1"], ["accept", "text/x"], ["content-type", "text/plain;charset=UTF-8"]],
    }
    assert read == {"kind": "read", "body": 1, "as": "text", "whole": True}


@pytest.mark.parametrize(
    ("body", "content_type", "sent"),
    [
        ("'x'", "text/plain;charset=UTF-8", "eA=="),
        ("new URLSearchParams({a: 'b c'})", "application/x-www-form-urlencoded;charset=UTF-8", "YT1iK2M="),
        ("new Blob(['x'], {type: 'text/y'})", "text/y", "eA=="),
        ("new Uint8Array([120])", None, "eA=="),
        ("new Uint8Array([1, 120]).subarray(1)", None, "eA=="),
        ("new Uint8Array([120]).buffer", None, "eA=="),
        ("new Response('x').body", None, "eA=="),
        ("ReadableStream.from([new Uint8Array([120]), new Uint8Array([121])])", None, "eHk="),
    ],
)
def test_bodies_are_sent_with_their_type(engine: Engine, body: str, content_type: str | None, sent: str) -> None:
    outcome = engine.run(f"await fetch('http://a/', {{ method: 'PUT', body: {body} }});", fetched=({},))
    [call] = outcome.calls
    assert call.get("body", base64.b64encode(call.get("text", "").encode()).decode()) == sent
    assert dict(call["headers"]).get("content-type") == content_type


def test_a_body_is_read_piece_by_piece(engine: Engine) -> None:
    outcome = engine.run(
        """
        const { body } = await fetch("http://a/");
        const seen = [];
        for await (const chunk of body) seen.push(new TextDecoder().decode(chunk));
        return seen;
        """,
        fetched=({"body": ["one", "two", "three"]},),
    )
    assert outcome.value == ["one", "two", "three"]
    assert [call["kind"] for call in outcome.calls] == ["fetch", *["read"] * 3]


def test_a_body_nobody_wants_is_closed(engine: Engine) -> None:
    outcome = engine.run(
        """
        const one = await fetch("http://a/");
        const reader = one.body.getReader();
        await reader.read();
        await reader.cancel();
        const two = await fetch("http://a/");
        await two.body.cancel();
        return one.bodyUsed;
        """,
        fetched=({"body": ["one", "two"]}, {"body": ["x"]}),
    )
    assert outcome.value is True
    assert [(call["kind"], call.get("body")) for call in outcome.calls if call["kind"] != "fetch"] == [
        ("read", 1),
        ("close", 1),
        ("close", 2),
    ]


def test_an_abort_ends_a_fetch_with_its_reason(engine: Engine) -> None:
    outcome = engine.run(
        THROWN
        + """
        const controller = new AbortController();
        const waiting = thrown(() => fetch("http://a/", { signal: controller.signal }));
        await scheduler.wait(1);
        controller.abort();
        const late = await thrown(() => fetch("http://a/", { signal: AbortSignal.abort(new RangeError("mine")) }));
        const timed = await thrown(() => fetch("http://a/", { signal: AbortSignal.timeout(5) }));
        const other = new AbortController();
        const answer = await fetch("http://a/", { signal: other.signal });
        other.abort(new Error("enough"));
        return [await waiting, late, timed, await thrown(() => answer.text())];
        """,
        fetched=({"never": True}, {"never": True}, {"body": ["x"]}),
    )
    assert outcome.value == [
        "AbortError: The operation was aborted",
        "RangeError: mine",
        "TimeoutError: The operation was aborted due to timeout",
        "Error: enough",
    ]


def test_what_the_worker_refuses_is_a_type_error(engine: Engine) -> None:
    outcome = engine.run(
        "try { await fetch('http://a/') } catch (e) { return [e instanceof TypeError, e.message] }",
        fetched=({"error": "fetch failed: no"},),
    )
    assert outcome.value == [True, "fetch failed: no"]


@pytest.mark.parametrize(
    "call",
    [
        "fetch('nonsense')",
        "fetch('ftp://a/')",
        "fetch('http://u:p@a/')",
        "fetch('http://a/', { method: 'GET', body: 'x' })",
        "fetch('http://a/', { method: 'CONNECT' })",
        "fetch('http://a/', { method: 'a b' })",
        "fetch('http://a/', { redirect: 'sometimes' })",
        "fetch('http://a/', { headers: { 'a b': 'c' } })",
        "fetch('http://a/', { headers: { a: 'b\\nc' } })",
        "fetch('http://a/', { headers: { a: '\u20ac' } })",
        "fetch('http://a/', { headers: [['a']] })",
        "fetch('http://a/', { signal: {} })",
        "fetch()",
        "new Response('x', { status: 204 })",
        "new Response('x').json().then(() => new Response('{').json()).catch(() => { throw new TypeError() })",
        "Response.json(() => 1)",
        "Response.redirect('nonsense')",
        "Response.error().headers.set('a', 'b')",
        "new Response('a').formData()",
        "new Headers(null)",
        "new Headers().getAll('a')",
    ],
)
def test_what_is_wrong_is_a_type_error(engine: Engine, call: str) -> None:
    outcome = engine.run(f"try {{ await {call}; return 'nothing' }} catch (e) {{ return e.constructor.name }}")
    assert outcome.value in ("TypeError", "SyntaxError") and outcome.calls == []


@pytest.mark.parametrize("status", [99, 199, 600, "x"])
def test_a_status_out_of_range_is_a_range_error(engine: Engine, status: Any) -> None:
    body = f"try {{ new Response(null, {{ status: {status!r} }}) }} catch (e) {{ return e instanceof RangeError }}"
    assert engine.value(body) is True


def test_headers_keep_their_order_and_their_cookies_apart(engine: Engine) -> None:
    value = engine.value(
        """
        const headers = new Headers([["b", "1"], ["Set-Cookie", "x=1"], ["A", "2"], ["set-cookie", "y=2"]]);
        headers.append("b", " 3 ");
        const copy = new Headers(headers);
        copy.delete("a");
        return [[...headers], headers.get("B"), headers.get("Set-Cookie"), headers.getSetCookie(), headers.get("no"),
          headers.has("a"), copy.has("a"), [...copy.keys()]];
        """
    )
    assert value == [
        [["a", "2"], ["b", "1, 3"], ["set-cookie", "x=1"], ["set-cookie", "y=2"]],
        "1, 3",
        "x=1, y=2",
        ["x=1", "y=2"],
        None,
        True,
        False,
        ["b", "set-cookie", "set-cookie"],
    ]


def test_a_body_is_used_once_unless_it_is_cloned(engine: Engine) -> None:
    value = engine.value(
        THROWN
        + """
        const one = await fetch("http://a/");
        const two = one.clone();
        const texts = [await one.text(), await two.text()];
        const again = await thrown(() => one.text());
        const cloned = await thrown(() => one.clone());
        const request = new Request("http://b/", { method: "POST", body: "x" });
        const taken = new Request(request);
        const small = new Response("abc");
        const copy = small.clone();
        return [texts, again, cloned, request.bodyUsed, await taken.text(), await small.text() + await copy.text()];
        """,
        fetched=({"body": ["xy", "z"]},),
    )
    used = (
        "TypeError: Body has already been used. It can only be used once. Use tee() first if you need to read it twice."
    )
    assert value == [["xyz", "xyz"], used, used, True, "x", "abcabc"]


def test_forms_go_out_and_come_in(engine: Engine) -> None:
    value = engine.value(
        """
        const form = new FormData();
        form.append("text", "a\\nb\\u20ac");
        form.append('the "file"', new File(["\\u00e9"], 'n"1.txt', { type: "text/x" }));
        form.append("text", "again");
        form.set("one", new Blob([new Uint8Array([0, 255, 13, 10])]));
        const sent = new Response(form);
        const type = sent.headers.get("content-type");
        const back = await sent.formData();
        const file = back.get('the "file"');
        const plain = await new Response("a=1&b=%20+&a=2", { headers: { "content-type": "application/x-www-form-urlencoded" } }).formData();
        return [/^multipart\\/form-data; boundary=[\\w-]+$/.test(type), [...back.keys()], back.getAll("text"),
          file instanceof File, file.name, file.type, await file.text(), [...await back.get("one").bytes()], back.get("one").name,
          [...plain]];
        """  # noqa: E501
    )
    assert value == [
        True,
        ["text", 'the "file"', "text", "one"],
        ["a\r\nb€", "again"],
        True,
        'n"1.txt',
        "text/x",
        "é",
        [0, 255, 13, 10],
        "blob",
        [["a", "1"], ["b", "  "], ["a", "2"]],
    ]


def test_responses_of_every_making(engine: Engine) -> None:
    value = engine.value(
        """
        const json = Response.json({ a: 1 }, { status: 201, headers: { x: "y" } });
        const moved = Response.redirect("http://a/b", 307);
        const data = await fetch("data:text/html;base64,PGI+");
        return [json.status, [...json.headers], await json.text(), moved.status, moved.headers.get("location"),
          Response.error().type, new Response().body, new Response(null).bodyUsed, await new Response().text(),
          await data.text(), data.headers.get("content-type"), Object.prototype.toString.call(data),
          (await new Response("\\ufeffx").text()).length, Object.keys(Response.prototype).includes("text")];
        """
    )
    assert value == [
        201,
        [["content-type", "application/json"], ["x", "y"]],
        '{"a":1}',
        307,
        "http://a/b",
        "error",
        None,
        False,
        "",
        "<b>",
        "text/html",
        "[object Response]",
        1,
        True,
    ]


def test_fetch_is_refused_while_the_script_is_loaded(engine: Engine) -> None:
    assert "global scope" in engine.value(
        "return await globalThis.early.catch((e) => e.message)", before="globalThis.early = fetch('http://a/');"
    )


def test_user_code_that_breaks_the_globals_does_not_break_fetch(engine: Engine) -> None:
    value = engine.value(
        """
        for (const name of ["URL", "Headers", "Request", "Response", "ReadableStream", "TextDecoder", "Promise", "Map",
          "AbortController", "Uint8Array"]) globalThis[name] = undefined;
        Array.prototype[Symbol.iterator] = Array.prototype[Symbol.iterator];
        JSON.parse = () => "broken";
        const answer = await fetch("http://a/");
        return [answer.status, await answer.json()];
        """,
        fetched=({"body": ['{"a":1}']},),
    )
    assert value == [200, {"a": 1}]
