"""Workflows that Millrace and Cloudflare's local engine must run with the same result. Each is the body of
`run(event, step)`, and what callers do meanwhile.

What differs on purpose (docs/compatibility.md) is left out; so is what depends on the machine's speed.
"""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Act = tuple[str, Any]
"""`("send", payload)`: an event of type `go`. `(command, {...})`: pause, resume, terminate, restart. `("until", status)`:
wait for it. `("again", None)`: wait until a restarted instance has finished once more."""


@dataclass(frozen=True)
class Script:
    body: str
    acts: tuple[Act, ...] = ()


def caught(call: str) -> Script:
    return Script(f"try {{ return ['ok', tell(await {call})]; }} catch (error) {{ return ['threw', told(error)]; }}")


def bound(code: str) -> Script:
    return Script(
        f'return await step.do("ask", ONCE, async () => {{ const O = env.OTHER; const me = event.instanceId;\n{code}\n}});'
    )


VALUES = (
    "undefined", "null", "-0", "NaN", "-Infinity", "5n", "'text'", "new Date(5)", "new Date(NaN)", "new Map([[{ k: 1 }, new Date(2)]])",
    "new Set([1, 'b'])", "/a/gi", "new Uint8Array([1, 2]).buffer", "new Uint8Array([1, 2])", "new Int16Array([1, -2])",
    "new Float64Array([0.5])", "new BigInt64Array([7n])", "new RangeError('r')", "new Error('m', { cause: new TypeError('c') })",
    "({ a: undefined, b: [undefined] })", "({ a: 1, toJSON: 2 })", "(() => { const o = { a: 1 }; return [o, o]; })()", "(() => 1)",
    "({ f() {} })", "[() => 1]", "new Map([['a', new Map([[1, new Set([1n])]])]])", "({ b: 1, a: 2, 1: 3 })", "''",
)  # fmt: skip
"""Results of steps."""
THROWN = (
    "new Error('m')", "new RangeError('m')", "new (class Mine extends Error { name = 'Mine'; })('m')", "'text'", "5", "undefined", "null",
    "new (class X extends TypeError {})('m')", "new NonRetryableError('m')", "new Error('')", "new Error('A: b')", "Symbol('x')",
)  # fmt: skip
CONFIGURATIONS = (
    "undefined", "null", "{}", '{ retries: { limit: 3, delay: "5 seconds", backoff: "linear" }, timeout: 5000 }', '{ timeout: "1 minute" }',
    '{ sensitive: "output" }', "{ retries: { limit: 1 } }", "{ retries: { delay: 1 } }", "{ retries: { backoff: 'linear' } }",
    "{ retries: { limit: 1, delay: 1, foo: 1 } }", "{ foo: 1 }", "{ retries: { limit: 1, delay: 'soon' } }", "{ timeout: 0 }",
    "{ sensitive: 'all' }", "{ sensitive: true }", "{ retries: { limit: -1, delay: 1 } }", "{ retries: { limit: '1', delay: 1 } }",
    "{ retries: { limit: NaN, delay: 1 } }", "{ retries: { limit: 1, delay: -1 } }", "{ retries: { limit: 1, delay: 1, backoff: 'x' } }",
    "{ timeout: 'soon' }", "{ timeout: -1 }", "{ timeout: null }", "{ retries: null }", "{ retries: undefined }", "'text'", "5", "[]",
    "{ timeout: '100' }", "{ timeout: '5000 ms' }", "{ timeout: '1 hour 5 minutes' }", "{ timeout: '5s' }", "{ timeout: '30.5 seconds' }",
    "{ timeout: '' }",
)  # fmt: skip
CALLS = (
    "step.do('a', {})", "step.do('a', {}, 'x')", "step.do('a', null)", "step.do('a', async () => 1, 5)", "step.do('a', async () => 1, null)",
    "step.do('a', async () => 1, {})", "step.do('a', async () => 1, { rollback: 5 })", "step.do('a', async () => 1, () => {})",
    "step.do('a', async () => 1, { rollback() {}, rollbackConfig: { foo: 1 } })", "step.do('a', ONCE, () => { throw new Error('s'); })",
    "step.do('a', () => 5)", "step.do('a', () => ({ then(done) { done(5); } }))", "step.do('x'.repeat(257), async () => 1)",
    "step.do('x'.repeat(256), async () => 1)", "step.do('a\\nb', async () => 1)", "step.do('ü/☃', async () => 1)", "step.do('', async () => 1)",
    "step.sleep('s', 0)", "step.sleep('s', -5)", "step.sleep('s', '1 ms')", "step.sleep('s', '5')", "step.sleepUntil('s', new Date(0))",
    "step.sleepUntil('s', Date.now() + 300)", "step.waitForEvent('w', { type: 't', timeout: 50 })",
    "step.waitForEvent('w', { type: 't', timeout: '1 second' })",
)  # fmt: skip
"""Their names, arguments and errors."""
UNDO = "{ rollback: async ({ error, output, ctx, stepName }) => { undone.push([ctx.step, told(error), tell(output), stepName]); } }"
UNDONE = "const undone = globalThis[`undone ${event.instanceId}`] = [];\n"
PAUSE = "const pause = (ms) => new Promise((done) => setTimeout(done, ms));\n"
STREAMS = {
    "text": "new Response('héllo').body",
    "long": "new Response('x'.repeat(2048)).body",
    "binary": "new Response(new Uint8Array([255, 254, 0])).body",
    "empty": "new Blob([]).stream()",
    "shorts": "new ReadableStream({ start(c) { c.enqueue(new Int16Array([1, -1])); c.close(); } })",
    "of bytes": "new ReadableStream({ type: 'bytes', start(c) { c.enqueue(new Uint8Array([1, 2])); c.close(); } })",
    "teed": "new Response('abc').body.tee()[0]",
}

