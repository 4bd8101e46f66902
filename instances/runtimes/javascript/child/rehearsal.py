"""What the zygote's engine does once before any sandbox does it: load a script, run it, answer.

Python finds out in the first calls of a function how to do its work fast, and writes that down next to the code. After
the fork it would have to copy each page it writes to, in every child.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_SCRIPT = b"""S{"module":"main.js"}
(async function (__import, __export) {
const { WorkflowEntrypoint } = await __import("cloudflare:workers", ["WorkflowEntrypoint"]);
__export({ Flow: () => Flow });
class Flow extends WorkflowEntrypoint { async run(event, step) { return step.do("step", async () => 1); } }
})"""


def _message(**fields: Any) -> bytes:
    return b"J" + json.dumps(fields).encode()


def _run(number: int) -> list[list[bytes]]:
    event = {"payload": {"v": {}}, "timestamp": 0, "instanceId": "i", "workflowName": "w"}
    ctx = {"step": {"name": "step", "count": 1}, "attempt": 1, "config": {"retries": {"limit": 1, "delay": 1}}}
    start = _message(op="start", r=number, cls="Flow", event=event, seed="0" * 64, now=0, workflow="w")
    attempt = _message(op="attempt", r=number, id=1, attempt=1, now=0, entropy="", ctx=ctx)
    return [[start], [attempt], [_message(op="outcome", r=number, id=1, at=0, v=1)], [_message(op="drop", r=number)]]


_LOAD = _message(
    op="load", main="main.js", modules=[{"name": "main.js", "type": "js"}], vars={}, workflows={}, exports={}, flags=[]
)
FRAMES: list[list[bytes]] = [[_SCRIPT] * 10, [_LOAD], *(frame for number in range(1, 9) for frame in _run(number))]


class Frame:
    """One frame, as the engine is given those of a worker."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = iter(parts)

    def next_part(self) -> bytes | None:
        return next(self._parts, None)

    def reply(self, body: bytes) -> None:
        """Nobody waits for it."""
