"""What hostile JavaScript gets: an error for itself, and nothing else.

Every attack runs as a deployed workflow, while an instance of another account is under way on the same worker.
"""

# ruff: noqa: E501 - lines of JavaScript

from __future__ import annotations

import pytest

from tests.security.scripts.conftest import CANARY
from tests.support.javascript import ONCE, Run, Scripts

CPU = {"limits": {"cpu_ms": 300}}


def in_step(code: str) -> str:
    return f'return await step.do("attack", {ONCE}, async () => {{ {code} }});'


async def attack(js: Scripts, code: str, **options) -> tuple[str, str]:
    """Error of an instance with this code."""
    run = await js.run(code, **options)
    error = (await run.until("errored", seconds=30))["error"]
    return error["name"], error["message"]


@pytest.mark.parametrize(
    ("id", "look"),
    [
        ("process", "typeof process === 'undefined' || typeof process.env?.PATH"),
        ("require", "typeof require"),
        ("module", "typeof module"),
        ("deno", "typeof Deno"),
        ("bun", "typeof Bun"),
        ("load", "typeof load"),
        ("read", "typeof read"),
        ("os", "typeof os"),
        ("d8", "typeof d8"),
        ("gc", "typeof gc"),
        ("wasm", "typeof WebAssembly"),
        ("shared", "typeof SharedArrayBuffer"),
        ("atomics", "typeof Atomics"),
        ("worker", "typeof Worker"),
        ("__module", "typeof __module"),
        ("box", "typeof box"),
        ("outbox", "typeof outbox"),
        ("post", "typeof post"),
        ("lives", "typeof lives"),
        ("xhr", "typeof XMLHttpRequest"),
        (
            "caller",
            "(() => { try { return typeof (function f() { return f.caller; })(); } catch { return 'undefined'; } })()",
        ),
    ],
)
async def test_the_host_is_not_there(js: Scripts, neighbour: Run, id, look):
    run = await js.run(in_step(f"return {look};"))
    assert await run.output() in ("undefined", True)


@pytest.mark.parametrize(
    "code",
    [
        "return eval('1 + 1');",
        "return new Function('return 1')();",
        "return (() => {}).constructor('return 1')();",
        "return (async () => {}).constructor('return 1')();",
        "return (function* () {}).constructor('yield 1')();",
        "return setTimeout('1', 1);",
    ],
)
async def test_code_cannot_be_made_from_texts(js: Scripts, neighbour: Run, code):
    name, _ = await attack(js, in_step(code))
    assert name in ("EvalError", "TypeError")


@pytest.mark.parametrize(
    "specifier",
    [
        "node:fs",
        "fs",
        "/etc/passwd",
        "file:///etc/passwd",
        "../../../../etc/passwd",
        "https://example.com/x.js",
        "data:text/javascript,export default 1",
    ],
)
async def test_nothing_can_be_imported_at_run_time(js: Scripts, neighbour: Run, specifier):
    _, message = await attack(js, in_step(f'return await import("{specifier}");'))
    assert message.startswith("No such module")


CPU_EATERS = {
    "loop": "for (;;);",
    "loop that catches": "for (;;) { try { for (;;); } catch {} }",
    "microtasks": "const again = () => Promise.resolve().then(again); await again(); await new Promise(() => {});",
    "await in a loop": "for (;;) await null;",
    "regex": "/^(a+)+$/.test('a'.repeat(64) + 'b');",
    "sort": "[1, 2, 3].sort(() => { for (;;); });",
    "getter": "return { get a() { for (;;); } };",
    "toString": "throw { get message() { for (;;); } };",
    "proxy": "return new Proxy({}, { ownKeys() { for (;;); } });",
    "then": "return { then() { for (;;); } };",
    "bigint": "let n = 3n; for (;;) n = n * n % (2n ** 20000n);",
    "join": "const a = []; a.length = 2 ** 30; for (;;) a.indexOf(1);",
}


@pytest.mark.parametrize("id", CPU_EATERS)
async def test_cpu_is_limited(js: Scripts, neighbour: Run, id):
    error = await attack(js, in_step(CPU_EATERS[id]), **CPU)
    assert error == ("Error", "Worker exceeded CPU time limit.")


async def test_cpu_outside_steps_is_limited(js: Scripts, neighbour: Run):
    error = await attack(js, 'await step.do("a", async () => 1); for (;;);', **CPU)
    assert error == ("Error", "Worker exceeded CPU time limit.")