SCRIPTS: dict[str, Script] = {
    **{f"result {value}": caught(f'step.do("a", ONCE, async () => {{ return {value}; }})') for value in VALUES},
    **{f"run throws {value}": Script(f'await step.do("a", async () => 1);\nthrow {value};') for value in THROWN},
    **{f"step throws {value}": caught(f'step.do("a", ONCE, async () => {{ throw {value}; }})') for value in THROWN},
    **{f"uncaught {value}": Script(f'await step.do("a", ONCE, async () => {{ throw {value}; }});') for value in THROWN},
    **{f"configuration {value}": caught(f'step.do("a", {value}, async (ctx) => ctx)') for value in CONFIGURATIONS},
    **{f"call {value}": caught(value) for value in CALLS},
    **{
        f"stream {name}": Script(
            f'const stream = await step.do("a", async () => {made});\n'
            "return [stream instanceof ReadableStream, [...new Uint8Array(await new Response(stream).arrayBuffer())].slice(0, 9)];"
        )
        for name, made in STREAMS.items()
    },
    "attempts": Script('const seen = [];\ntry { await step.do("a", { retries: { limit: 2, delay: 1 } }, async (ctx) => { seen.push(ctx.attempt); throw new Error(`x${ctx.attempt}`); }); } catch (error) { return [seen, told(error)]; }'),
    "the context is a copy": Script('let n = 0;\ntry { await step.do("a", { retries: { limit: 1, delay: 1 } }, async (ctx) => { n++; ctx.config.retries.limit = 9; throw new Error("x"); }); } catch { return n; }'),
    "a delay function is asked": Script('let seen;\nawait step.do("a", { retries: { limit: 1, delay: (a) => { seen = [Object.keys(a).sort(), tell(a.ctx), told(a.error)]; return 1; } } }, async (ctx) => { if (ctx.attempt < 2) throw new TypeError("x"); });\nreturn seen;'),
    "timeout": caught('step.do("a", { timeout: 50, retries: { limit: 1, delay: 1 } }, () => new Promise((done) => setTimeout(done, 900)))'),
    "timeout uncaught": Script('await step.do("a", { timeout: "1 second", retries: { limit: 0, delay: 1 } }, () => new Promise((done) => setTimeout(done, 3000)));'),
    "timeout of a stream": caught("step.do('a', { timeout: 100, retries: { limit: 0, delay: 1 } }, async () => new ReadableStream({ start(c) { c.enqueue(new Uint8Array([1])); } }))"),
    "wait times out": Script("await step.waitForEvent('w', { type: 't', timeout: 20 });"),
    "events are kept": Script('await step.sleep("s", 700);\nconst got = [];\nfor (let i = 0; i < 3; i++) got.push((await step.waitForEvent("w", { type: "go" })).payload);\nreturn got;', (("send", 1), ("send", {"n": [None]}), ("send", "three"))),
    "two waits on a type": Script('const [a, b] = await Promise.all([step.waitForEvent("a", { type: "go" }), step.waitForEvent("b", { type: "go" })]);\nreturn [a.payload, b.payload];', (("send", 1), ("send", 2))),
    "a wait that is over": Script('const got = [];\ntry { await step.waitForEvent("a", { type: "go", timeout: 20 }); } catch (error) { got.push(told(error)); }\nawait step.sleep("s", 700);\ngot.push((await step.waitForEvent("b", { type: "go", timeout: 1000 })).payload);\nreturn got;', (("until wait", "s-1"), ("send", 1))),
    "all": Script(PAUSE + 'return await Promise.all([3, 1, 2].map((n) => step.do(`s${n}`, async () => { await pause(n * 40); return n; })));'),
    "all rejects": Script('await Promise.all([step.do("a", ONCE, async () => { throw new Error("x"); }), step.do("b", async () => 1)]);'),
    "race": Script(PAUSE + 'const slow = step.do("slow", async () => { await pause(200); return "slow"; });\nreturn [await Promise.race([slow, step.do("fast", async () => "fast")]), await slow];'),
    "any": Script(PAUSE + 'return await Promise.any([step.do("bad", ONCE, async () => { throw new Error("x"); }), step.do("good", async () => { await pause(100); return "good"; })]);'),
    "any of none": Script('try { await Promise.any([step.do("a", ONCE, async () => { throw new Error("x"); }), step.do("b", ONCE, async () => { throw new TypeError("y"); })]); } catch (error) { return [error.name, error.errors.map(told)]; }'),
    "equal names": Script('const seen = [];\nfor (const name of ["a", "a", "b", "a"]) seen.push(await step.do(name, async (ctx) => ctx.step));\nreturn seen;'),
    "names with numbers": Script('return [await step.do("a-1", async (ctx) => ctx.step), await step.do("a", async (ctx) => ctx.step), await step.do("a-1", async (ctx) => ctx.step)];'),
    "steps inside a step": Script('return await step.do("o", async () => { const a = await step.do("i", async () => 1); await step.sleep("s", 5); return a + await step.do("i", async () => 2); });'),
    "a failing step inside a step": Script('try { return await step.do("o", ONCE, () => step.do("i", ONCE, async () => { throw new TypeError("x"); })); } catch (error) { return told(error); }'),
    "an outer step again": Script('const made = [];\nawait step.do("o", { retries: { limit: 1, delay: 1 } }, async (ctx) => { await step.do("i", async (inner) => { made.push([ctx.attempt, inner.step.count]); }); if (ctx.attempt === 1) throw new Error("again"); });\nreturn made;'),
    "the event": Script('await step.do("a", async () => 1);\nreturn [Object.keys(event).sort(), event.workflowName, event.timestamp instanceof Date];'),
    "rollback": Script(UNDONE + f"for (const n of [1, 2, 3]) await step.do(`s${{n}}`, async () => n, {UNDO});\nthrow new TypeError('late');"),
    "rollback of a failed step": Script(UNDONE + f"await step.do('a', ONCE, async () => {{ throw new Error('x'); }}, {UNDO});"),
    "rollback stops": Script(UNDONE + f"await step.do('a', async () => 1, {UNDO});\nawait step.do('b', async () => 2, {{ rollback: async () => {{ undone.push('b'); throw new Error('stuck'); }}, rollbackConfig: ONCE }});\nawait step.do('c', async () => 3, {UNDO});\nthrow new Error('x');"),
    "rollback is tried again": Script(UNDONE + "await step.do('a', async () => 1, { rollback: async ({ ctx }) => { undone.push(ctx.attempt); if (undone.length < 3) throw new Error('again'); }, rollbackConfig: { retries: { limit: 3, delay: 1 } } });\nthrow new Error('x');"),
    "no rollback of what was caught": Script(UNDONE + f"try {{ await step.do('a', ONCE, async () => {{ throw new Error('x'); }}, {UNDO}); }} catch {{}}\nreturn 1;"),
    "no rollback of what cannot be stored": Script(UNDONE + f"await step.do('a', async () => 1, {UNDO});\nawait step.do('b', async () => (() => 1));"),
    "rollback of nested steps": Script(UNDONE + f"await step.do('o', async () => {{ await step.do('i', async () => 1, {UNDO}); return 2; }}, {UNDO});\nthrow new Error('x');"),
    "terminate with rollback": Script(UNDONE + "await step.do('a', async () => 1, { rollback: async ({ error, output }) => { undone.push([error.message, output]); } });\nawait step.waitForEvent('w', { type: 'go' });", (("until wait", "w-1"), ("terminate", {"rollback": True}))),
    "terminate": Script(UNDONE + f"await step.do('a', async () => 1, {UNDO});\nawait step.waitForEvent('w', {{ type: 'go' }});", (("until wait", "w-1"), ("terminate", {}))),
    "values in a later life": Script("const made = await step.do('a', async () => ({ d: new Date(5), m: new Map([[1, 2]]), s: new Set([1]), u: undefined, n: NaN, b: 5n, e: new RangeError('r'), x: new Uint8Array([1, 2]) }));\nlet failed;\ntry { await step.do('f', ONCE, async () => { throw new TypeError('x'); }); } catch (error) { failed = told(error); }\nawait step.waitForEvent('w', { type: 'go' });\nreturn [tell(made), failed];", (("until wait", "w-1"), ("pause", {}), ("until", "paused"), ("resume", {}), ("send", 1))),
    "pause while waiting": Script("return (await step.waitForEvent('w', { type: 'go' })).payload;", (("until wait", "w-1"), ("pause", {}), ("until", "paused"), ("pause", {}), ("send", 1), ("until", "paused"), ("resume", {}))),
    "pause in a step": Script("await step.do('a', () => new Promise((done) => setTimeout(done, 900)));\nreturn await step.do('b', async () => 1);", (("until wait", "a-1"), ("pause", {}), ("until", "waitingForPause"), ("until", "paused"), ("resume", {}))),
    "restart": Script("const id = await step.do('a', async () => crypto.randomUUID());\nreturn id.length;", (("until", "complete"), ("restart", {}), ("again", None))),
    "restart from a step": Script("await step.do('a', async () => 1);\nreturn await step.do('a', async (ctx) => ctx.step);", (("until", "complete"), ("restart", {"from": {"name": "a", "count": 2}}), ("again", None))),
    "restart of a failure": Script("await step.do('a', async () => 1);\nthrow new Error('x');", (("until", "errored"), ("restart", {}), ("again", None))),
    "create with an invalid id": bound("return [await tried(() => O.create({ id: '#no' })), await tried(() => O.create({ id: 'x'.repeat(101) })), await tried(() => O.create({ id: '*/30 * * * *-1' }))];"),
    "batches that are refused": bound("return [await tried(() => O.createBatch([])), await tried(() => O.createBatch(Array(101).fill({}))), await tried(() => O.createBatch({ count: 0 })), await tried(() => O.createBatch({ count: 101 })), await tried(() => O.createBatch({ count: '2' })), await tried(() => O.createBatch({ instances: [] })), await tried(() => O.createBatch({ instances: [{ id: '#' }] })), await tried(() => O.createBatch({})), await tried(() => O.createBatch())];"),
    "batches": bound("const list = await O.createBatch([{ id: `${me}a` }, { id: `${me}b` }, { id: `${me}a` }]);\nconst { created, errors } = await O.createBatch({ instances: [{ id: `${me}c` }, { id: `${me}a` }, { id: `${me}c` }] });\nconst counted = await O.createBatch({ count: 3 });\nreturn [list.map((one) => one.id.slice(me.length)), created.map((one) => one.id.slice(me.length)), errors.map((one) => [one.index, one.code, one.message]), counted.created.length, counted.errors];"),
    "batch delete": bound("for (const id of ['a', 'b']) await settled(await O.create({ id: me + id }));\nconst { deleted, errors } = await O.deleteBatch([`${me}a`, 'zz', `${me}b`, `${me}a`]);\nreturn [deleted.map((one) => one.id.slice(me.length)), errors, await tried(() => O.deleteBatch([])), await tried(() => O.deleteBatch(['?'])), await tried(() => O.deleteBatch('x'))];"),
    "commands on what has finished": bound("const one = await O.create();\nawait settled(one);\nreturn [await tried(() => one.terminate()), await tried(() => one.pause()), await tried(() => one.resume()), await tried(() => one.restart({ from: { name: 'nope' } })), await tried(() => one.restart()), (await settled(one)).status];"),
    "subscriptions": bound("const one = await O.create({ params: { retry: 1 } });\nawait settled(one);\nconst feed = await one.subscribe();\nconst seen = [];\nfor (;;) { const { done, value } = await feed.next(); if (done) break; const { eventId, timestamp, instanceId, config, ...rest } = value; seen.push(rest); }\nreturn [seen, await tried(() => one.subscribe({ cursor: -1 })), await tried(() => one.subscribe({ filter: ['nope'] }))];"),
}  # fmt: skip

