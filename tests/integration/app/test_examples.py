"""Every example document runs, and the tour of them (app.tour, examples/)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import tour
from app.examples import examples
from tests.support.api import Tenant, new_tenant
from tests.support.live import Live

FOLDER = Path(__file__).parents[3] / "examples"
PATIENCE = 20.0

# name: (params, events to send while it waits, output)
RUNS: dict[str, tuple[Any, list[tuple[str, Any]], Any]] = {
    "hello": ({"name": "Ada"}, [], {"greeting": "Hello, Ada!"}),
    "nightly-cleanup": ({}, [], {"cleaned": ["sessions", "drafts"]}),
    "order-approval": (
        {"order": 7, "sku": "lamp", "total": 900},
        [("approval", {"approved": True, "by": "grace"})],
        {"order": 7, "reservation": "res-7", "approved_by": "grace"},
    ),
    "sales-report": (
        json.loads((FOLDER / "sales.json").read_text()),
        [],
        {
            "total": 565,
            "best": "south",
            "regions": [
                {"region": "north", "total": 245},
                {"region": "south", "total": 320},
                {"region": "west", "total": 0},
            ],
        },
    ),
}


@pytest.fixture
async def tenant(server: Live) -> Tenant:
    return await new_tenant(server.platform)


@pytest.fixture
async def api(server: Live, tenant: Tenant):
    base = server.base_url + tenant.path
    async with httpx.AsyncClient(base_url=base, headers=tenant.headers, trust_env=False) as client:
        yield client


async def until(api: httpx.AsyncClient, path: str, *statuses: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while (seen := (await api.get(path)).json()["result"])["status"] not in statuses:
            assert seen["status"] != "errored", seen["error"]
            await asyncio.sleep(0.02)
    return seen


async def deployed(api: httpx.AsyncClient, name: str) -> None:
    example = next(example for example in examples() if example.name == name)
    answer = await api.put(f"/workflows/{name}", json={"definition": example.definition})
    assert answer.status_code == 200, answer.text
    assert answer.json()["messages"] == []


def test_every_example_is_run() -> None:
    assert {example.name for example in examples()} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
async def test_an_example_runs_to_its_output(api: httpx.AsyncClient, name: str) -> None:
    params, events, output = RUNS[name]
    await deployed(api, name)
    await api.post(f"/workflows/{name}/instances", json={"instance_id": "i", "params": params})
    for kind, payload in events:
        await until(api, f"/workflows/{name}/instances/i", "waiting")
        await api.post(f"/workflows/{name}/instances/i/events/{kind}", json=payload)
    done = await until(api, f"/workflows/{name}/instances/i", "complete")
    assert done["output"] == output


async def test_hello_without_input(api: httpx.AsyncClient) -> None:
    await deployed(api, "hello")
    created = (await api.post("/workflows/hello/instances")).json()["result"]
    done = await until(api, f"/workflows/hello/instances/{created['id']}", "complete")
    assert done["output"] == {"greeting": "Hello, world!"}


async def test_a_small_order_needs_no_approval(api: httpx.AsyncClient) -> None:
    await deployed(api, "order-approval")
    params = {"order": 8, "sku": "pen", "total": 20}
    await api.post("/workflows/order-approval/instances", json={"instance_id": "i", "params": params})
    done = await until(api, "/workflows/order-approval/instances/i", "complete")
    assert done["output"] == {"order": 8, "reservation": "res-8", "approved_by": None}


async def test_a_refused_order_releases_its_stock(api: httpx.AsyncClient) -> None:
    await deployed(api, "order-approval")
    params = {"order": 9, "sku": "lamp", "total": 900}
    path = "/workflows/order-approval/instances/i"
    await api.post("/workflows/order-approval/instances", json={"instance_id": "i", "params": params})
    await until(api, path, "waiting")
    await api.post(f"{path}/events/approval", json={"approved": False})
    async with asyncio.timeout(PATIENCE):
        while (ended := (await api.get(path)).json()["result"])["end"] is None:
            await asyncio.sleep(0.02)
    assert ended["status"] == "errored"
    assert ended["rollback"] == {"outcome": "complete", "error": None}
    assert [step["name"] for step in ended["steps"] if step["type"] == "rollback"] == ["reserve-1"]


async def test_the_sales_report_refuses_other_input(api: httpx.AsyncClient) -> None:
    await deployed(api, "sales-report")
    answer = await api.post("/workflows/sales-report/instances", json={"params": {"regions": "north"}})
    assert answer.status_code == 400


async def test_the_python_example(api: httpx.AsyncClient) -> None:
    source = FOLDER / "order-python" / "src" / "entry.py"
    said = {"main_module": "entry.py", "compatibility_date": "2026-11-01"}
    said |= {"compatibility_flags": ["python_workers", "python_workflows"]}
    said |= {"bindings": [{"type": "plain_text", "name": "CURRENCY", "text": "EUR"}]}
    files = [
        ("metadata", (None, json.dumps(said), "application/json")),
        ("entry.py", ("entry.py", source.read_bytes(), "text/x-python")),
    ]
    uploaded = await api.put("/workers/scripts/order-python", files=files)
    assert uploaded.status_code == 200, uploaded.text
    bound = await api.put("/workflows/order-python", json={"script_name": "order-python", "class_name": "Order"})
    assert bound.status_code == 200, bound.text
    items = {"lamp": 2, "pen": 10}
    await api.post("/workflows/order-python/instances", json={"instance_id": "i", "params": {"items": items}})
    await until(api, "/workflows/order-python/instances/i", "waiting")
    await api.post("/workflows/order-python/instances/i/events/approval", json={"approved": True})
    done = await until(api, "/workflows/order-python/instances/i", "complete")
    assert done["output"] == {"shipped": True, "invoice": "195.00 EUR", "parcels": ["2 x lamp", "10 x pen"]}


async def test_the_tour(server: Live, tenant: Tenant) -> None:
    said: list[str] = []
    await tour.run(server.base_url, tenant.hex, tenant.token, said.append)
    words = [line.split()[0] for line in said]
    assert words == ["deploy"] * len(RUNS) + [
        "create",
        "wait",
        "pause",
        "send",
        "resume",
        "complete",
        "terminate",
    ]
    assert '"approved_by":"the tour"' in said[-2]


async def test_the_tour_says_when_nobody_answers() -> None:
    with pytest.raises(tour.TourFailed, match="did not answer"):
        await tour.run("http://127.0.0.1:1", "0" * 32, "sk_x", print)


def test_three_curl_lines_that_a_shell_can_read() -> None:
    lines = tour.curl_lines("http://127.0.0.1:8484", "0" * 32, "sk_x")
    assert len(lines) == 3
    assert all(
        line.startswith("curl -H 'Authorization: Bearer sk_x' http://127.0.0.1:8484/client/v4/") for line in lines
    )
