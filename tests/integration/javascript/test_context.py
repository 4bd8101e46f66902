"""What step callbacks are given and may return: the checks of Cloudflare's context tests, on deployed scripts."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import Scripts

DEFAULTS = {"retries": {"limit": 5, "delay": 10000, "backoff": "exponential"}, "timeout": "10 minutes"}
FAST = "{ retries: { limit: %d, delay: 0 } }"


async def test_c01_the_attempt_counts_from_one(js: Scripts):
    assert await (await js.run('return await step.do("a", async (ctx) => ctx.attempt);')).output() == 1


async def test_c02_a_failing_step_runs_once_more_than_its_limit(js: Scripts):
    run = await js.run(
        "const seen = [];\n"
        'try { await step.do("a", %s, async (ctx) => { seen.push(ctx.attempt); throw new Error("no"); }); }\n'
        "catch (error) { throw new Error(`${error.message} after ${seen}`); }" % (FAST % 2)
    )
    assert await run.error() == ("Error", "no after 1,2,3")
    [step] = (await run.details())["steps"]
    assert [attempt["success"] for attempt in step["attempts"]] == [False, False, False]


async def test_c03_retries_wait_for_the_delay(js: Scripts):
    run = await js.run(
        'const config = { retries: { limit: 1, delay: "1 second", backoff: "constant" } };\n'
        'return await step.do("a", config, async (ctx) => { if (ctx.attempt === 1) throw new Error("no"); return 1; });'
    )
    await run.output()
    [step] = (await run.details())["steps"]
    first, second = (attempt["start"] for attempt in step["attempts"])
    assert first[:19] != second[:19], "at least a second lies between the two"


async def test_c05_the_context_names_the_step(js: Scripts):
    run = await js.run('return await step.do("my step", async (ctx) => ctx.step);')
    assert await run.output() == {"name": "my step", "count": 1}


async def test_c06_names_are_counted_one_by_one(js: Scripts):
    run = await js.run(
        "const counts = [];\n"
        'for (const name of ["a", "a", "b"]) counts.push(await step.do(name, async (ctx) => ctx.step.count));\n'
        "return counts;"
    )
    assert await run.output() == [1, 2, 1]
    assert [step["name"] for step in (await run.details())["steps"]] == ["a-1", "a-2", "b-1"]


async def test_c07_the_default_configuration(js: Scripts):
    run = await js.run('return await step.do("a", async (ctx) => ctx.config);')
    assert await run.output() == DEFAULTS
    [step] = (await run.details())["steps"]
    assert step["config"] == DEFAULTS


async def test_c08_what_a_configuration_leaves_out_is_the_default(js: Scripts):
    config = '{ retries: { limit: 3, delay: 500 }, timeout: "5 minutes" }'
    run = await js.run(f'return await step.do("a", {config}, async (ctx) => ctx.config);')
    assert await run.output() == {
        "retries": {"limit": 3, "delay": 500, "backoff": "exponential"},
        "timeout": "5 minutes",
    }


async def test_c09_the_context_is_a_copy(js: Scripts):
    run = await js.run(
        'await step.do("a", %s, async (ctx) => { ctx.config.retries.limit = 9; throw new Error("no"); });' % (FAST % 1)
    )
    await run.error()
    [step] = (await run.details())["steps"]
    assert len(step["attempts"]) == 2


@pytest.mark.parametrize(
    ("id", "value", "told"),
    [
        ("c24", "new Uint8Array(200_000).fill(7)", "Uint8Array 200000 7"),
        ("c25", "new Uint8Array(800_000).fill(7).subarray(1000, 201_000)", "Uint8Array 200000 7"),
        ("c26", "new Uint8Array([7, 2])", "Uint8Array 2 7"),
        ("c27", "new Int16Array([7, -2, 3])", "Int16Array 3 7"),
        ("v-float", "new Float64Array([7, 0.5])", "Float64Array 2 7"),
        ("v-big", "new BigInt64Array([7n])", "BigInt64Array 1 7"),
        ("v-clamped", "new Uint8ClampedArray([7, 300])", "Uint8ClampedArray 2 7"),
    ],
)
async def test_views_keep_type_and_content(js: Scripts, id, value, told):
    tell = "`${value.constructor.name} ${value.length} ${value[0]}`"
    run = await js.run(
        f'const value = await step.do("a", async () => {value});\n'
        f'await step.sleep("so that the value comes back from the record", 1);\nreturn {tell};'
    )
    assert await run.output() == told


@pytest.mark.parametrize(
    ("id", "shape", "path"),
    [("c28", "{ deep: { view } }", "value.deep.view"), ("c29", "[{ view }, { view }]", "value[1].view")],
)
async def test_nested_views_are_stored_without_the_buffer_around_them(js: Scripts, id, shape, path):
    run = await js.run(
        "const value = await step.do('a', async () => {\n"
        "  const view = new Uint8Array(2_000_000).fill(3).subarray(5, 1005);\n"
        f"  return {shape};\n}});\nreturn [{path}.length, {path}.buffer.byteLength, {path}[0]];"
    )
    assert await run.output() == [1000, 1000, 3]


@pytest.mark.parametrize(
    ("id", "value", "shown"),
    [
        ("e11", "new Uint8Array(200_000)", '"[Uint8Array(200000 bytes)]"'),
        ("e12", "({ deep: [{ view: new Uint8Array(200_000) }] })", '{"deep":[{"view":"[Uint8Array(200000 bytes)]"}]}'),
        ("buffer", "new ArrayBuffer(3)", '"[ArrayBuffer(3 bytes)]"'),
        ("shorts", "new Int16Array(3)", '"[Int16Array(6 bytes)]"'),
    ],
)
async def test_views_show_bytes_by_their_size(js: Scripts, id, value, shown):
    run = await js.run(f'await step.do("a", async () => {value});\nreturn await step.do("b", async () => "end");')
    assert await run.output() == "end"
    assert (await run.details())["steps"][0]["output"] == shown
    messages = [line["message"] for line in await js.call("GET", f"{run.path}/logs?per_page=1000")]
    assert "Step completed" in messages


async def test_c30_c31_sensitive_outputs_are_shown_to_the_code_only(js: Scripts):
    run = await js.run(
        'const secret = await step.do("a", { sensitive: "output" }, async () => "hush");\n'
        'return await step.do("b", async () => secret.length);'
    )
    assert await run.output() == 4
    details = await run.details()
    assert details["steps"][0]["output"] == "[REDACTED]"
    assert "hush" not in str(details)
    assert "hush" not in str(await js.call("GET", f"{run.path}/step?name=a-1&type=step"))


async def test_c32_errors_of_sensitive_steps_are_shown(js: Scripts):
    config = '{ sensitive: "output", retries: { limit: 0, delay: 0 } }'
    run = await js.run(f'await step.do("a", {config}, async () => {{ throw new Error("why"); }});')
    assert await run.error() == ("Error", "why")
    [step] = (await run.details())["steps"]
    assert step["attempts"][0]["error"]["message"] == "why"


VALUES = {
    "undefined": ("undefined", "value === undefined"),
    "null": ("null", "value === null"),
    "zero": ("0", "value === 0"),
    "minus zero": ("-0", "Object.is(value, -0)"),
    "nan": ("NaN", "Number.isNaN(value)"),
    "infinity": ("-Infinity", "value === -Infinity"),
    "false": ("false", "value === false"),
    "empty text": ('""', 'value === ""'),
    "a lone surrogate": ('"a\\ud800b"', "value === 'a\ufffdb'"),
    "bigint": ("12345678901234567890n", "value === 12345678901234567890n"),
    "date": ("new Date(5)", "value instanceof Date && value.getTime() === 5"),
    "no date": ("new Date(NaN)", "value instanceof Date && Number.isNaN(value.getTime())"),
    "map": ("new Map([[{ k: 1 }, new Date(2)]])", "value instanceof Map && [...value][0][0].k === 1 && [...value][0][1].getTime() === 2"),
    "set": ("new Set([1, 'b'])", "value instanceof Set && value.has('b') && value.size === 2"),
    "regexp": ("/a\\/b/gi", "value instanceof RegExp && value.source === 'a\\\\/b' && value.flags === 'gi'"),
    "buffer": ("new Uint8Array([1, 2]).buffer", "value instanceof ArrayBuffer && value.byteLength === 2"),
    "data view": ("new DataView(new Uint8Array([1, 2, 3]).buffer, 1, 2)", "value instanceof DataView && value.byteLength === 2 && value.getUint8(0) === 2"),
    "error": ("new RangeError('r')", "value instanceof RangeError && value.message === 'r'"),
    "error with a cause": ("new Error('e', { cause: new TypeError('c', { cause: 5 }) })", "value.cause instanceof TypeError && value.cause.cause === 5 && !('cause' in new Error())"),
    "undefined inside": ("({ a: undefined, b: [undefined] })", "'a' in value && value.a === undefined && value.b.length === 1"),
    "class": ("new (class Point { x = 1; norm() { return 1; } })()", "value.x === 1 && value.norm === undefined"),
    "the tag of our own": ("({ $t: 'u', v: 1 })", "value.$t === 'u' && value.v === 1"),
    "__proto__": ("JSON.parse('{\"__proto__\": {\"x\": 1}}')", "Object.keys(value)[0] === '__proto__' && value.x === undefined"),
    "holes": ("[, 1]", "value.length === 2 && value[1] === 1"),
    "boxed": ("Object(5)", "value == 5"),
    "toJSON": ("({ a: 1, toJSON: 2 })", "value.a === 1 && value.toJSON === 2"),
    "shared": ("(() => { const one = { a: 1 }; return [one, one]; })()", "value[0].a === 1 && value[1].a === 1"),
    "null prototype": ("Object.assign(Object.create(null), { a: 1 })", "value.a === 1"),
}  # fmt: skip


async def test_outputs_of_all_kinds_come_back_as_they_were(js: Scripts):
    """Both at once and from the record: the sandbox of the second half knows the values from the journal only."""
    pairs = ",\n".join(f"[{name!r}, () => {made}, (value) => {held}]" for name, (made, held) in VALUES.items())
    handle = await js.flow(
        "const broken = [];\n"
        "for (const [name, make, holds] of CASES) {\n"
        "  const value = await step.do(name, async () => make());\n"
        "  if (!holds(value)) broken.push(name);\n}\n"
        'await step.waitForEvent("again", { type: "go" });\n'
        "return broken;",
        outside=f"const CASES = [{pairs}];",
    )
    run = await js.create(handle)
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")  # the run leaves memory: what follows is a replay
    await run.command("resume")
    await run.send("go")
    assert await run.output() == []


@pytest.mark.parametrize(
    ("id", "value"),
    [
        ("n12 function", "({ f() {} })"),
        ("n12 in array", "[() => 1]"),
        ("symbol", "Symbol('s')"),
        ("circle", "(() => { const a = {}; a.a = a; return a; })()"),
        ("promise inside", "({ p: Promise.resolve(1) })"),
        ("weak", "new WeakMap()"),
        ("getter", "({ get a() { throw new Error('mine'); } })"),
        ("proxy", "new Proxy({}, { ownKeys() { throw new Error('mine'); } })"),
        ("response", "new Response('x')"),
        ("headers inside", "({ headers: new Headers() })"),
        ("url", "new URL('http://example.org/')"),
        ("generator", "(function* () {})()"),
    ],
)
async def test_what_cannot_be_stored_ends_the_instance(js: Scripts, id, value):
    run = await js.run(
        f'try {{ await step.do("a", {{ retries: {{ limit: 3, delay: 0 }} }}, async () => {value}); }}\n'
        'catch { return "caught"; }',
    )
    name, message = await run.error()
    assert name == "WorkflowFatalError"
    assert message == (
        'The execution of the Workflow instance was terminated, as the step "a" returned a value which is not'
        " serialisable"
    )
    [step] = (await run.details())["steps"]
    [attempt] = step["attempts"]
    assert attempt["error"]["message"] == 'Value returned from step "a" is not serialisable'


async def test_outputs_over_a_mebibyte_fail_the_attempt(js: Scripts):
    run = await js.run(
        'try { await step.do("big", { retries: { limit: 1, delay: 0 } }, async () => "x".repeat(2 ** 20)); }\n'
        "catch (error) { return [error.name, error.message]; }"
    )
    assert await run.output() == [
        "WorkflowInternalError",
        "Step big-1 output is too large. Maximum allowed size is 1MiB.",
    ]
    [step] = (await run.details())["steps"]
    assert len(step["attempts"]) == 2


async def test_900_kibibytes_pass(js: Scripts):
    run = await js.run('return (await step.do("big", async () => "x".repeat(900 * 1024))).length;')
    assert await run.output() == 900 * 1024


async def test_an_output_of_run_that_is_too_large_errors_the_instance(js: Scripts):
    run = await js.run('await step.do("a", async () => 1); return "x".repeat(2 ** 20);')
    assert (await run.error())[0] == "WorkflowInternalError"


async def test_an_output_of_run_that_cannot_be_stored_errors_the_instance(js: Scripts):
    run = await js.run('await step.do("a", async () => 1); return { f() {} };')
    assert (await run.error())[0] == "WorkflowFatalError"


async def test_a_stream_is_no_output_of_run(js: Scripts):
    run = await js.run('await step.do("a", async () => 1); return new Response("x").body;')
    assert (await run.error())[1].endswith("a ReadableStream cannot be stored")


async def test_n14_what_an_abandoned_attempt_returns_is_dropped(js: Scripts):
    run = await js.run(
        'return await step.do("a", { timeout: 300, retries: { limit: 9, delay: 0 } }, async (ctx) => {\n'
        '  if (ctx.attempt === 1) { await new Promise((done) => setTimeout(done, 350)); late = true; return "late"; }\n'
        '  while (!late) await new Promise((done) => setTimeout(done, 5));\n  return "in time";\n});',
        outside="let late = false;",
    )
    assert await run.output() == "in time"
    [step] = (await run.details())["steps"]
    first = step["attempts"][0]
    assert first["error"] == {"name": "WorkflowTimeoutError", "message": "Execution timed out after 300ms"}


@pytest.mark.parametrize(
    ("id", "chunks", "told"),
    [
        ("c10", "['héllo '.repeat(2400)]", 16_800),
        ("c11", "[]", 0),
        ("c17", "[new Int16Array([1, 2, 3])]", 6),
    ],
)
async def test_streams_are_stored_and_can_be_read(js: Scripts, id, chunks, told):
    run = await js.run(
        'const stream = await step.do("a", async () => new ReadableStream({ start(controller) {\n'
        f"  for (const chunk of {chunks}) controller.enqueue(typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk);\n"
        "  controller.close();\n} }));\n"
        'await step.sleep("so that it comes from the record", 1);\n'
        "let size = 0;\nfor await (const chunk of stream) { if (!(chunk instanceof Uint8Array)) throw new Error('no bytes'); size += chunk.length; }\nreturn size;"
    )
    assert await run.output() == told
