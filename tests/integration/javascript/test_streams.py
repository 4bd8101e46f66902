"""Steps whose results are streams: what the code that awaits them, and a later life of the run, is given."""

from __future__ import annotations

import pytest

from tests.support.javascript import Scripts

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
