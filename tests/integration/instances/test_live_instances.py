"""Instances that really run: what a worker writes, read over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.embedded.valkey import EmbeddedValkey
from tests.support.api import Tenant, new_tenant
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests

PATIENCE = 20.0


@pytest.fixture(scope="module")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    async with live_for_tests(databases, valkey) as running:
        yield running


class Api:
    """An account over HTTP."""

    def __init__(self, http: httpx.AsyncClient, tenant: Tenant, platform) -> None:
        self.http, self.tenant, self.platform = http, tenant, platform

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.http.request(method, f"{self.tenant.path}/workflows/{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    async def deploy(self, name: str, nodes: list[Any], **more: Any) -> None:
        definition = {"spec": "workflow/1", "name": name, "nodes": nodes, **more}
        await self.ask("PUT", name, json={"definition": definition})

    async def until(self, path: str, *statuses: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            while (view := await self.ask("GET", path))["status"] not in statuses:
                await asyncio.sleep(0.02)
        return view


@pytest.fixture
async def api(server: Live) -> AsyncIterator[Api]:
    tenant = await new_tenant(server.platform)
    async with httpx.AsyncClient(base_url=server.base_url, headers=tenant.headers, trust_env=False) as http:
        yield Api(http, tenant, server.platform)


async def frames(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Server-sent events, as dictionaries of their fields."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


GATE = {"id": "gate", "type": "wait_for_event", "config": {"event": "go"}}


async def test_the_log_of_a_run_is_told_as_it_happens(api: Api):
    await api.deploy("flow", [{"id": "first", "type": "noop"}, GATE | {"depends_on": ["first"]}])
    await api.ask("POST", "flow/instances", json={"instance_id": "i"})
    path = f"{api.tenant.path}/workflows/flow/instances/i/logs"
    said: list[str] = []
    async with (
        asyncio.timeout(PATIENCE),
        api.http.stream("GET", path, headers={"accept": "text/event-stream"}) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in answer.headers
        last = 0
        async for frame in frames(answer):
            if "event" not in frame:
                assert frame == {"retry": "3000"}
                continue
            if frame["event"] == "end":
                assert json.loads(frame["data"]) == {"status": "complete"}
                break
            line = json.loads(frame["data"])
            assert int(frame["id"]) == line["id"] > last
            last = line["id"]
            said.append(line["message"])
            if line["message"] == "Waiting for an event":
                await api.ask("POST", "flow/instances/i/events/go", json={"by": "Ada"})
    for message in ("Instance queued", "Step completed", "Event go received", "Event delivered", "Instance complete"):
        assert message in said
    listed = await api.ask("GET", "flow/instances/i/logs")
    assert [line["message"] for line in listed] == said


async def test_a_stream_that_is_left_gives_its_slot_back(api: Api):
    await api.deploy("flow", [GATE])
    await api.ask("POST", "flow/instances", json={"instance_id": "i"})
    path = f"{api.tenant.path}/workflows/flow/instances/i/logs"
    slots = api.platform.instances.feed._streams
    async with api.http.stream("GET", path, headers={"accept": "text/event-stream"}) as answer:
        assert await anext(frames(answer)) == {"retry": "3000"}
        assert sum(slots.values()) == 1
    async with asyncio.timeout(PATIENCE):
        while slots:
            await asyncio.sleep(0.01)


async def test_a_failed_run_with_retries_and_compensation(api: Api):
    nodes = [
        {"id": "book", "type": "set", "config": {"values": {"n": 3}}, "compensate": {"type": "noop"}},
        {"id": "boom", "type": "call_api", "depends_on": ["book"], "config": {"url": "https://127.0.0.1:1/"}},
        {"id": "never", "type": "noop", "depends_on": ["boom"]},
    ]
    nodes[1]["retries"] = {"limit": 1, "delay": 1, "backoff": "constant"}
    nodes[1]["config"] = {"url": "{{ input.url }}"}
    await api.deploy("flow", nodes)
    await api.ask("POST", "flow/instances", json={"instance_id": "i", "params": {"url": "https://127.0.0.1:1/"}})
    view = await api.until("flow/instances/i", "errored")
    assert (view["success"], view["output"], view["rollback"]) == (False, None, {"outcome": "complete", "error": None})
    assert set(view["error"]) == {"name", "message"}
    by_name = {(step["type"], step["name"]): step for step in view["steps"]}
    assert by_name["step", "book-1"]["output"] == '{"n":3}'
    failed = by_name["step", "boom-1"]
    assert failed["success"] is False
    assert failed["attempts"]
    assert all(attempt["success"] is False and attempt["end"] for attempt in failed["attempts"])
    assert {"retries", "timeout"} <= set(failed["config"])
    assert by_name["rollback", "book-1"]["success"] is True
    detail = await api.ask("GET", "flow/instances/i/step?name=boom-1&type=step")
    assert detail["status"] == "errored"
    assert detail["error"] == failed["attempts"][-1]["error"]


async def test_pause_while_waiting_moves_the_planned_end(api: Api):
    await api.deploy("flow", [GATE, {"id": "nap", "type": "wait", "config": {"duration": "1 hour"}}])
    await api.ask("POST", "flow/instances", json={"instance_id": "i"})
    before = await api.until("flow/instances/i", "waiting")
    assert {step["type"] for step in before["steps"]} == {"waitForEvent", "sleep"}
    assert (await api.ask("PATCH", "flow/instances/i/status", json={"status": "pause"}))["status"] == "paused"
    assert (await api.ask("PATCH", "flow/instances/i/status", json={"status": "resume"}))["status"] == "queued"
    after = await api.until("flow/instances/i", "waiting")
    for old, new in zip(before["steps"], after["steps"], strict=True):
        assert (new["start"], new["finished"]) == (old["start"], False)
        assert new["end"] > old["end"]


async def test_restart_from_a_step_of_a_document(api: Api):
    nodes = [
        {"id": "a", "type": "set", "config": {"values": {"a": 1}}},
        {"id": "b", "type": "set", "depends_on": ["a"], "config": {"values": {"b": 2}}},
    ]
    await api.deploy("flow", nodes)
    await api.ask("POST", "flow/instances", json={"instance_id": "i"})
    first = await api.until("flow/instances/i", "complete")
    await api.ask("PATCH", "flow/instances/i/status", json={"status": "restart", "from": {"name": "b"}})
    second = await api.until("flow/instances/i", "complete")
    assert [step["name"] for step in second["steps"]] == ["a-1", "b-1"]
    assert second["steps"][0] == first["steps"][0]
    assert second["steps"][1]["start"] > first["steps"][1]["start"]