MEMORY_EATERS = {
    "array": "const a = []; for (;;) a.push({ a: [1, 2, 3] });",
    "map": "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });",
    "buffers": "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1));",
    "closures": "let f = () => 0; for (;;) { const g = f; f = () => g; globalThis.keep = [f, globalThis.keep]; }",
    "split": "const t = 'ab'.repeat(1 << 24); const a = []; for (;;) a.push(t.split(''));",
}


@pytest.mark.parametrize("id", MEMORY_EATERS)
async def test_memory_is_limited(js: Scripts, neighbour: Run, id):
    name, message = await attack(js, in_step(MEMORY_EATERS[id]))
    assert name in ("RangeError", "WorkflowInternalError"), (name, message)


@pytest.mark.parametrize(
    ("id", "code", "name"),
    [
        ("recursion", "const f = () => f() + 1; f();", "RangeError"),
        ("recursion that catches", "const f = () => { try { f(); } finally { f(); } }; f();", None),
        ("huge text", "let s = 'x'; for (;;) s += s;", "RangeError"),
        ("huge array", "new Array(-1);", "RangeError"),
        ("huge buffer", "new ArrayBuffer(1e11);", "RangeError"),
        ("repeat", "'x'.repeat(2 ** 30);", "RangeError"),
        ("deep", "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a;", "WorkflowFatalError"),
        ("deep json", "JSON.parse('['.repeat(1e6));", None),
    ],
)
async def test_what_the_engine_refuses_is_an_error(js: Scripts, neighbour: Run, id, code, name):
    got, message = await attack(js, in_step(code), **CPU)
    assert name is None or got == name, (got, message)


async def test_a_flood_of_log_lines_is_cut_off(js: Scripts, neighbour: Run):
    run = await js.run(in_step("for (let i = 0; i < 50_000; i++) console.log('x'.repeat(10_000)); return 1;"))
    assert await run.output() == 1
    assert len(await run.logs()) < 1000


async def test_a_flood_of_calls_is_refused_in_the_code(js: Scripts, neighbour: Run):
    name, message = await attack(js, 'await step.do("a", async () => 1);\nfor (;;) setTimeout(() => {}, 1);')
    assert (name, message) == ("RangeError", "too many calls at once")


async def test_a_flood_of_steps_is_refused(js: Scripts, neighbour: Run):
    name, message = await attack(
        js,
        'const all = []; for (let i = 0; i < 50_000; i++) all.push(step.do("a", async () => 1)); await Promise.all(all);',
    )
    assert (name, message) == ("RangeError", "too many calls at once")


async def test_outputs_of_many_mebibytes_are_an_error_of_the_step(js: Scripts, neighbour: Run):
    for value in (
        "'x'.repeat(2 ** 26)",
        "new Uint8Array(2 ** 25)",
        "Array(2 ** 22).fill(0)",
        "Object.fromEntries(Array.from({ length: 3e5 }, (_, i) => ['key' + i, i]))",
    ):
        error = await attack(js, in_step(f"return {value};"))
        assert error == ("WorkflowInternalError", "Step attack-1 output is too large. Maximum allowed size is 1MiB."), (
            value
        )


