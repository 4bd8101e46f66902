"""Deployed scripts that call the outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.api import new_tenant
from tests.support.http_server import UNFINISHED, HttpServer, Request
from tests.support.javascript import Scripts
from tests.support.live import live_for_tests


@pytest.fixture(scope="module")
async def js(databases, valkey) -> AsyncIterator[Scripts]:
    """A tenant of a Millrace whose calls may reach this machine."""
    allowed = {"egress_allow": ("127.0.0.0/8",), "egress_plain_http": True}
    async with live_for_tests(databases, valkey, **allowed) as running, httpx.AsyncClient(timeout=60) as client:
        yield Scripts(running, await new_tenant(running.platform), client)


@pytest.fixture
async def outside() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    yield server
    await server.stop()


async def test_a_step_calls_an_api_and_keeps_what_it_said(js: Scripts, outside: HttpServer) -> None:
    outside.answer("/orders", b'{"id":"\xc3\xa9-7"}', status="201 Created", headers=["X-Trace: t1"])
    run = await js.run(
        """
        const order = await step.do("order", async () => {
          const answer = await fetch(`${event.payload.url}/orders`, {
            method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ n: 1 }),
          });
          if (!answer.ok) throw new Error(`answered ${answer.status}`);
          return { ...await answer.json(), status: answer.status, trace: answer.headers.get("x-trace") };
        });
        await step.sleep("a while", 1);
        return order;
        """,
        {"url": outside.url("")},
    )
    assert await run.output() == {"id": "é-7", "status": 201, "trace": "t1"}
    [request] = outside.requests
    assert (request.method, request.body) == ("POST", b'{"n":1}')


async def test_a_large_body_passes_through_a_stream_and_a_digest(js: Scripts, outside: HttpServer) -> None:
    outside.answer("/large", b"0123456789abcdef" * 65_536)
    run = await js.run(
        """
        return await step.do("hash", async () => {
          const answer = await fetch(event.payload.url);
          const [one, two] = answer.body.tee();
          const bytes = await new Response(one).arrayBuffer();
          let size = 0;
          for await (const chunk of two) size += chunk.length;
          return [size, new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex(),
            (await (await fetch(event.payload.url)).text()).length];
        });
        """,
        {"url": outside.url("/large")},
    )
    size, digest, length = await run.output()
    assert size == length == 1 << 20
    assert digest == "aca1cd027e979588d14b877b7b0cb8585ad9fec599eb45801992ee5382b3760f"


async def test_what_may_not_be_called_is_an_error_of_the_step(js: Scripts, outside: HttpServer) -> None:
    run = await js.run(
        """
        return await step.do("call", async () => {
          const failures = [];
          for (const url of ["http://10.0.0.1/", "http://127.0.0.1:1/", event.payload.url]) {
            try { await fetch(url, { redirect: "error" }); } catch (error) { failures.push(error.name); }
          }
          return failures;
        });
        """,
        {"url": outside.url("/moved")},
    )
    outside.answer("/moved", status="302 Found", headers=["Location: /there"])
    assert await run.output() == ["TypeError", "TypeError", "TypeError"]


async def test_a_script_makes_as_many_calls_as_it_may(js: Scripts, outside: HttpServer) -> None:
    outside.answer("/", b"ok")
    code = """
    import { WorkflowEntrypoint } from "cloudflare:workers";
    export class Flow extends WorkflowEntrypoint {
      async run(event, step) {
        return step.do("call", async () => {
          let made = 0;
          try { for (;;) { await (await fetch(event.payload.url)).text(); made++; } }
          catch (error) { return [made, error.name, error.message]; }
        });
      }
    }
    """
    name = js.name()
    binding = {"type": "workflow", "name": "FLOW", "workflow_name": name, "class_name": "Flow"}
    await js.upload(name, {"index.js": code}, bindings=[binding], limits={"subrequests": 3})
    await js.bind(name, name, "Flow")
    run = await js.create(name, {"url": outside.url("/")})
    assert await run.output() == [3, "Error", "Too many subrequests."]


async def test_requests_are_counted_over_all_lives_of_a_run(js: Scripts, outside: HttpServer) -> None:
    outside.answer("/", b"")
    code = f"""
        const get = (name) => step.do(name, {{ retries: {{ limit: 0, delay: 0 }} }}, async () => {{
          try {{ return (await fetch({outside.url("/")!r})).status; }} catch (error) {{ return error.message; }}
        }});
        const before = [await get("a"), await get("b")];
        await step.waitForEvent("go", {{ type: "go" }});
        return [...before, await get("c"), await get("d")];
        """
    run = await js.run(code, limits={"subrequests": 3, "cpu_ms": 30_000})
    for _ in range(2):
        await run.until("waiting")
        await run.send("go")
        assert await run.output() == [200, 200, 200, "Too many subrequests."]
        await run.command("restart")  # which begins at none
    await run.until("waiting")
    await run.command("terminate")


async def test_a_restart_from_a_step_counts_what_was_before_it(js: Scripts, outside: HttpServer) -> None:
    outside.answer("/", b"")
    code = f"""
        const get = async () => {{
          try {{ return (await fetch({outside.url("/")!r})).status; }} catch (error) {{ return error.message; }}
        }};
        const found = [await step.do("a", get), await step.do("b", get)];
        return [...found, await step.do("c", get)];
        """
    run = await js.run(code, limits={"subrequests": 2, "cpu_ms": 30_000})
    assert await run.output() == [200, 200, "Too many subrequests."]
    await run.command("restart", **{"from": {"name": "b"}})
    assert await run.output() == [200, 200, "Too many subrequests."]


async def test_a_hundred_calls_at_once_are_made_fifty_at_a_time(js: Scripts, outside: HttpServer) -> None:
    gate = asyncio.Event()
    waiting = 0
    most = 0

    async def hold(request: Request, writer: asyncio.StreamWriter) -> object:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if waiting == 50:
            gate.set()
        await gate.wait()
        waiting -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return None

    outside.answers["/"] = hold
    run = await js.run(
        """
        return await step.do("calls", async () => {
          const answers = await Promise.all(Array.from({ length: 100 }, () => fetch(event.payload.url)));
          return (await Promise.all(answers.map((answer) => answer.text()))).join("").length;
        });
        """,
        {"url": outside.url("/")},
    )
    assert await run.output() == 200
    assert most == 50


async def test_calls_end_with_their_run(js: Scripts, outside: HttpServer) -> None:
    called = asyncio.Event()

    async def hang(request: Request, writer: asyncio.StreamWriter) -> object:
        called.set()
        return UNFINISHED

    outside.answers["/"] = hang
    run = await js.run('await step.do("call", () => fetch(event.payload.url));', {"url": outside.url("/")})
    await called.wait()
    await run.command("terminate")
    await run.until("terminated")
    async with asyncio.timeout(8):
        while outside.open:
            await asyncio.sleep(0.004)