TOOLS = r"""
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
const ONCE = { retries: { limit: 0, delay: 1 } };
/** A value, told in JSON. */
function tell(value, path = []) {
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string") return value.length > 200 ? `a text of ${value.length}` : value;
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : Number.isFinite(value) ? value : `${value}`;
  if (typeof value !== "object") return typeof value === "bigint" ? `${value}n` : typeof value;
  if (path.includes(value)) return "again";
  const down = (inner) => tell(inner, [...path, value]);
  if (Array.isArray(value)) return value.map(down);
  const kind = value.constructor?.name;
  if (value instanceof Date) return [kind, `${value.getTime()}`];
  if (value instanceof Map) return [kind, [...value].map(([key, item]) => [down(key), down(item)])];
  if (value instanceof Set) return [kind, [...value].map(down)];
  if (value instanceof RegExp) return [kind, `${value}`];
  if (value instanceof ArrayBuffer) return [kind, [...new Uint8Array(value)]];
  if (ArrayBuffer.isView(value)) return [kind, [...value].map(down)];
  if (value instanceof Error) return [...told(value), "cause" in value ? down(value.cause) : "no cause"];
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, down(item)]));
}
const told = (error) => [error.name, error.message, error instanceof Error];
const tried = async (work) => { try { return ["ok", typeof await work()]; } catch (error) { return ["threw", told(error)]; } };
const settled = async (instance) => {
  for (;;) {
    const status = await instance.status();
    if (["complete", "errored", "terminated"].includes(status.status)) return status;
    await new Promise((done) => setTimeout(done, 10));
  }
};
export class Other extends WorkflowEntrypoint {
  async run(event, step) {
    await step.do("a", async () => 1);
    if (event.payload?.retry) await step.do("r", { retries: { limit: 1, delay: 10 } }, async (ctx) => { if (ctx.attempt === 1) throw new TypeError("again"); return "hi"; });
    return "end";
  }
}
/** What handlers of an instance have noted. */
export class Undone extends WorkflowEntrypoint {
  async run(event, step) { return await step.do("a", async () => globalThis[`undone ${event.payload.id}`] ?? null); }
}
export class Flow extends WorkflowEntrypoint {
  async run(event, step) { return await SCRIPTS[event.payload.number].call(this, event, step, this.env); }
}
"""


def module() -> str:
    """Everything as one ES module; an instance of `Flow` runs the script whose `number` is in its payload."""
    scripts = ",\n".join(f"async function (event, step, env) {{\n{script.body}\n}}" for script in SCRIPTS.values())
    return f"{TOOLS}\nconst SCRIPTS = [\n{scripts}\n];\n"
