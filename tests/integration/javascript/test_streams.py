"""Steps whose results are streams: what the code that awaits them, and a later life of the run, is given."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from instances.lifecycle import Kind
from tenants.auth import operator
from tests.support.javascript import Run, Scripts

TEXT = """
const text = async (stream) => {
  let all = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) all += part;
  return all;
};
"""

INVALID = (
    'The execution of the Workflow instance was terminated, as the step "%s" returned an invalid ReadableStream output'
)


async def test_c10_a_stream_is_stored_and_read_by_the_caller(js: Scripts):
    run = await js.run(
        TEXT
        + """
        let calls = 0;
        const stream = await step.do("a", async () => {
          calls++;
          return new ReadableStream({
            start(controller) {
              for (let i = 0; i < 14; i++) controller.enqueue(new TextEncoder().encode("x".repeat(1024)));
              controller.close();
            },
          });
        });
        const read = await text(stream);
        return [stream instanceof ReadableStream, read.length, calls];
        """
    )
    assert await run.output() == [True, 14 * 1024, 1]


async def test_c11_an_empty_stream_is_an_empty_stream(js: Scripts):
    run = await js.run(TEXT + 'return await text(await step.do("a", async () => new Blob([]).stream()));')
    assert await run.output() == ""


async def test_c12_a_locked_stream_is_no_result(js: Scripts):
    run = await js.run(
        """
        await step.do("a", { retries: { limit: 0, delay: 0 } }, async () => {
          const stream = new Response("x").body;
          stream.getReader();
          return stream;
        });
        """
    )
    assert await run.error() == ("WorkflowFatalError", INVALID % "a")
    [step] = (await run.details())["steps"]
    assert "the stream is locked" in step["attempts"][0]["error"]["message"]


async def test_a_stream_that_has_been_read_from_is_no_result(js: Scripts):
    run = await js.run(
        """
        await step.do("a", { retries: { limit: 0, delay: 0 } }, async () => {
          const stream = new Response("x").body;
          const reader = stream.getReader();
          await reader.read();
          reader.releaseLock();
          return stream;
        });
        """
    )
    assert await run.error() == ("WorkflowFatalError", INVALID % "a")
    [step] = (await run.details())["steps"]
    assert "the stream has been read from" in step["attempts"][0]["error"]["message"]


@pytest.mark.parametrize("chunk", ["'text'", "5", "{}"])
async def test_c13_chunks_must_be_bytes(js: Scripts, chunk: str):
    config = "{ retries: { limit: 0, delay: 0 } }"
    run = await js.run(f'await step.do("a", {config}, async () => ReadableStream.from([{chunk}]));')
    assert await run.error() == ("WorkflowFatalError", INVALID % "a")


async def test_c17_chunks_of_other_views_come_back_as_bytes(js: Scripts):
    run = await js.run(
        """
        const stream = await step.do("a", async () => ReadableStream.from([new Int16Array([1, -1]), new Uint8Array([7]).buffer]));
        const { value } = await stream.getReader().read();
        return [value instanceof Uint8Array, [...value]];
        """  # noqa: E501
    )
    assert await run.output() == [True, [1, 0, 255, 255, 7]]


async def test_c18_a_stream_that_was_stored_is_given_again_in_another_life(js: Scripts):
    run = await js.run(
        TEXT
        + """
        const first = await step.do("a", async () => new Response("stored").body);
        const once = await text(first);
        await step.waitForEvent("go", { type: "go" });
        return [once, await text((await step.do("b", async () => new Response("again").body)))];
        """
    )
    await run.until("waiting")
    await run.send("go")
    assert await run.output() == ["stored", "again"]


async def test_c24_bytes_keep_their_type(js: Scripts):
    run = await js.run(
        """
        const { bytes, shorts } = await step.do("a", async () => ({
          bytes: new Uint8Array(200 * 1024).fill(7), shorts: new Int16Array([1, 2, 3]).subarray(1),
        }));
        return [bytes.length, bytes instanceof Uint8Array, bytes[9], shorts instanceof Int16Array, [...shorts], shorts.buffer.byteLength];
        """  # noqa: E501
    )
    assert await run.output() == [200 * 1024, True, 7, True, [2, 3], 4]


async def test_nodes_modules_and_globals_come_with_their_flag(js: Scripts):
    run = await js.run(
        """
        const { createHash } = await import("node:crypto");
        return await step.do("a", async () => [createHash("sha256").update("x").digest("hex").length, Buffer.from("hi").toString("hex"),
          util.inspect({ a: 1 })]);
        """,  # noqa: E501
        head='import { WorkflowEntrypoint } from "cloudflare:workers";\nimport util from "node:util";\n',
        flags=["nodejs_compat"],
    )
    assert await run.output() == [64, "6869", "{ a: 1 }"]


# --- large ones ----------------------------------------------------------------------------------------------------

MIB = 1 << 20
BIG = """
/** `size` bytes in chunks of 100,000, each begun with its number. */
const big = (size) => {
  let sent = 0;
  return new ReadableStream({ pull(controller) {
    const chunk = new Uint8Array(Math.min(100_000, size - sent)).fill(sent % 251);
    if (chunk.length === 0) { controller.close(); return; }
    sent += chunk.length;
    controller.enqueue(chunk);
  } });
};
/** How many bytes of `big` a stream has; -1 if they are others. */
const size = async (stream) => {
  let read = 0;
  for await (const chunk of stream) {
    for (let at = 0; at < chunk.length; at += 99) {
      const place = read + at;
      if (chunk[at] !== (place - place % 100_000) % 251) return -1;
    }
    read += chunk.length;
  }
  return read;
};
"""


def big(size: int) -> bytes:
    return b"".join(bytes([at % 251]) * min(100_000, size - at) for at in range(0, size, 100_000))


async def pieces(run: Run) -> list[Any]:
    """What the journal has of streams of the instance."""
    query = (
        "select j.name, j.attempt, octet_length(j.payload) as size"
        " from instance i join journal j using (account_id, key)"
        " where i.instance_id = $1 and j.kind = $2 order by j.seq"
    )
    return await run.scripts.live.platform.db.engine.fetch(query, run.id, int(Kind.STEP_PIECE))


async def swept(run: Run, *attempts: int) -> None:
    """Returns once the journal has pieces of these attempts only."""
    async with asyncio.timeout(8):
        while {row["attempt"] for row in await pieces(run)} != set(attempts):
            await asyncio.sleep(0.01)


async def answer(run: Run, step: str) -> httpx.Response:
    scripts = run.scripts
    url = f"{scripts.live.base_url}{scripts.tenant.path}{run.path}/step?name={step}&type=step"
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(url, headers={**scripts.tenant.headers, "accept-encoding": "br, gzip"})


async def test_a_large_stream_is_read_in_every_life_and_by_callers(js: Scripts):
    total = 20 * MIB + 3
    run = await js.run(
        f"""
        const stream = await step.do("a", async () => big({total}));
        seen.push(await size(stream));
        await step.waitForEvent("go", {{ type: "go" }});
        return seen;
        """,
        outside=BIG + "const seen = [];",
    )
    await run.until("waiting", seconds=50)
    await run.send("go")
    assert (await run.until("complete", seconds=50))["output"] == [total, total]  # one for each life
    found = await answer(run, "a-1")
    assert (found.headers["content-type"], found.headers["content-length"]) == ("application/octet-stream", str(total))
    assert found.content == big(total)
    stored = [row["size"] for row in await pieces(run) if row["name"] == "a"]
    assert len(stored) > 20
    assert max(stored) <= MIB
    shown = {step["name"]: step.get("output") for step in (await run.details())["steps"]}
    assert shown["a-1"] == f"[ReadableStream (binary): {total} bytes]"


async def test_c14_a_chunk_of_more_than_16_mib_is_refused(js: Scripts):
    run = await js.run(
        'await step.do("a", async () => ReadableStream.from([new Uint8Array(16 * 1024 * 1024 + 1)]));',
    )
    assert await run.error() == ("WorkflowFatalError", INVALID % "a")
    [step] = (await run.details())["steps"]
    assert "a chunk of more than 16 MiB" in step["attempts"][0]["error"]["message"]
    assert await pieces(run) == []


async def test_c15_a_restart_removes_what_was_stored(js: Scripts):
    run = await js.run(
        """
        const first = (await step.do("a", async () => big(event.payload.size))).constructor.name;
        await step.waitForEvent("go", { type: "go" });
        return first;
        """,
        {"size": 300_000},
        outside=BIG,
    )
    await run.until("waiting")
    before = await pieces(run)
    assert [row["attempt"] for row in before] == [1, 1]
    await run.command("restart")
    await run.until("waiting")
    assert len(await pieces(run)) == 2
    await run.send("go")
    assert await run.output() == "ReadableStream"
    await run.command("restart", **{"from": {"name": "a"}})
    await run.until("waiting")
    async with asyncio.timeout(8):
        while len(await pieces(run)) != 2:
            await asyncio.sleep(0.01)
    assert (await answer(run, "a-1")).content == big(300_000)


async def test_c20_to_c22_lists_show_the_beginning_of_a_stream(js: Scripts):
    run = await js.run(
        """
        await step.do("text", async () => new Response("héllo").body);
        await step.do("long", async () => new Response("x".repeat(2048)).body);
        await step.do("cut", async () => ReadableStream.from([new Uint8Array([0x68, 0xc3])]));
        const chunks = [new Uint8Array(200_000).fill(65), new Uint8Array([255])];
        await step.do("late", async () => ReadableStream.from(chunks));
        await step.do("none", async () => ReadableStream.from([]));
        """
    )
    await run.until("complete")
    shown = {step["name"]: step["output"] for step in (await run.details())["steps"]}
    assert shown == {
        "text-1": "héllo",
        "long-1": "x" * 1024 + "[truncated output]",
        "cut-1": "[ReadableStream (binary): 2 bytes]",
        "late-1": "[ReadableStream (binary): 200001 bytes]",
        "none-1": "",
    }
    assert (await answer(run, "none-1")).content == b""


async def test_c23_a_timeout_while_the_stream_is_read_leaves_nothing(js: Scripts):
    run = await js.run(
        """
        const stream = await step.do("a", { timeout: 400, retries: { limit: 1, delay: 0 } }, async ({ attempt }) => {
          if (attempt === 2) return big(10);
          let sent = 0;
          return new ReadableStream({
            async pull(controller) {
              if (sent++ === 3) await new Promise(() => {});
              controller.enqueue(new Uint8Array(192 * 1024));
            },
            cancel() { console.log("nobody reads on"); },
          });
        });
        return await size(stream);
        """,
        outside=BIG,
    )
    assert await run.output() == 10
    [step] = (await run.details())["steps"]
    error = {"name": "WorkflowTimeoutError", "message": "Execution timed out after 400ms"}
    assert [attempt["error"] for attempt in step["attempts"]] == [error, None]
    await swept(run, 2)
    assert await run.logs() == ["nobody reads on"]


async def test_a_stream_that_breaks_fails_its_attempt(js: Scripts):
    run = await js.run(
        """
        const stream = await step.do("a", { retries: { limit: 1, delay: 0 } }, async ({ attempt }) => {
          if (attempt === 2) return big(10);
          let sent = 0;
          return new ReadableStream({ pull(controller) {
            if (sent++ === 5) throw new RangeError("broke");
            controller.enqueue(new Uint8Array(100 * 1024));
          } });
        });
        return await size(stream);
        """,
        outside=BIG,
    )
    assert await run.output() == 10
    [step] = (await run.details())["steps"]
    assert step["attempts"][0]["error"] == {"name": "RangeError", "message": "broke"}
    await swept(run, 2)


async def test_many_streams_at_once(js: Scripts):
    """More pieces than may be on their way at once, of steps side by side."""
    run = await js.run(
        """
        const sizes = Array.from({ length: 40 }, (_, i) => 400_000 + i);
        const streams = await Promise.all(sizes.map((wanted) => step.do("a", async () => big(wanted))));
        const found = await Promise.all(streams.map(size));
        return found.every((one, i) => one === sizes[i]);
        """,
        outside=BIG,
    )
    assert (await run.until("complete", seconds=30))["output"] is True
    assert (await answer(run, "a-7")).content == big(400_006)


async def test_c33_a_sensitive_stream_is_read_by_the_code_alone(js: Scripts):
    run = await js.run(
        """
        const stream = await step.do("a", { sensitive: "output" }, async () => new Response("secret").body);
        return (await new Response(stream).text()).length;
        """
    )
    assert await run.output() == 6
    assert (await run.details())["steps"][0]["output"] == "[REDACTED]"
    assert (await answer(run, "a-1")).json()["result"]["output"] == "[REDACTED]"


async def test_a_rollback_is_given_a_stream_of_its_own(js: Scripts):
    run = await js.run(
        """
        const rollback = async ({ output }) => { console.log(`undo ${await new Response(output).text()}`); };
        const options = { rollback };
        const stream = await step.do("a", async () => new Response("stored").body, options);
        console.log(await new Response(stream).text());
        throw new Error("no");
        """
    )
    assert await run.error() == ("Error", "no")
    assert await run.logs() == ["stored", "undo stored"]


async def test_subscribers_are_told_the_beginning_of_a_stream(js: Scripts):
    name = js.name()
    run = await js.run(
        """
        if (event.payload.of === undefined) { await step.do("a", async () => new Response("text").body); return; }
        return await step.do("follow", async () => {
          const feed = await (await env.FLOW.get(event.payload.of)).subscribe({ filter: ["step_completed"] });
          return (await feed.next()).value.output;
        });
        """.replace("env.FLOW", "this.env.FLOW"),
        {},
        name=name,
    )
    await run.until("complete")
    follower = await js.create(name, {"of": run.id})
    assert await follower.output() == "text"


async def test_a_deleted_instance_leaves_no_pieces(js: Scripts):
    run = await js.run('await step.do("a", async () => big(500_000));', outside=BIG)
    await run.until("complete")
    query = "select key from instance where instance_id = $1"
    key = await js.live.platform.db.engine.fetchval(query, run.id)
    await js.call("DELETE", run.path)
    assert await js.live.platform.db.engine.fetchval("select count(*) from journal where key = $1", key) == 0


async def test_streams_count_towards_what_an_instance_may_store(js: Scripts):
    tenants = js.live.platform.tenants
    caller = operator(js.tenant.id)
    code = """
        await step.do("a", { retries: { limit: 1, delay: 0 } }, async ({ attempt }) => {
          if (attempt === 2) return big(600_000);
          let sent = 0;
          return new ReadableStream({ pull(controller) {
            if (sent++ === 5) throw new RangeError("broke");
            controller.enqueue(new Uint8Array(100_000));
          } });
        });
        await step.do("b", async () => big(event.payload.more));
        """
    name = await js.flow(code, outside=BIG)
    await tenants.accounts.set_limits(caller, changes={"state_bytes": 1_000_000})
    try:
        fits = await js.create(name, {"more": 300_000})
        await fits.until("complete")
        run = await js.create(name, {"more": 500_000})
        said = "The instance has exceeded the 1000000 bytes storage limit"
        assert await run.error() == ("WorkflowFatalError", said)
        async with asyncio.timeout(8):
            while [row["name"] for row in await pieces(run)] != ["a"] * 4:
                await asyncio.sleep(0.01)
    finally:
        await tenants.accounts.set_limits(caller, changes={"state_bytes": None})
