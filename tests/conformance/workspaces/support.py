"""What the tests of this face share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from tests.conformance.conftest import Face

HERE = "/api/workspaces/default"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
THREE: list[dict[str, Any]] = [{"type": "set", "config": {"values": {"n": n}}} for n in range(3)]
WAITS: list[dict[str, Any]] = [
    {"type": "set", "config": {"values": {"a": 1}}},
    {"type": "wait_for_event", "config": {"event": "go"}},
    {"type": "set", "config": {"values": {"b": 2}}},
]
FAILING: dict[str, Any] = {"type": "fail", "config": {"message": "no luck"}}
FIVE = [*THREE[:2], FAILING, *THREE[:2]]


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def make(face: Face, actions: list[dict[str, Any]], name: str = "Flow", **more: Any) -> str:
    """A workflow of these actions; its id."""
    answer = await face.http.post(f"{HERE}/workflows", json={"name": name, "actions": actions, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["workflow"]["id"]


async def start(face: Face, workflow: str, wait: int = 0, **body: Any) -> dict[str, Any]:
    answer = await face.http.post(f"{HERE}/workflows/{workflow}/execute", params={"wait": wait}, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["execution"]


async def run(face: Face, actions: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
    """The detail of an execution of these actions that has ended."""
    execution = await start(face, await make(face, actions), 60, **body)
    assert execution["status"] in ENDED
    return await look(face, execution["id"])


async def look(face: Face, id: str) -> dict[str, Any]:
    answer = await face.http.get(f"{HERE}/workflows/executions/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def at_event(face: Face, id: str) -> None:
    """Until an execution of `WAITS` waits for its event."""
    ask = lambda: face.http.get(f"{HERE}/workflows/executions/{id}")  # noqa: E731
    await face.when(ask, lambda body: [one["status"] for one in body["execution"]["steps"]] == ["success", "running"])


async def go(face: Face, handle: str = "flow") -> None:
    """Send all instances of a workflow the event that `WAITS` waits for."""
    for one in (await face.cloud.get(f"/workflows/{handle}/instances")).json()["result"]:
        answer = await face.cloud.post(f"/workflows/{handle}/instances/{one['id']}/events/go", json={"x": 1})
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def stream(http: httpx.AsyncClient, id: str, last: str | None = None, **query: str) -> AsyncIterator[Any]:
    """An open stream: an iterator of `(event, id, data)`, behind the event `last`."""
    headers = {} if last is None else {"last-event-id": last}
    path = f"{HERE}/workflows/executions/{id}/stream"
    async with http.stream("GET", path, params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, str | None, Any]]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield fields["event"], fields.get("id"), msgspec.json.decode(fields["data"])
            fields = {}


async def whole(http: httpx.AsyncClient, id: str, last: str | None = None, **query: str) -> list[Any]:
    """All events of a stream, which must end by itself."""
    async with stream(http, id, last, **query) as events:
        return [one async for one in events]
