"""ES modules as functions: exports, imports, lines."""

from __future__ import annotations

import pytest

from versions.javascript.modules import exports_of, translate

ESBUILD = """\
var __defProp = Object.defineProperty;
var __name = (target, value) => __defProp(target, "name", { value, configurable: true });

// src/index.ts
import { WorkflowEntrypoint } from "cloudflare:workers";
var Order = class extends WorkflowEntrypoint {
  static {
    __name(this, "Order");
  }
};
var src_default = {};
export {
  Order as Checkout,
  src_default as default
};
//# sourceMappingURL=index.js.map
"""


@pytest.mark.parametrize(
    ("text", "exports"),
    [
        ("export const a = 1, b = 2;", {"a": "a", "b": "b"}),
        ("export let { a, b: c, ...d } = x;", {"a": "a", "c": "c", "d": "d"}),
        ("export const [a, , b = 1] = x;", {"a": "a", "b": "b"}),
        ("export function f() {}", {"f": "f"}),
        ("export async function* f() {}", {"f": "f"}),
        ("export class C {}", {"C": "C"}),
        ("export default class C {}", {"default": "C"}),
        ("export default class {}", {"default": "$default"}),
        ("export default function () {}", {"default": "$default"}),
        ("export default async () => 1;", {"default": "$default"}),
        ("export default { fetch() {} };", {"default": "$default"}),
        ("const a = 1; export { a, a as b, a as default };", {"a": "a", "b": "a", "default": "a"}),
        ("const a = 1; export { a as 'any text' };", {"any text": "a"}),
        ("export { a as b } from './x.js';", {"b": '$import0["a"]'}),
        ("export * as all from './x.js';", {"all": "$import0"}),
        ("export * from './x.js';", {}),
        ("const text = 'export const no = 1';", {}),
        (ESBUILD, {"Checkout": "Order", "default": "src_default"}),
        ("", {}),
    ],
)
def test_exports(text: str, exports: dict[str, str]) -> None:
    assert exports_of(text) == exports
    assert translate("m.js", text).exports == exports.keys()


@pytest.mark.parametrize(
    ("text", "imports", "head"),
    [
        ("import './a.js';", [("./a.js", 1, 1)], 'const $import0 = await __import("./a.js", []);'),
        ("\n  import a from 'a';", [("a", 2, 3)], 'const { "default": a } = $import0;'),
        ("import a, { b as c, d } from 'a';", [("a", 1, 1)], 'const { "default": a, "b": c, "d": d } = $import0;'),
        ("import * as all from 'a';", [("a", 1, 1)], "const all = $import0;"),
        ("import data from './d.json' with { type: 'json' };", [("./d.json", 1, 1)], '"./d.json", ["default"]'),
        ("export * from 'a';\nimport 'b';", [("a", 1, 1), ("b", 2, 1)], "__export.all($import0);"),
        ("export { x } from 'a';", [("a", 1, 1)], '__import("a", ["x"])'),
    ],
)
def test_imports(text: str, imports: list[tuple[str, int, int]], head: str) -> None:
    translated = translate("m.js", text)
    assert [(found.specifier, found.line, found.column) for found in translated.imports] == imports
    assert head in translated.text.split("\n")[0]


@pytest.mark.parametrize(
    "text",
    [
        "import {\n  a,\n  b\n} from 'x';\nTHERE;",
        "#!/usr/bin/env node\n\nexport default {};\nTHERE;",
        "export {\n};\nTHERE;",
        ESBUILD + "THERE;",
        "export default class\n{\n}\nTHERE;",
    ],
)
def test_lines_stay_where_they_are(text: str) -> None:
    lines, translated = text.split("\n"), translate("m.js", text).text.split("\n")
    assert translated.index("THERE;") == lines.index("THERE;")


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("const a = import('x');", "__dynamic_import('x')"),
        ("f(import.meta.url);", "f(__meta.url)"),
        ("function f() { return import(`./${x}.js`); }", "return __dynamic_import(`./${x}.js`)"),
        ("new.target; a.import(1);", "a.import(1)"),
        ("const text = 'import(x)'; // import.meta", "'import(x)'; // import.meta"),
    ],
)
def test_dynamic_imports(text: str, becomes: str) -> None:
    assert becomes in translate("m.js", text).text


def test_the_name_of_the_module_is_what_errors_say() -> None:
    assert translate("lib/a b.js", "").text.endswith("\n//# sourceURL=lib/a_b.js")


def test_text_that_is_no_javascript_is_left_to_the_engine() -> None:
    assert "const a = ;" in translate("m.js", "const a = ;").text


def test_a_line_feed_in_a_name_makes_no_second_comment() -> None:
    assert translate("a\nevil()//.js", "").text.count("\n") == 2
