"""Limits of an account that hold while its instances run, over HTTP, with the worker as it is composed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tests.support.api import Tenant, new_tenant
from tests.support.live import Live

CALL = {"id": "call", "type": "call_api", "config": {"url": "https://nowhere.invalid"}, "on_error": "continue"}
TWO_VALUES = {
    "spec": "workflow/1",
    "name": "two",
    "nodes": [
        {"id": "first", "type": "set", "config": {"values": {"a": "{{ trigger.text }}"}}},
        {"id": "second", "type": "set", "depends_on": ["first"], "config": {"values": {"b": "{{ trigger.text }}"}}},
    ],
}


async def ended(server: Live, tenant: Tenant, document: dict[str, Any], params: Any) -> dict[str, Any]:
    """An instance of the document, once it has ended."""
    async with httpx.AsyncClient(base_url=server.base_url + tenant.path, headers=tenant.headers, timeout=30) as http:
        put = await http.put(f"/workflows/{document['name']}", json={"definition": document})
        assert put.status_code == 200, put.text
        instances = f"/workflows/{document['name']}/instances"
        created = await http.post(instances, json={"params": params})
        while True:
            shown = (await http.get(f"{instances}/{created.json()['result']['id']}")).json()["result"]
            if shown["end"] is not None:
                return shown


@pytest.fixture
async def tenant(server: Live) -> Tenant:
    return await new_tenant(server.platform)


async def limit(server: Live, tenant: Tenant, **limits: Any) -> None:
    await server.platform.tenants.accounts.set_limits(operator(tenant.id), changes=limits)


async def test_stored_bytes(server: Live, tenant: Tenant) -> None:
    params = {"text": "x" * 10}  # 21 bytes, and each output, {"a":"xxxxxxxxxx"}, 18
    await limit(server, tenant, state_bytes=21 + 18 + 18)
    assert (await ended(server, tenant, TWO_VALUES, params))["status"] == "complete"
    await limit(server, tenant, state_bytes=21 + 18 + 17)
    shown = await ended(server, tenant, TWO_VALUES, params)
    assert (shown["status"], shown["error"]["name"]) == ("errored", "LIMIT_EXCEEDED")
    assert [step["success"] for step in shown["steps"]] == [True, False]


async def test_outgoing_requests(server: Live, tenant: Tenant) -> None:
    document = {"spec": "workflow/1", "name": "calls", "nodes": [CALL, CALL | {"id": "again", "depends_on": ["call"]}]}
    await limit(server, tenant, subrequests=1)
    shown = await ended(server, tenant, document, {})
    errors = [step["attempts"][-1]["error"]["name"] for step in shown["steps"] if step["name"] != "trigger-1"]
    assert errors == ["API_CALL_FAILED", "LIMIT_EXCEEDED"]
