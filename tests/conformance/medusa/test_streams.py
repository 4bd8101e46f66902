"""Streams of the Medusa face: of a workflow, a transaction, a step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.faces.medusa.stream_routes import Source

from .conftest import BASE, Medusa
from .test_executions import ONE, WAITS, script
from .test_runs import FAILS, saga

PATIENCE = 20.0
SHIP = {"transaction_id": "t", "step_id": "ship"}


@dataclass(frozen=True)
class Event:
    type: str
    id: str | None
    data: dict[str, Any]

    @property
    def step(self) -> str | None:
        return self.data["step"]["id"] if "step" in self.data else None

    @property
    def told(self) -> tuple[str, str | None]:
        return self.type, self.step


class Stream:
    """Events as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._events = self._read()

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        async with asyncio.timeout(PATIENCE):
            return await anext(self._events, None)

    async def all(self, last: str | None = None) -> list[Event]:
        """Events until one of type `last`, or to the end."""
        found: list[Event] = []
        while (event := await self.next()) is not None:
            found.append(event)
            if event.type == last:
                break
        return found

    async def _read(self) -> AsyncIterator[Event]:
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            if line.startswith(":") or line.startswith("retry:"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                event = Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
                assert event.data["event_type"] == event.type
                yield event
                fields = {}


@asynccontextmanager
async def follow(medusa: Medusa, path: str, **headers: str) -> AsyncIterator[Stream]:
    accept = {"accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with medusa.face.http.stream("GET", f"{BASE}/{path}/subscribe", headers=accept) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        yield Stream(response)


THREE = [
    ("onBegin", None),
    ("onStepBegin", "_root.a"),
    ("onStepSuccess", "_root.a"),
    ("onStepBegin", "_root.a.ship"),
    ("onStepAwaiting", "_root.a.ship"),
    ("onResume", None),
    ("onStepSuccess", "_root.a.ship"),
    ("onFinish", None),
]
FLOW = [{"id": "a"}, {"id": "ship", "type": "external", "depends_on": ["a"]}]


async def test_a_workflow_tells_of_all_its_transactions(medusa: Medusa) -> None:
    """From now on, without ids, in order; a transaction that began before is told with its steps, too."""
    await medusa.face.deploy("flow", FLOW)
    await medusa.face.deploy("other", ONE)
    await medusa.run("flow", "before")
    async with follow(medusa, "flow") as stream:
        await medusa.run("other", "x")
        await medusa.run("flow", "t")
        first = await stream.all("onStepAwaiting")
        await medusa.answer("flow", "success", **SHIP, response={"n": 1})
        rest = await stream.all("onFinish")
        await medusa.answer("flow", "success", transaction_id="before", step_id="ship")
        old = await stream.all("onFinish")
    assert [event.told for event in first + rest] == THREE
    assert {event.data["workflow_id"] for event in first + rest + old} == {"flow"}
    assert {event.data["transaction_id"] for event in first + rest} == {"t"}
    assert {event.id for event in first + rest + old} == {None}
    success = rest[1].data
    assert success["response"] == {"n": 1}
    assert success["step"]["invoke"] == {"state": "done", "status": "ok"}
    assert rest[-1].data["result"] == {"n": 1}
    assert {event.data["transaction_id"] for event in old} == {"before"}
    assert [event.told for event in old] == THREE[5:]
    assert old[1].data["step"]["attempts"] == 1


async def test_a_transaction_is_told_live_and_to_its_end(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", FLOW)
    await medusa.run("flow", "t")
    async with follow(medusa, "flow/t") as stream:
        await medusa.answer("flow", "success", **SHIP)
        events = await stream.all()
    assert [event.told for event in events] == THREE[5:]  # nothing of what was before
    assert events[0].id is None and int(events[1].id or 0) < int(events[2].id or 0)


async def test_a_stream_goes_on_behind_the_last_event_seen(medusa: Medusa) -> None:
    """By header or query; no event twice, none left out, whether the transaction has finished or not."""
    await medusa.face.deploy("flow", FLOW)
    await medusa.run("flow", "t")
    async with follow(medusa, "flow/t", last_event_id="0") as stream:
        early = await stream.all("onStepAwaiting")
        await medusa.answer("flow", "success", **SHIP)
        late = await stream.all()
    events = early + late
    assert [event.told for event in events] == THREE
    numbered = [(place, event.id) for place, event in enumerate(events) if event.id is not None]
    for place, id in numbered[:-1]:
        answer = await medusa.face.http.get(f"{BASE}/flow/t/subscribe?lastEventId={id}")
        again = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
        assert again == [event.type for event in events[place + 1 :]]
    seen = await medusa.face.http.get(f"{BASE}/flow/t/subscribe", headers={"last-event-id": events[-1].id or ""})
    assert (seen.status_code, seen.content) == (204, b"")


async def test_a_finished_transaction_tells_its_end_at_once(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", ONE)
    await medusa.run("flow", "t")
    for path in ("flow/t", "flow/t/reserve"):
        async with follow(medusa, path) as stream:
            [event] = await stream.all()
        assert (event.type, event.data["result"]) == ("onFinish", {"reservation": "r9"})
        assert event.id is not None
        assert set(event.data) == {"event_type", "workflow_id", "transaction_id", "result"}


async def test_a_step_is_told_alone(medusa: Medusa) -> None:
    """By name or path, with the end of the transaction."""
    await medusa.face.deploy("flow", FLOW)
    await medusa.run("flow", "t")
    for step in ("ship", "_root.a.ship"):
        async with follow(medusa, f"flow/t/{step}", last_event_id="0") as stream:
            assert [event.told for event in await stream.all("onStepAwaiting")] == THREE[3:5]
    async with follow(medusa, "flow/t/ship") as stream:
        await medusa.answer("flow", "success", **SHIP)
        assert [event.told for event in await stream.all()] == [THREE[6], THREE[7]]


async def test_a_rolled_back_transaction(medusa: Medusa) -> None:
    last = {**FAILS, "retries": {"limit": 1, "delay": 1}}
    await medusa.face.deploy("flow", saga(last))
    await medusa.run("flow", "t")
    async with follow(medusa, "flow/t", last_event_id="0") as stream:
        events = await stream.all()
    told = [event.told for event in events]
    assert told[-5:] == [
        ("onStepBegin", "_root.one.two.three"),
        ("onStepFailure", "_root.one.two.three"),
        ("onCompensateBegin", None),
        ("onCompensateStepSuccess", "_root.one"),
        ("onFinish", None),
    ]
    error = {"name": "Error", "message": "no carrier", "stack": ""}
    failed = [event for event in events if event.type == "onStepFailure"][-1]
    assert failed.data["errors"] == [{"action": "three", "handlerType": "invoke", "error": error}]
    assert events[-1].data["errors"] == failed.data["errors"]
    undone = events[-2].data
    assert undone["step"]["compensate"] == {"state": "reverted", "status": "ok"}
    assert undone["response"] == "success"


async def test_timeouts_failures_and_skipped_steps(medusa: Medusa) -> None:
    nodes = [
        {"id": "late", "type": "external", "total_timeout": 30, "on_error": "skip"},
        {"id": "left", "depends_on": ["late"]},
        {"id": "undo", "compensate": {"type": "fail", "config": {"message": "stuck"}}},
        {"id": "bad", "depends_on": ["undo", "left"], "join": "all_done", **FAILS},
    ]
    await medusa.face.deploy("flow", nodes)
    await medusa.run("flow", "t", now=True)
    await medusa.until("flow", "t", "failed", "reverted", "done")
    async with follow(medusa, "flow/t", last_event_id="0") as stream:
        told = [event.told for event in await stream.all()]
    late = told.index(("onTimeout", "_root.late"))
    assert told[late + 1] == ("onStepFailure", "_root.late")
    assert ("onStepSkipped", "_root.late.left") in told
    assert ("onCompensateStepFailure", "_root.undo") in told


@pytest.mark.parametrize(
    "node",
    [{}, {"type": "wait", "config": {"durationMs": 1, "parallel": 1}}, {"type": "set", "config": {"values": {}}}],
    ids=["noop", "wait", "set"],
)
async def test_a_step_that_runs_per_item_is_told_once(medusa: Medusa, node: dict[str, Any]) -> None:
    await medusa.face.deploy("flow", [{"id": "each", "for_each": "{{ `[1,2,3]` }}", **node}])
    await medusa.run("flow", "t")
    async with follow(medusa, "flow/t", last_event_id="0") as stream:
        events = await stream.all()
    assert [event.told for event in events if event.data.get("step")] == [
        ("onStepBegin", "_root.each"),
        ("onStepSuccess", "_root.each"),
    ]
    assert len(events[-2].data["response"]) == 3


async def test_the_deadline_of_a_transaction(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", WAITS, limits={"timeout": 50})
    await medusa.run("flow", "t", now=True)
    await medusa.until("flow", "t", "failed", "reverted")
    async with follow(medusa, "flow/t", last_event_id="0") as stream:
        events = await stream.all()
    types = [event.type for event in events]
    assert types[types.index("onTimeout") + 1] in ("onCompensateBegin", "onFinish")
    assert events[-1].data["errors"][-1]["error"]["name"] == "TransactionTimeoutError"


async def test_a_transaction_that_is_run_again(medusa: Medusa) -> None:
    """A stream goes on with a newer run that began before it was through with the old one."""
    await medusa.face.deploy("flow", ONE)
    platform = medusa.face.server.platform
    caller = await platform.tenants.authenticate(medusa.face.tenant.token)
    workflow = await platform.versions.definitions.named(caller, "flow")
    await medusa.run("flow", "t", input=1)
    old = await platform.instances.searcher.one_by_transaction(caller, workflow.workflow_key, "t")
    await medusa.run("flow", "t", input=2)
    source = Source(caller, platform.instances, workflow)
    frames = [piece.decode() async for piece in source.of_transaction(old, 0)]
    types = [line.removeprefix("event: ") for piece in frames for line in piece.splitlines() if line[:5] == "event"]
    assert types == ["onBegin", "onStepBegin", "onStepSuccess", "onFinish"] * 2


async def test_a_script_s_sleeps_waits_and_steps(medusa: Medusa) -> None:
    await script(
        medusa,
        "await step.do('a', async () => 1); await step.sleep('nap', 1);"
        " await step.waitForEvent('ev', {type: 'go'}); return 2;",
    )
    await medusa.run("code", "t")
    async with follow(medusa, "code/t", last_event_id="0") as stream:
        told = [event.told for event in await stream.all("onStepAwaiting")]
        await medusa.answer("code", "success", transaction_id="t", step_id="ev", response={"x": 1})
        rest = await stream.all()
    assert told == [
        ("onBegin", None),
        ("onStepBegin", "_root.a"),
        ("onStepSuccess", "_root.a"),
        ("onStepBegin", "_root.nap"),
        ("onResume", None),
        ("onStepSuccess", "_root.nap"),
        ("onStepBegin", "_root.ev"),
        ("onStepAwaiting", "_root.ev"),
    ]
    assert [event.told for event in rest] == [("onResume", None), ("onStepSuccess", "_root.ev"), ("onFinish", None)]
    assert rest[-1].data["result"] == 2


async def test_too_many_streams(medusa: Medusa) -> None:
    await medusa.face.deploy("flow", WAITS)
    async with asyncio.timeout(PATIENCE):
        streams = [follow(medusa, "flow") for _ in range(20)]
        for stream in streams:
            await stream.__aenter__()
        refused = await medusa.face.http.get(f"{BASE}/flow/subscribe")
        assert (refused.status_code, refused.json()["type"]) == (429, "too_many_requests")
        for stream in streams:
            await stream.__aexit__(None, None, None)


@pytest.mark.parametrize("path", ["flow", "flow/t", "flow/t/ship"])
async def test_a_stream_takes_a_ticket(medusa: Medusa, path: str) -> None:
    """Bound to one path, good once."""
    await medusa.face.deploy("flow", FLOW)
    await medusa.run("flow", "t")
    tenants = medusa.face.server.platform.tenants
    caller = await tenants.authenticate(medusa.face.tenant.token)
    target = f"{BASE}/{path}/subscribe"
    ticket = await tenants.tickets.issue(caller, target)
    async with httpx.AsyncClient(base_url=medusa.face.server.base_url) as nobody:
        async with nobody.stream("GET", f"{target}?ticket={ticket}") as response:
            assert response.status_code == 200
        assert (await nobody.get(f"{target}?ticket={ticket}")).status_code == 401