TAMPERING = {
    "Object.prototype.toJSON": "Object.prototype.toJSON = function () { throw new Error('toJSON'); };",
    "Object.prototype.toJSON for good": "Object.defineProperty(Object.prototype, 'toJSON', { value() { return { op: 'return', r: 1, v: 'forged' }; } });",
    "Array.prototype.toJSON": "Array.prototype.toJSON = () => { throw new Error('toJSON'); };",
    "setters of indices": "Object.defineProperty(Array.prototype, '0', { set() { throw new Error('index'); }, get() { throw new Error('index'); } });",
    "setters of fields": "for (const name of ['op', 'r', 'id', 'out', 'state', 'v', 'x']) Object.defineProperty(Object.prototype, name, { set() { throw new Error('field'); }, get() { throw new Error('field'); } });",
    "setters of runs": "for (let i = 0; i < 50; i++) Object.defineProperty(Object.prototype, String(i), { set() { throw new Error('run'); } });",
    "then": "Object.prototype.then = function () { throw new Error('then'); };",
    "Promise.prototype.then": "Promise.prototype.then = () => { throw new Error('then'); };",
    "Promise": "globalThis.Promise = function () { throw new Error('Promise'); };",
    "Map": "for (const name of ['get', 'set', 'has', 'delete', 'forEach']) { Map.prototype[name] = () => { throw new Error('Map'); }; Set.prototype[name] = Map.prototype[name]; }",
    "iterators": "Array.prototype[Symbol.iterator] = () => { throw new Error('iterator'); }; Object.getPrototypeOf(new Set()[Symbol.iterator]()).next = () => { throw new Error('next'); }; Object.getPrototypeOf(new Map()[Symbol.iterator]()).next = () => { throw new Error('next'); };",
    "Array methods": "for (const name of Object.getOwnPropertyNames(Array.prototype)) if (typeof [][name] === 'function') Array.prototype[name] = () => { throw new Error(name); };",
    "String methods": "for (const name of Object.getOwnPropertyNames(String.prototype)) if (typeof ''[name] === 'function' && name !== 'constructor') String.prototype[name] = () => { throw new Error(name); };",
    "JSON": "JSON.stringify = () => { throw new Error('JSON'); }; JSON.parse = JSON.stringify;",
    "Error": "Object.defineProperty(Error.prototype, 'name', { get() { throw new Error('name'); } }); Object.defineProperty(Error.prototype, 'message', { get() { throw 1; } }); Error.prepareStackTrace = () => { throw new Error('stack'); };",
    "RegExp": "RegExp.prototype.exec = () => { throw new Error('exec'); }; RegExp.prototype.test = RegExp.prototype.exec;",
    "Function.prototype": "Function.prototype.call = () => { throw new Error('call'); }; Function.prototype.apply = Function.prototype.call; Function.prototype.bind = Function.prototype.call;",
    "all globals": "for (const name of Object.getOwnPropertyNames(globalThis)) { try { delete globalThis[name]; } catch {} }",
    "frozen": "for (const name of Object.getOwnPropertyNames(globalThis)) { try { Object.freeze(globalThis[name]); Object.freeze(globalThis[name].prototype); } catch {} }",
    "null prototypes": "try { Object.setPrototypeOf(Array.prototype, null); } catch {} try { Object.setPrototypeOf(globalThis, null); } catch {}",
    "hasInstance": "Object.defineProperty(Error, Symbol.hasInstance, { value() { throw new Error('instance'); } });",
}  # fmt: skip


@pytest.mark.parametrize("where", ["in a step", "outside"])
@pytest.mark.parametrize("id", TAMPERING)
async def test_tampering_with_globals_hurts_nobody_else(js: Scripts, neighbour: Run, id, where):
    """The run itself may complete or fail; it ends, soon, and the worker and the neighbour do not notice."""
    code = TAMPERING[id]
    body = (
        in_step(f"{code} return [1, {{ a: 2 }}];")
        if where == "in a step"
        else f'{code}\nreturn await step.do("a", {ONCE}, async () => 1);'
    )
    run = await js.run(body, **CPU)
    details = await run.until("complete", "errored", seconds=30)
    assert "forged" not in str(details["output"])


ODD_OUTPUTS = {
    "proxy that throws": "new Proxy({}, { get() { throw new Error('get'); }, ownKeys() { return ['a']; }, getOwnPropertyDescriptor() { return { value: 1, enumerable: true, configurable: true }; } })",
    "revoked proxy": "(() => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; })()",
    "proxy of an array": "new Proxy([1, 2], { get(target, name) { return name === 'length' ? 2 ** 40 : 1; } })",
    "growing array": "(() => { const a = []; Object.defineProperty(a, '0', { get() { a.push(1); return 1; }, enumerable: true }); return a; })()",
    "toJSON": "({ toJSON() { throw new Error('toJSON'); } })",
    "thenable": "({ then(resolve) { resolve({ then(again) { again(1); } }); } })",
    "thenable that throws": "({ get then() { throw new Error('then'); } })",
    "getter on index": "Object.defineProperty([], 0, { get() { throw new Error('0'); }, enumerable: true })",
    "fake date": "Object.setPrototypeOf({}, Date.prototype)",
    "fake map": "Object.setPrototypeOf({}, Map.prototype)",
    "fake error": "Object.setPrototypeOf({ name: { toString() { throw 1; } } }, Error.prototype)",
    "error with getters": "Object.defineProperty(new Error('x'), 'message', { get() { throw new Error('message'); } })",
    "subclass": "new (class extends Uint8Array { get byteLength() { return 2 ** 40; } })(8)",
    "detached": "(() => { const b = new ArrayBuffer(8); b.transfer?.(); return new Uint8Array(b); })()",
    "resizable": "new Uint8Array(new ArrayBuffer(8, { maxByteLength: 1 << 30 }))",
    "map that grows": "(() => { const m = new Map([[1, 1]]); m.set({ get a() { m.set(Math.random(), 1); return 1; } }, 2); return m; })()",
    "module": "await import('cloudflare:workers')",
    "global": "globalThis",
    "generator": "(function* () { yield 1; })()",
    "arguments": "(function () { return arguments; })(1, 2)",
}


