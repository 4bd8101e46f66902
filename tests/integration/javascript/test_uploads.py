"""Scripts that are refused when they are uploaded, with the place of what is wrong; and modules of all kinds."""

# ruff: noqa: E501 - lines of JavaScript

from __future__ import annotations

import pytest

from tests.support.javascript import Refused, Scripts

FLOW = 'export class Flow extends WorkflowEntrypoint { async run(event, step) { return await step.do("a", async () => %s); } }'


async def refusal(js: Scripts, modules, **options) -> str:
    with pytest.raises(Refused) as refused:
        await js.upload(js.name(), modules, **options)
    assert (refused.value.status, refused.value.code) == (400, 10021)
    return refused.value.message


@pytest.mark.parametrize(
    ("id", "code", "place", "why"),
    [
        ("syntax", "export default {};\n\nconst a = ;\n", "index.js:3", "SyntaxError"),
        ("unclosed", "export default {\n", "index.js", "SyntaxError"),
        ("await in function", "export default {};\nfunction f() { await 1; }", "index.js:2", "SyntaxError"),
        ("declared twice", "export default {};\nlet a; let a;", "index.js:2", "SyntaxError"),
        ("strict", "export default {};\nwith (Math) {}", "index.js:2", "SyntaxError"),
        (
            "throw",
            "export default {};\n\n  throw new TypeError('at the top');",
            "index.js:3:9",
            "TypeError: at the top",
        ),
        (
            "throw in function",
            "export default {};\nconst f = () => {\n  throw new RangeError('deep');\n};\nf();",
            "index.js:3:9",
            "RangeError: deep",
        ),
        ("unknown name", "export default {};\nnope();", "index.js:2:1", "ReferenceError: nope is not defined"),
        (
            "unknown module",
            'export default {};\nimport x from "./nope.js";',
            "index.js:2:1",
            'No such module "./nope.js"',
        ),
        ("unknown package", 'export default {};\n\nimport x from "lodash";', "index.js:3:1", 'No such module "lodash"'),
        ("re-export of nothing", 'export * from "./nope.js";', "index.js:1:1", 'No such module "./nope.js"'),
        (
            "missing export",
            'import { nope } from "cloudflare:workers";\nexport default {};',
            "",
            "does not provide an export named 'nope'",
        ),
        (
            "random at the top",
            "export default {};\ncrypto.randomUUID();",
            "index.js:2",
            "Disallowed operation called within global scope",
        ),
        (
            "timer at the top",
            "export default {};\nsetTimeout(() => {}, 1);",
            "index.js:2",
            "Disallowed operation called within global scope",
        ),
        ("commonjs", "const x = 1;\nmodule.exports = { x };", "index.js:2:1", "CommonJS"),
        ("require", 'const fs = require("fs");', "index.js:1:12", "CommonJS"),
        ("eval", "export default {};\neval('1');", "index.js:2", "EvalError"),
    ],
)
async def test_what_is_wrong_is_named_with_its_place(js: Scripts, id, code, place, why):
    message = await refusal(js, {"index.js": code})
    assert why in message
    assert place in message


async def test_the_place_is_in_the_module_that_is_wrong(js: Scripts):
    modules = {"index.js": 'import "./lib/broken.js";\nexport default {};', "lib/broken.js": "\nconst = 1;"}
    message = await refusal(js, modules)
    assert "lib/broken.js:2" in message


async def test_loading_must_come_to_an_end(js: Scripts):
    assert "does not come to an end" in await refusal(js, {"index.js": "export default {};\nfor (;;);"})


async def test_loading_must_not_use_up_the_memory(js: Scripts):
    assert "memory" in await refusal(
        js, {"index.js": "export default {};\nconst a = []; for (;;) a.push(new Array(1e5).fill(1.5));"}
    )


async def test_a_top_level_promise_that_never_settles_is_refused(js: Scripts):
    assert "never" in await refusal(js, {"index.js": "export default {};\nawait new Promise(() => {});"})


