"""`/metrics` of a process (app.observability.metrics)."""

from __future__ import annotations

import dataclasses
import re

import httpx
import pytest

from app.observability.metrics import HttpMetrics, observed
from app.settings import Settings, SettingsError
from tests.support.api import Tenant


async def read(address: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(address)).text


async def test_what_happens_is_counted_by_route(http: httpx.AsyncClient, tenant: Tenant, settings: Settings) -> None:
    async with observed(dataclasses.replace(settings, metrics_bind="127.0.0.1:0")) as address:
        assert address is not None
        for path in (f"{tenant.path}/workflows/w/instances/i", "/nope", f"{tenant.path}/workflows"):
            await http.get(path, headers=tenant.headers)
        text = await read(address)
    route = "/client/v4/accounts/{account_id}/workflows"
    for labels in (
        f'method="GET",route="{route}/{{workflow_name}}/instances/{{instance_id}}",status="404"',
        'method="GET",route="unmatched",status="404"',
        f'method="GET",route="{route}",status="200"',
    ):
        assert re.search(rf"millrace_http_request_seconds_count{{{re.escape(labels)}}} [1-9]", text), labels
    assert "millrace_loop_lag_seconds" in text
    assert tenant.hex not in text


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1", "127.0.0.1:x", "256.0.0.1:1"])
async def test_a_bad_address_is_named(settings: Settings, bind: str) -> None:
    with pytest.raises(SettingsError, match="MILLRACE_METRICS_BIND"):
        async with observed(dataclasses.replace(settings, metrics_bind=bind)):
            pass


async def test_nothing_is_served_without_an_address(settings: Settings) -> None:
    async with observed(dataclasses.replace(settings, metrics_bind="")) as address:
        assert address is None


def test_buckets_add_up() -> None:
    metrics = HttpMetrics()
    for seconds in (0.0005, 0.001, 0.02, 99.0):
        metrics.count("GET", "/x", "200", seconds)
    (family,) = metrics.collect()
    values = {(sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value for sample in family.samples}
    assert values["bucket", "0.001"] == 2
    assert values["bucket", "0.025"] == 3
    assert values["bucket", "10.0"] == 3
    assert values["bucket", "+Inf"] == values["count", None] == 4
    assert values["sum", None] == pytest.approx(99.0215)
