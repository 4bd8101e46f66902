"""Workflow classes as graphs, from their text."""

from __future__ import annotations

from typing import Any

import pytest

from versions.javascript.graph import class_graph

CONFIG = {"retries": {"limit": 5, "delay": 10000, "backoff": "exponential"}, "timeout": "10 minutes"}


def drawn(body: str, *, before: str = "", methods: str = "") -> list[dict[str, Any]]:
    text = f"{before}\nexport class Flow extends WorkflowEntrypoint {{ async run(event, step) {{ {body} }} {methods} }}"
    found = class_graph(text, "Flow")
    assert found is not None
    return found.graph["workflow"]["nodes"]


def shape(nodes: list[dict[str, Any]]) -> list[Any]:
    """Types and names of nodes, with what is inside them."""
    told: list[Any] = []
    for node in nodes:
        inner = node.get("nodes") or [part for branch in node.get("branches", ()) for part in branch["nodes"]]
        blocks = [node[key] for key in ("try_block", "catch_block", "finally_block") if node.get(key)]
        label = f"{node['type']}:{node['name']}" if "name" in node else node["type"]
        inner = shape(inner) + [shape(block["nodes"]) for block in blocks]
        told.append([label, *inner] if inner else label)
    return told


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('await step.do("a", async () => 1);', ["step_do:a"]),
        ('const x = await step.do("a", async () => 1); return x;', ["step_do:a"]),
        ('await step.sleep("s", "1 hour");', ["step_sleep:s"]),
        ('await step.sleepUntil("s", new Date(0));', ["step_sleep_until:s"]),
        ('await step.waitForEvent("w", { type: "go" });', ["step_wait_for_event:w"]),
        ('for (const x of xs) { await step.do("a", f); }', [["loop", "step_do:a"]]),
        ('while (true) await step.do("a", f);', [["loop", "step_do:a"]]),
        ('if (x) { await step.do("a", f); } else { await step.do("b", f); }', [["if", "step_do:a", "step_do:b"]]),
        ('switch (x) { case 1: await step.do("a", f); break; default: await step.do("b", f); }', None),
        (
            'try { await step.do("a", f); } catch { await step.do("b", f); }',
            [["try", ["step_do:a"], ["step_do:b"]]],
        ),
        (
            'await Promise.all([step.do("a", f), step.do("b", f)]);',
            [["parallel", "step_do:a", "step_do:b"]],
        ),
        ('await Promise.race([step.do("a", f), step.sleep("s", 1)]);', [["parallel", "step_do:a", "step_sleep:s"]]),
        ('await step.do("a", async () => { await step.do("b", f); });', [["step_do:a", "step_do:b"]]),
        ("const y = 1 + 1; console.log(y); await step.do('a', f);", ["step_do:a"]),
    ],
)
def test_shapes(body: str, expected: list[Any] | None) -> None:
    nodes = drawn(body)
    if expected is not None:
        assert shape(nodes) == expected
    else:
        assert [node["type"] for node in nodes] == ["switch"]


@pytest.mark.parametrize(
    ("body", "config"),
    [
        ('await step.do("a", f);', CONFIG),
        (
            'await step.do("a", { retries: { limit: 1, delay: "5 s", backoff: "linear" }, timeout: 60 * 1000 }, f);',
            {"retries": {"limit": 1, "delay": "5 s", "backoff": "linear"}, "timeout": 60000},
        ),
        (
            'await step.do("a", { retries: { limit: 1, delay: () => 5 } }, f);',
            {"retries": {"limit": 1, "delay": "[dynamic]", "backoff": "exponential"}, "timeout": "10 minutes"},
        ),
        (
            'await step.do("a", CONFIG, f);',
            {"retries": {"limit": 2, "delay": 1, "backoff": "exponential"}, "timeout": "10 minutes"},
        ),
    ],
)
def test_configurations(body: str, config: dict[str, Any]) -> None:
    [node] = drawn(body, before="const CONFIG = { retries: { limit: 2, delay: 1 } };")
    assert node["config"] == config


ESBUILD = """
var Order = class extends WorkflowEntrypoint {
  static {
    __name(this, "Order");
  }
  async run(event, step) {
    const a = step.do("a", async () => 1);
    const b = step.do("b", async () => 2);
    await Promise.all([a, b]);
    await this.finish(step);
  }
  async finish(step2) {
    await step2.do("finish", async () => event.payload);
  }
};
var src_default = {};
export { Order as Checkout, src_default as default };
"""


def test_what_esbuild_emits() -> None:
    found = class_graph(ESBUILD, "Checkout")
    assert found is not None
    assert found.calls_steps
    workflow = found.graph["workflow"]
    assert workflow["class_name"] == "Checkout"
    assert "step_do:finish" in str(shape([*workflow["nodes"], *workflow["functions"].values()]))
    text = str(shape(workflow["nodes"]))
    assert "step_do:a" in text
    assert "step_do:b" in text
    assert class_graph(ESBUILD, "Order") is None, "exported under another name only"


def test_promises_awaited_later_carry_positions() -> None:
    nodes = drawn('const a = step.do("a", f); await step.do("b", f); await a;')
    [a] = [node for node in nodes if node.get("name") == "a"]
    assert a["starts"] < a["resolves"]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("export class Flow { async run(event, step) { return 1; } }", False),
        ("export class Flow { async run(event, step) { await helper(step); } }", True),
        ("export class Flow { async run(event, step) { await step.do(name(), f); } }", True),
    ],
)
def test_whether_a_class_calls_steps(text: str, calls: bool) -> None:
    found = class_graph(text, "Flow")
    assert found is not None
    assert found.calls_steps is calls


@pytest.mark.parametrize(
    "text",
    [
        "export class Other { async run(event, step) {} }",
        "export class Flow {}",
        "export { Flow } from './flow.js';",
        "class Flow { async run(event, step) {} }",
        "export const Flow = make();",
        "",
        "export class Flow {",
    ],
)
def test_what_cannot_be_drawn(text: str) -> None:
    assert class_graph(text, "Flow") is None


@pytest.mark.parametrize("name", ["\\ud800", "\\u{1F600}", "\\x00", "\\ud83d\\ude00"])
def test_names_are_texts_that_can_be_stored(name: str) -> None:
    for node in drawn(f'await step.do("{name}", f);'):
        node["name"].encode()


def test_what_is_nested_too_deeply_is_not_drawn() -> None:
    body = "if (x) { " * 500 + 'await step.do("a", f);' + " }" * 500
    assert class_graph(f"export class Flow {{ async run(event, step) {{ {body} }} }}", "Flow") is None