async def test_an_old_service_worker_is_refused(js: Scripts):
    with pytest.raises(Refused) as refused:
        await js.upload(js.name(), {"index.js": "addEventListener('fetch', () => {})"}, body_part="index.js", main="")
    assert refused.value.status == 400


async def test_a_class_that_is_no_workflow_cannot_be_bound(js: Scripts):
    name = js.name()
    await js.upload(name, {"index.js": "export class Flow {}\nexport default {};"})
    with pytest.raises(Refused) as refused:
        await js.bind(name, name, "Flow")
    assert "exports no class 'Flow' that extends WorkflowEntrypoint" in refused.value.message


async def test_modules_of_all_kinds(js: Scripts):
    run = await js.create(
        await js.deploy(
            js.name(),
            'import text from "./note.txt";\nimport json from "./data/config.json";\nimport data from "./blob.bin";\n'
            'import { twice } from "./lib/math.js";\nimport * as all from "./lib/all.mjs";\n'
            "const later = await Promise.resolve(3);\n"
            + FLOW
            % '[text, json.a[1], data.byteLength, twice(2), all.thrice(2), all.default(), later, typeof (await import("./lib/math.js")).twice]',
            modules={
                "./note.txt": ("grüße", "text/plain"),
                "data/config.json": ('{"a":[1,2]}', "application/json"),
                "blob.bin": (b"\0\1\2", "application/octet-stream"),
                "lib/math.js": "export const twice = (n) => 2 * n;",
                "lib/all.mjs": 'export { twice } from "./math.js"; export const thrice = (n) => 3 * n; export default () => "default";',
            },
        )
    )
    assert await run.output() == ["grüße", 2, 3, 4, 6, "default", 3, "function"]


async def test_modules_that_import_each_other(js: Scripts):
    run = await js.create(
        await js.deploy(
            js.name(),
            'import { isEven } from "./even.js";\n' + FLOW % "[isEven(4), isEven(7)]",
            modules={
                "even.js": 'import { isOdd } from "./odd.js";\nexport function isEven(n) { return n === 0 || isOdd(n - 1); }',
                "odd.js": 'import { isEven } from "./even.js";\nexport function isOdd(n) { return n !== 0 && isEven(n - 1); }',
            },
        )
    )
    assert await run.output() == [True, False]


async def test_what_esbuild_makes_of_a_workflow(js: Scripts):
    code = (
        'var __defProp = Object.defineProperty;\nvar __name = (target, value) => __defProp(target, "name", { value, configurable: true });\n\n'
        '// src/index.ts\nimport { WorkflowEntrypoint as Base } from "cloudflare:workers";\n'
        'var Flow = class extends Base {\n  static {\n    __name(this, "Flow");\n  }\n  async run(event, step) {\n    return await step.do("a", async () => Flow.name);\n  }\n};\n'
        "var src_default = {\n  async fetch() {\n    return new Response();\n  }\n};\nexport {\n  Flow,\n  src_default as default\n};\n//# sourceMappingURL=index.js.map\n"
    )
    run = await js.create(await js.deploy(js.name(), code, head=""))
    assert await run.output() == "Flow"


TYPED = """
import { WorkflowEntrypoint, type WorkflowEvent, WorkflowStep } from "cloudflare:workers";
import { twice } from "./math.ts";
import type { Nothing } from "./types";
interface Params { n: number; next?: Nothing }
type Env = { FLOW: unknown };
enum Level { Low = 1, High }
const first = <T,>(items: readonly T[]): T | undefined => items[0];
abstract class Base<E> extends WorkflowEntrypoint<E, Params> {
  constructor(ctx: ExecutionContext, protected readonly bound: E) { super(ctx, bound); }
}
export class Flow extends Base<Env> {
  #calls: number = 0;
  async run(event: Readonly<WorkflowEvent<Params>>, step: WorkflowStep): Promise<unknown> {
    this.#calls += 1;
    const n = await step.do("twice", async (): Promise<number> => twice(event.payload.n as number)!);
    const line = await step.do("line", async () => new Error("here").stack!.split("\\n")[1]);
    return [n, Level.High, first<number>([3]), this.#calls, typeof this.bound, line] satisfies unknown[];
  }
}
"""


