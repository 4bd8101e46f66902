"""What views and the step endpoint show of streams that steps returned."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import httpx
import pytest

from tests.support.javascript import Scripts

READ = "const bytes = await new Response(stream).bytes();\n"


async def shown(js: Scripts, made: str, config: str = "{}"):
    """Steps of a finished run that returned `made` from its one step, and how many bytes its code read."""
    run = await js.run(
        f'const stream = await step.do("a", {config}, async () => {made});\n{READ}'
        'await step.sleep("so that the instance is read from its journal", 1);\nreturn bytes.length;'
    )
    size = await run.output()
    return run, (await run.details())["steps"][0], size


@pytest.mark.parametrize(
    ("id", "made", "preview", "bytes"),
    [
        ("c20 text", 'new Response("héllo").body', "héllo", 6),
        ("c20 empty", "new Blob([]).stream()", "", 0),
        ("c21 long", 'new Response("x".repeat(2048)).body', "x" * 1024 + "[truncated output]", 2048),
        ("c21 characters, not bytes", 'new Response("é".repeat(1024)).body', "é" * 1024, 2048),
        ("c21 cut", 'new Response("é".repeat(1025)).body', "é" * 1024 + "[truncated output]", 2050),
        ("c22 binary", "new Response(new Uint8Array([255, 254, 0])).body", "[ReadableStream (binary): 3 bytes]", 3),
        ("c22 half a character", "new Response(new Uint8Array([104, 0xc3])).body", "[ReadableStream (binary): 2 bytes]", 2),
        ("c22 at the end", 'ReadableStream.from([new TextEncoder().encode("x".repeat(1500)), new Uint8Array([255])])', "[ReadableStream (binary): 1501 bytes]", 1501),
    ],
)  # fmt: skip
async def test_views_show_the_beginning_of_a_stream(js: Scripts, id, made, preview, bytes):
    _, step, size = await shown(js, made)
    assert (step["output"], size) == (preview, bytes)


@pytest.mark.parametrize("made", ['new Response("hush").body', "new Response(new Uint8Array([255])).body"])
async def test_c33_a_sensitive_stream_is_shown_to_the_code_only(js: Scripts, made):
    run, step, size = await shown(js, made, '{ sensitive: "output" }')
    assert step["output"] == "[REDACTED]"
    assert size > 0
    answer = await raw(js, f"{run.path}/step?name=a-1&type=step")
    assert answer.json()["result"]["output"] == "[REDACTED]"


async def test_c18_the_step_endpoint_gives_the_bytes_of_a_stream(js: Scripts):
    run, _, _ = await shown(js, "new Response(new Uint8Array([0, 255, 10])).body")
    for _ in range(2):  # as often as anybody asks
        answer = await raw(js, f"{run.path}/step?name=a-1&type=step")
        assert (answer.headers["content-type"], answer.content) == ("application/octet-stream", b"\x00\xff\n")


async def test_a_timeout_while_a_stream_is_read_is_followed_by_a_retry(js: Scripts):
    run = await js.run(
        'const stream = await step.do("a", { timeout: 150, retries: { limit: 1, delay: 0 } }, async ({ attempt }) => attempt === 1\n'
        "  ? new ReadableStream({ start(controller) { controller.enqueue(new Uint8Array(10)); } })\n"
        '  : new Response("second").body);\n'
        "return await new Response(stream).text();"
    )
    assert await run.output() == "second"
    assert (await run.details())["steps"][0]["output"] == "second"


async def raw(js: Scripts, path: str) -> httpx.Response:
    """The answer to a GET as it is."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{js.live.base_url}{js.tenant.path}{path}", headers=js.tenant.headers)
