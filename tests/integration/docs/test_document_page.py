"""The documents of `docs/document.md`, deployed as they stand there and run, if they need no other machine.

What calls out is held to the page in `tests/unit/docs/test_document_behaviour.py`.
"""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from app.embedded.valkey import EmbeddedValkey
from instances.runtimes.document import register_action_handler, unregister_action_handler
from tests.support.api import new_tenant
from tests.support.databases import Databases
from tests.support.docs import blocks
from tests.support.live import Live, live_for_tests

PATIENCE = 20.0
SHOWN = {
    re.search(r"^name: (.*)$", block.text, re.MULTILINE)[1]: block.text  # type: ignore[index]
    for block in blocks("yaml")
    if block.place.startswith("docs/document.md")
}
CALLING = {"charge", "errors", "booking", "resize"}
ITEMS = [{"name": "lamp", "price": 120, "sku": "L-1"}, {"name": "bulb", "price": 3, "sku": "B-1"}]

# name: (params, events in the order they are awaited, status, output)
RUNS: dict[str, tuple[Any, list[tuple[str, Any]], str, Any]] = {
    "order": ({"order": 7}, [("approval", {"approved": True})], "complete", {"reservation": "res-7", "shipped": True}),
    "totals": ({"items": ITEMS}, [], "complete", {"count": 2, "sum": 123, "dear": ["lamp"], "text": "2 items, EUR"}),
    "conditions": ({"total": 700, "items": ITEMS}, [], "complete", {"large": "success", "german": None, "both": None}),
    "fork": ({"shipping": "express"}, [], "complete", "success"),
    "review": (
        {"title": "T"},
        [("step:review", {"approved": True}), ("published", {"title": "T"})],
        "complete",
        {"title": "T"},
    ),
    "parent": ({"order": 1}, [], "errored", None),
    "launch": ({}, [], "complete", "success"),
    "nightly": ({}, [], "complete", "success"),
    "intake": ({"id": 7, "total": 12.5}, [], "complete", {"order": 7}),
    "checked": ({"email": "a@example.com", "age": 18}, [], "complete", {"to": "a@example.com"}),
    "welcome": ({"name": "Ada", "plan": "pro"}, [], "complete", ...),
    "shipping": ({"order": 7}, [], "complete", {"parcel": "8-1"}),
}


def ship_order(action: Any, context: Any) -> Any:
    context.log(f"shipping, attempt {context.attempt}")
    return {"success": True, "output": {"parcel": f"{action['config']['order']}-1"}}


@pytest.fixture(scope="module", autouse=True)
def handler() -> Iterator[None]:
    register_action_handler("ship_order", ship_order, {"type": "object", "required": ["order"]})
    yield
    unregister_action_handler("ship_order")


@pytest.fixture(scope="module")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    async with live_for_tests(databases, valkey) as running:
        yield running


@pytest.fixture
async def api(server: Live) -> AsyncIterator[httpx.AsyncClient]:
    tenant = await new_tenant(server.platform)
    base = server.base_url + tenant.path
    async with httpx.AsyncClient(base_url=base, headers=tenant.headers, trust_env=False) as client:
        yield client


async def deploy(api: httpx.AsyncClient, name: str) -> None:
    body = f"definition:\n{textwrap.indent(SHOWN[name], '  ')}"
    answer = await api.put(f"/workflows/{name}", content=body, headers={"content-type": "application/yaml"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["messages"] == []


async def until(api: httpx.AsyncClient, path: str, *statuses: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while (seen := (await api.get(path)).json()["result"])["status"] not in statuses:
            assert "errored" in statuses or seen["status"] != "errored", seen["error"]
            await asyncio.sleep(0.02)
    return seen


def test_every_document_is_run_here_or_there() -> None:
    assert set(SHOWN) == set(RUNS) | CALLING


@pytest.mark.parametrize("name", sorted(CALLING))
async def test_documents_that_call_out_are_accepted(api: httpx.AsyncClient, name: str) -> None:
    await deploy(api, name)


@pytest.mark.parametrize("name", RUNS)
async def test_a_document_runs_as_shown(api: httpx.AsyncClient, name: str) -> None:
    params, events, status, output = RUNS[name]
    await deploy(api, name)
    path = f"/workflows/{name}/instances/i"
    created = await api.post(f"/workflows/{name}/instances", json={"instance_id": "i", "params": params})
    assert created.status_code == 200, created.text
    for kind, payload in events:
        await until(api, path, "waiting")
        assert (await api.post(f"{path}/events/{kind}", json=payload)).status_code == 200
    done = await until(api, path, status)
    assert output is ... or done["output"] == output


async def test_a_parent_and_its_child(api: httpx.AsyncClient) -> None:
    await deploy(api, "parent")
    child = {
        "spec": "workflow/1",
        "nodes": [{"id": "a", "type": "set", "config": {"values": {"got": "{{ trigger }}"}}}],
    }
    assert (await api.put("/workflows/invoice", json={"definition": child})).status_code == 200
    await api.post("/workflows/parent/instances", json={"instance_id": "i", "params": {"order": 9}})
    done = await until(api, "/workflows/parent/instances/i", "complete")
    assert done["output"] == {"got": {"order": 9}}


async def test_whatever_waits_for_outside_can_be_answered(api: httpx.AsyncClient) -> None:
    longest = "n" * 128
    nodes = [
        {"id": longest, "type": "external", "compensate": {"type": "external"}},
        {"id": "broken", "type": "fail", "depends_on": [longest]},
    ]
    definition = {"spec": "workflow/1", "nodes": nodes}
    assert (await api.put("/workflows/w", json={"definition": definition})).status_code == 200
    await api.post("/workflows/w/instances", json={"instance_id": "i"})
    await until(api, "/workflows/w/instances/i", "waiting")
    assert (await api.post(f"/workflows/w/instances/i/events/step:{longest}")).status_code == 200
    await until(api, "/workflows/w/instances/i", "rollingBack")
    assert (await api.post(f"/workflows/w/instances/i/events/step:{longest}:compensate")).status_code == 200
    done = await until(api, "/workflows/w/instances/i", "errored")
    assert done["rollback"] == {"outcome": "complete", "error": None}


async def test_a_rollback_that_waits_for_outside_can_be_ended(api: httpx.AsyncClient) -> None:
    nodes = [{"id": "a", "compensate": {"type": "external"}}, {"id": "b", "type": "fail", "depends_on": ["a"]}]
    assert (
        await api.put("/workflows/w", json={"definition": {"spec": "workflow/1", "nodes": nodes}})
    ).status_code == 200
    await api.post("/workflows/w/instances", json={"instance_id": "i"})
    await until(api, "/workflows/w/instances/i", "rollingBack")
    assert (await api.patch("/workflows/w/instances/i/status", json={"status": "terminate"})).status_code == 200
    done = await until(api, "/workflows/w/instances/i", "errored", "terminated")
    assert done["rollback"]["outcome"] == "failed"


async def test_an_input_that_breaks_the_schema(api: httpx.AsyncClient) -> None:
    await deploy(api, "checked")
    answer = await api.post("/workflows/checked/instances", json={"params": {"email": "nobody", "age": 3}})
    assert answer.status_code == 400
    pointers = {error["source"]["pointer"] for error in answer.json()["errors"]}
    assert pointers == {"/params/email", "/params/age"}


async def test_the_schedules_are_shown(api: httpx.AsyncClient) -> None:
    await deploy(api, "nightly")
    [schedule] = (await api.get("/workflows/nightly")).json()["result"]["schedules"]
    assert schedule["cron"] == "30 2 * * MON-FRI"