@pytest.mark.parametrize("id", ODD_OUTPUTS)
async def test_odd_outputs_end_in_a_value_or_an_error(js: Scripts, neighbour: Run, id):
    run = await js.run(in_step(f"return {ODD_OUTPUTS[id]};"), **CPU)
    await run.until("complete", "errored", seconds=30)


ODD_ERRORS = [
    "{ get name() { throw new Error('name'); } }",
    "Object.assign(new Error('x'), { name: 'n'.repeat(1e6) })",
    "new Error('m'.repeat(5e6))",
    "Object.assign(new Error('x'), { stack: { toString() { throw 1; } } })",
    "Object.assign(new Error('x'), { name: Symbol('s'), message: 5n })",
    "new Proxy(new Error('x'), { get() { throw new Error('get'); } })",
    "new Proxy(function () {}, { getPrototypeOf() { throw new Error('proto'); } })",
    "'\\ud800'.repeat(10)",
    "Symbol('s')",
]


@pytest.mark.parametrize("thrown", ODD_ERRORS)
@pytest.mark.parametrize("where", ["in a step", "in run"])
async def test_odd_errors_are_errors(js: Scripts, neighbour: Run, thrown, where):
    code = (
        in_step(f"throw {thrown};") if where == "in a step" else f'await step.do("a", async () => 1);\nthrow {thrown};'
    )
    name, message = await attack(js, code, **CPU)
    assert len(name) <= 256
    assert len(message) <= 32 * 1024


@pytest.mark.parametrize(
    "name",
    [
        "'x'.repeat(1e7)",
        "'\\ud800'",
        "{ toString() { throw new Error('name'); } }",
        "Symbol('s')",
        "'a\\u0000b'",
        "new Proxy({}, {})",
        "'__proto__'",
        "'constructor'",
    ],
)
async def test_odd_names_of_steps(js: Scripts, neighbour: Run, name):
    run = await js.run(f"return await step.do({name}, {ONCE}, async () => 1);", **CPU)
    await run.until("complete", "errored", seconds=30)


async def test_no_secret_of_the_worker_is_in_the_sandbox(js: Scripts, neighbour: Run):
    """Everything that can be reached from the global object, as text."""
    run = await js.run(
        in_step(
            "const seen = new Set(); const texts = []; const queue = [globalThis, this, event, step];"
            "while (queue.length && seen.size < 20_000) { const value = queue.pop(); if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) { if (typeof value === 'string' && value.length < 1000) texts.push(value); continue; }"
            " seen.add(value); for (const key of Reflect.ownKeys(value)) { texts.push(String(key)); try { queue.push(value[key]); } catch {} } try { queue.push(Object.getPrototypeOf(value)); } catch {} }"
            "return texts.filter((text) => /canary|MILLRACE|postgres|redis|secret|\\/root|\\/home|\\/work/i.test(text)).slice(0, 10);"
        )
    )
    found = await run.output()
    assert CANARY not in str(found)
    assert found == []


async def test_stack_traces_name_no_file_of_the_platform(js: Scripts, neighbour: Run):
    run = await js.run(in_step("return new Error('x').stack;"))
    stack = await run.output()
    assert ".py" not in stack
    assert "/millrace" not in stack


async def test_accounts_cannot_reach_each_other_through_bindings(js: Scripts, neighbour: Run):
    code = f'try {{ await step.do("a", {ONCE}, async () => (await this.env.FLOW.get("{neighbour.id}")).terminate()); }} catch (error) {{ return error.message; }}'
    assert "(instance.not_found)" in await (await js.run(code)).output()


async def test_a_run_cannot_speak_for_another(js: Scripts, neighbour: Run):
    """Two runs share a sandbox; what one returns never becomes the other's output."""
    handle = await js.flow(
        'const mine = event.payload.n;\nconst got = await step.do("a", async () => { await opened("both"); return mine; });\nreturn [mine, got];'
    )
    one, two = await js.create(handle, {"n": 1}), await js.create(handle, {"n": 2})
    await one.has("a-1")
    await two.has("a-1")
    await one.open("both")
    assert (await one.output(), await two.output()) == ([1, 1], [2, 2])