@pytest.mark.parametrize("kind", ["application/typescript", "application/javascript+module"])
async def test_typescript(js: Scripts, kind):
    name = js.name()
    binding = {"type": "workflow", "name": "FLOW", "workflow_name": name, "class_name": "Flow"}
    math = "export function twice(n: number): number {\n  return 2 * n;\n}\n"
    await js.upload(name, {"flow.ts": (TYPED, kind), "math.ts": (math, kind)}, bindings=[binding])
    await js.bind(name, name, "Flow")
    run = await js.create(name, {"n": 4})
    *values, line = await run.output()
    assert values == [8, 2, 3, 1, "object"]
    assert "flow.ts:17:" in line
    graph = await js.call("GET", f"/workflows/{name}/versions")
    assert graph


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("export default {};\nconst a: = 1;", "flow.ts:2:"),
        ("export default {};\n\ninterface {", "flow.ts:3"),
        ("type A = number;\nexport default {};\nthrow new Error('x');", "flow.ts:3:7"),
        ('export default {};\nimport { a } from "./nope";\na();', 'flow.ts:2:1: No such module "./nope"'),
    ],
)
async def test_errors_in_typescript_have_their_place(js: Scripts, code, place):
    assert place in await refusal(js, {"flow.ts": (code, "application/typescript")})


async def test_variables_and_secrets_are_in_the_environment(js: Scripts):
    bindings = [
        {"type": "plain_text", "name": "TEXT", "text": "plain"},
        {"type": "json", "name": "DATA", "json": {"a": [1]}},
        {"type": "secret_text", "name": "SECRET", "text": "hush"},
    ]
    code = (
        'import { env } from "cloudflare:workers";\nconst atTheTop = env.TEXT;\n'
        + FLOW % "[this.env.TEXT, this.env.DATA.a[0], this.env.SECRET, env.SECRET === this.env.SECRET, atTheTop]"
    )
    run = await js.create(await js.deploy(js.name(), code, bindings=bindings))
    assert await run.output() == ["plain", 1, "hush", True, "plain"]


async def test_a_new_upload_is_a_new_version_and_runs_keep_theirs(js: Scripts):
    handle = await js.flow('await step.waitForEvent("w", { type: "go" });\nreturn await step.do("a", async () => 1);')
    old = await js.create(handle)
    await old.until("waiting")
    await js.flow('return await step.do("a", async () => 2);', name=handle)
    new = await js.create(handle)
    assert await new.output() == 2
    await old.send("go")
    assert await old.output() == 1


async def test_changed_bindings_are_tried_before_they_are_deployed(js: Scripts):
    name = js.name()
    code = """
    import { env, WorkflowEntrypoint } from "cloudflare:workers";
    const { level } = env.MODE;
    if (!globalThis.Buffer && level > 1) throw new Error("a level needs Buffer");
    export class Flow extends WorkflowEntrypoint { async run(event, step) { return await step.do("a", async () => level); } }
    """
    mode = {"type": "json", "name": "MODE", "json": {"level": 1}}
    await js.upload(name, {"index.js": code}, bindings=[mode])
    await js.bind(name, name, "Flow")

    async def change(**settings) -> str | None:
        try:
            await js.call("PATCH", f"/workers/scripts/{name}/settings", json=settings)
        except Refused as refused:
            assert (refused.status, refused.code) == (400, 10021)
            return refused.message
        return None

    assert "index.js:3" in (await change(bindings=[]) or "")
    higher = [mode | {"json": {"level": 2}}]
    assert "a level needs Buffer" in (await change(bindings=higher) or "")
    assert len((await js.call("GET", f"/workers/scripts/{name}/versions"))["items"]) == 1
    assert await (await js.create(name)).output() == 1
    assert await change(bindings=higher, compatibility_flags=["nodejs_compat"]) is None
    assert len((await js.call("GET", f"/workers/scripts/{name}/versions"))["items"]) == 2
    assert await (await js.create(name)).output() == 2
