"""Text, streams, events, copies and secrets inside the engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.javascript_engine import Engine

THROWN = (
    "const thrown = async (work) => { try { await work(); return 'nothing' } catch (error) { return error.name } };\n"
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[...new TextEncoder().encode('a\\u00e9\\u20ac\\u{1f600}\\ud800')].join()", "97,195,169,226,130,172,240,159,152,128,239,191,189"),  # noqa: E501
        ("new TextEncoder().encodeInto('a\\u20ac\\u{1f600}', new Uint8Array(5))", {"read": 2, "written": 4}),
        ("new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 97]))", "a"),
        ("new TextDecoder('utf8', { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf, 97]))", "\ufeffa"),
        ("new TextDecoder().decode(new Uint8Array([0xe2, 0x82, 97, 0xf0, 0x80, 0xed, 0xa0, 0x80]))", "\ufffda\ufffd\ufffd\ufffd\ufffd\ufffd"),  # noqa: E501
        ("new TextDecoder('utf-16').decode(new Uint8Array([97, 0, 61, 216, 0, 222, 0]))", "a\U0001f600\ufffd"),
        ("new TextDecoder('utf-16be').decode(new Uint8Array([0, 97]))", "a"),
        ("new TextDecoder('latin1').decode(new Uint8Array([0x80, 0xe9]))", "\u20ac\xe9"),
        ("new TextDecoder('ASCII').encoding", "windows-1252"),
        ("(() => { const d = new TextDecoder(); return d.decode(new Uint8Array([0xe2]), { stream: true })"
         " + d.decode(new Uint8Array([0x82, 0xac]), { stream: true }) + d.decode() })()", "\u20ac"),
        ("atob(btoa('\\u00ff\\0x'))", "\xff\x00x"),
        ("atob(' aGk ')", "hi"),
        ("atob('aGk=')", "hi"),
    ],
)  # fmt: skip
def test_text_becomes_bytes_and_back(engine: Engine, expression: str, value: Any) -> None:
    assert engine.value(f"return {expression};") == value


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xff]))", "TypeError"),
        ("new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xe2]))", "TypeError"),
        ("new TextDecoder('nonsense')", "RangeError"),
        ("new TextDecoder().decode('x')", "TypeError"),
        ("btoa('\\u0100')", "InvalidCharacterError"),
        ("atob('a')", "InvalidCharacterError"),
        ("atob('a*==')", "InvalidCharacterError"),
        ("structuredClone(() => 1)", "DataCloneError"),
        ("structuredClone({ a: Symbol() })", "DataCloneError"),
        ("structuredClone(new WeakMap())", "DataCloneError"),
        ("structuredClone(Promise.resolve())", "DataCloneError"),
        ("structuredClone(1, { transfer: [1] })", "DataCloneError"),
        ("new AbortSignal()", "TypeError"),
        ("AbortSignal.timeout(-1)", "TypeError"),
        ("new EventTarget().dispatchEvent({})", "TypeError"),
        ("crypto.getRandomValues(new Float32Array(1))", "TypeMismatchError"),
        ("crypto.getRandomValues(new Uint8Array(65537))", "QuotaExceededError"),
        ("crypto.subtle.digest('SHA-3', new Uint8Array())", "NotSupportedError"),
        ("crypto.subtle.encrypt({ name: 'AES-GCM' }, {}, new Uint8Array())", "NotSupportedError"),
        ("crypto.subtle.importKey('raw', new Uint8Array(1), { name: 'HMAC', hash: 'SHA-256' }, true, ['encrypt'])", "SyntaxError"),  # noqa: E501
        ("new ReadableStream().getReader({ mode: 'byob' })", "TypeError"),
        ("new URL('nonsense')", "TypeError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_name(engine: Engine, expression: str, name: str) -> None:
    assert engine.value(f"{THROWN} return thrown(async () => {{ await {expression} }});") == name


def test_streams_flow_through_each_other(engine: Engine) -> None:
    value = engine.value(
        """
        const upper = new TransformStream({ transform: (chunk, controller) => controller.enqueue(chunk.toUpperCase()) });
        const source = ReadableStream.from(["\\u00e9", "\\u20ac"]).pipeThrough(new TextEncoderStream());
        const [left, right] = source.tee();
        let text = "";
        for await (const part of left.pipeThrough(new TextDecoderStream()).pipeThrough(upper)) text += part;
        const written = [];
        await right.pipeTo(new WritableStream({ write: (chunk) => { written.push(...chunk); } }));
        const byob = new Response("abcdef").body.getReader({ mode: "byob" });
        const { value } = await byob.read(new Uint8Array(4));
        const pulled = [];
        const counted = new ReadableStream({ pull(c) { pulled.push(c.desiredSize); c.enqueue("x"); if (pulled.length === 3) c.close(); } },
          new CountQueuingStrategy({ highWaterMark: 2 }));
        for await (const _ of counted);
        return [text, written, new TextDecoder().decode(value), pulled.length];
        """  # noqa: E501
    )
    assert value == ["É€", [195, 169, 226, 130, 172], "abcd", 3]


def test_events_reach_their_listeners(engine: Engine) -> None:
    value = engine.value(
        """
        const seen = [];
        const target = new EventTarget();
        const controller = new AbortController();
        target.addEventListener("go", (event) => { seen.push(event.detail ?? null); event.preventDefault(); });
        target.addEventListener("go", { handleEvent(event) { seen.push(event.type, event.target === target); } }, { once: true });
        target.addEventListener("go", () => seen.push("gone"), { signal: controller.signal });
        target.addEventListener("go", () => { throw new Error("only told"); });
        const first = target.dispatchEvent(new CustomEvent("go", { detail: 7, cancelable: true }));
        controller.abort("why");
        target.dispatchEvent(new Event("go"));
        const any = AbortSignal.any([new AbortController().signal, controller.signal]);
        let handled = 0;
        const other = new AbortController();
        other.signal.onabort = () => { handled++; };
        other.abort();
        other.abort();
        const error = new DOMException("text", "AbortError");
        return [seen, first, any.aborted, any.reason, handled, other.signal.reason.name, error.code, DOMException.ABORT_ERR,
          error instanceof Error, String(error)];
        """  # noqa: E501
    )
    assert value[0] == [7, "go", True, "gone", None]
    assert value[1:] == [False, True, "why", 1, "AbortError", 20, 20, True, "AbortError: text"]


def test_a_copy_is_the_same_graph(engine: Engine) -> None:
    value = engine.value(
        """
        const shared = new Date(5);
        const original = { list: [1, , undefined], map: new Map([[shared, new Set([shared])]]), text: /x/gi, error: new RangeError("r", { cause: 1 }),
          view: new Uint16Array([1, 2, 3]).subarray(1), big: 10n, boxed: new String("b"), proto: new (class A { x = 1 })(), nan: NaN };
        original.self = original;
        const copy = structuredClone(original);
        const [[key, set]] = copy.map;
        const buffer = new ArrayBuffer(4);
        const moved = structuredClone({ buffer }, { transfer: [buffer] });
        const file = structuredClone(new File(["x"], "n", { type: "t/u" }));
        return [copy !== original, copy.self === copy, 1 in copy.list, copy.list.length, set.has(key), key !== shared, key.getTime(),
          String(copy.text), copy.error instanceof RangeError, copy.error.cause, [...copy.view], String(copy.big),
          copy.boxed instanceof String, Object.getPrototypeOf(copy.proto) === Object.prototype, copy.proto.x, Object.is(copy.nan, NaN),
          buffer.detached, moved.buffer.byteLength, file.name, file.type];
        """  # noqa: E501
    )
    assert value == [
        *(True, True, False, 3, True, True, 5, "/x/gi", True, 1, [2, 3], "10", True, True, 1, True, True, 4, "n", "t/u")
    ]


def test_digests_and_signatures_short_and_long(engine: Engine) -> None:
    outcome = engine.run(
        """
        const hex = (buffer) => new Uint8Array(buffer).toHex();
        const key = await crypto.subtle.importKey("raw", new TextEncoder().encode("key"), { name: "HMAC", hash: "SHA-256" },
          true, ["sign", "verify"]);
        const short = new TextEncoder().encode("message");
        const signature = await crypto.subtle.sign("HMAC", key, short);
        const made = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-512" }, false, ["sign"]);
        return [hex(await crypto.subtle.digest("SHA-256", short)), hex(await crypto.subtle.digest({ name: "sha-1" }, new Uint8Array(5000))),
          hex(signature), await crypto.subtle.verify("HMAC", key, signature, short),
          await crypto.subtle.verify("HMAC", key, signature, new Uint8Array(7)),
          hex(await crypto.subtle.sign("HMAC", key, new Uint8Array(5000))), (await crypto.subtle.exportKey("jwk", key)).k,
          made.algorithm, await crypto.subtle.exportKey("raw", made).catch((error) => error.name)];
        """  # noqa: E501
    )
    assert outcome.value == [
        "ab530a13e45914982b79f9b7e3fba994cfd1f3fb22f71cea1afbf02b460c6d1d",
        "044ef48af264fd3e304ab9e64f9656f37af763a6",
        "6e9ef29b75fffc5b7abae527d58fdadb2fe42e7219011976917343065f58ed4a",
        True,
        False,
        "2ee1f46efff82070b6bc1b8a6baf79b541c2b703b9558b16e716cfe6656cc05a",
        "a2V5",
        {"name": "HMAC", "length": 1024, "hash": {"name": "SHA-512"}},
        "InvalidAccessError",
    ]
    assert [call["kind"] for call in outcome.calls] == ["digest", "hmac"]


def test_chance_outside_steps_is_the_runs_own(engine: Engine) -> None:
    body = "return [crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(4))]];"
    first = engine.value(body)
    assert first == engine.value(body)
    assert first[0][14] == "4" and first[0][19] in "89ab"
    assert "global scope" in engine.value("return early", before=_caught("crypto.randomUUID()"))


def test_only_what_a_script_mentions_is_loaded(engine: Engine) -> None:
    assert engine.run("return 1;").parts == []
    assert engine.run("return new URL('http://a/').host;").parts == ["lazy", "events", "encoding", "url"]
    assert "fetch" in engine.run("return typeof globalThis['fet' + 'ch'];").parts
    assert engine.value("return typeof globalThis['fet' + 'ch'];") == "function"


@pytest.mark.parametrize(("flags", "kinds"), [((), ["undefined"] * 2), (("nodejs_compat_v2",), ["function", "object"])])
def test_globals_of_node_need_their_flag(engine: Engine, flags: tuple[str, ...], kinds: list[str]) -> None:
    assert engine.value("return [typeof Buffer, typeof process];", flags=flags) == kinds


def test_modules_of_node_need_their_flag(engine: Engine) -> None:
    body = "return await load('node:buffer').then(() => 'there', (error) => error.message);"
    assert engine.value(f"try {{ {body} }} catch (error) {{ return error.message }}").startswith("No such module")
    assert engine.value(body, flags=("nodejs_compat",)) == "there"
    assert engine.value("return process.env.TEXT;", flags=("nodejs_compat_v2",)) == "text"


def _caught(expression: str) -> str:
    return f"let early; try {{ {expression} }} catch (error) {{ early = error.message }}"
