"""The workflows that are measured, as definition documents."""

from __future__ import annotations

from typing import Any


def _document(nodes: list[dict[str, Any]], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"spec": "workflow/1", "nodes": nodes, "outputs": outputs}


def _chain(length: int, node: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": f"s{number}", **node, "depends_on": [f"s{number - 1}"] if number > 1 else []}
        for number in range(1, length + 1)
    ]


HELLO = _document([{"id": "hello", "type": "noop"}], {"hello": "{{ trigger.n }}"})
"""One step that does nothing."""

CHAIN = _document(_chain(10, {"type": "noop"}), {"last": "{{ steps.s10.output }}"})
"""Ten steps, one after the other."""

FANOUT = _document(
    [
        *({"id": f"p{number}", "type": "noop"} for number in range(1, 11)),
        {"id": "join", "type": "noop", "depends_on": [f"p{number}" for number in range(1, 11)]},
    ],
    {"joined": "{{ steps.join.output }}"},
)
"""Ten steps side by side and one that waits for all of them."""

WAITER = _document(
    [{"id": "go", "type": "wait_for_event", "config": {"event": "go", "timeout": "30 days"}}],
    {"got": "{{ steps.go.output.n }}"},
)
"""Waits for an event."""

STORED = _document(
    [
        *_chain(9, {"type": "noop"}),
        {"id": "go", "type": "wait_for_event", "depends_on": ["s9"], "config": {"event": "go", "timeout": "300 days"}},
    ],
    {"got": "{{ abs(steps.go.output.n) }}"},
)
"""Ten steps, the last of which waits for an event. One whose `n` is no number is an error."""

SLEEPER = _document([{"id": "until", "type": "wait_until", "config": {"at": "{{ trigger.at }}"}}])
"""Sleeps until the time it is given."""


_SCRIPT = """
import {{ WorkflowEntrypoint }} from "cloudflare:workers";
export class Bench extends WorkflowEntrypoint {{
  async run(event, step) {{
    {body}
  }}
}}
"""
JS_HELLO = _SCRIPT.format(body='return { hello: await step.do("hello", async () => event.payload.n) };')
"""JavaScript: one step that gives its input back."""

JS_CHAIN = _SCRIPT.format(body='for (let i = 0; i < 10; i++) await step.do("s", async () => i);')
"""JavaScript: ten steps, one after the other."""


def calling(url: str) -> dict[str, Any]:
    """Ten calls of `url`, one after the other; each names its instance and step. A call cut off is made again."""
    nodes = _chain(10, {"type": "call_api", "retries": {"limit": 3, "delay": 1}})
    for node in nodes:
        node["config"] = {"url": url, "method": "POST", "body": {"of": "{{ trigger.n }}", "step": node["id"]}}
    return _document(nodes, {"last": "{{ steps.s10.status }}"})
