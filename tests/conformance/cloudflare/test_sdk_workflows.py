"""The official SDK's workflow and version methods."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cloudflare import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
)

from tests.support.api import new_tenant
from tests.support.live import Live

from .conftest import Cloud, cloud_of

NODES = {"nodes": [{"id": "a", "type": "set", "config": {"values": {"x": 1}}}]}
STATUSES = {
    "queued",
    "running",
    "waiting",
    "paused",
    "waitingForPause",
    "rollingBack",
    "complete",
    "errored",
    "terminated",
}


def codes(error: APIStatusError) -> list[int]:
    return [each.code for each in error.errors]  # type: ignore[attr-defined]


async def test_update_creates_a_workflow(cloud: Cloud) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    made = await cloud.deploy("orders", NODES)
    assert made.name == "orders"
    assert UUID(made.id) and UUID(made.version_id)
    assert (made.is_deleted, made.terminator_running, made.triggered_on) == (0, 0, None)
    assert made.class_name and made.script_name
    assert before < made.created_on <= made.modified_on


async def test_update_with_the_same_document_changes_nothing(cloud: Cloud) -> None:
    first = await cloud.deploy("orders", NODES)
    again = await cloud.deploy("orders", NODES)
    other = await cloud.deploy("orders", {"nodes": []})
    assert first.version_id == again.version_id != other.version_id
    assert first.id == again.id == other.id


async def test_settings_are_kept_with_the_version_and_replaced_as_a_whole(cloud: Cloud) -> None:
    first = await cloud.deploy(
        "orders",
        NODES,
        limits={"steps": 7},
        concurrency={"limit": 3},
        schedules=[{"cron": "0 4 * * *"}],
        default_retention={"success_retention": "2 days", "error_retention": 3_600_000},
    )
    version = await cloud.sdk.workflows.versions.get(first.version_id, account_id=cloud.account, workflow_name="orders")
    assert version.limits and version.limits.steps == 7
    assert version.default_retention and version.default_retention.success_retention == 2 * 86_400_000
    assert version.default_retention.error_retention == 3_600_000
    got = await cloud.sdk.workflows.get("orders", account_id=cloud.account)
    assert got.schedules and got.schedules[0].cron == "0 4 * * *"
    second = await cloud.deploy("orders", NODES)
    version = await cloud.sdk.workflows.versions.get(
        second.version_id, account_id=cloud.account, workflow_name="orders"
    )
    assert first.version_id != second.version_id
    assert (version.limits, version.default_retention) == (None, None)
    assert not (await cloud.sdk.workflows.get("orders", account_id=cloud.account)).schedules


async def test_get(cloud: Cloud) -> None:
    made = await cloud.deploy("orders", NODES)
    got = await cloud.sdk.workflows.get("orders", account_id=cloud.account)
    assert (got.id, got.name, got.triggered_on) == (made.id, "orders", None)
    assert set(got.instances) == STATUSES
    assert set(got.instances.values()) == {0}


async def test_counts_follow_the_instances(cloud: Cloud) -> None:
    await cloud.deploy("orders", NODES)
    await cloud.deploy("waits", {"nodes": [{"id": "w", "type": "wait_for_event", "config": {"event": "go"}}]})
    done = await cloud.sdk.workflows.instances.create("orders", account_id=cloud.account)
    waiting = await cloud.sdk.workflows.instances.create("waits", account_id=cloud.account)
    await cloud.until("orders", done.id, "complete")
    await cloud.until("waits", waiting.id, "waiting")
    orders = await cloud.sdk.workflows.get("orders", account_id=cloud.account)
    waits = await cloud.sdk.workflows.get("waits", account_id=cloud.account)
    assert (orders.instances["complete"], waits.instances["waiting"]) == (1, 1)
    assert orders.triggered_on is not None


async def test_list_pages_until_the_end(cloud: Cloud) -> None:
    names = [f"w{number:02}" for number in range(23)]
    for name in names:
        await cloud.deploy(name, NODES)
    listed = [each.name async for each in cloud.sdk.workflows.list(account_id=cloud.account)]
    assert listed == names[::-1]
    pages = [request.url.params.get("page") for request in cloud.requests if request.method == "GET"]
    assert pages == [None, "2", "3", "4"]
    first = await cloud.sdk.workflows.list(account_id=cloud.account, per_page=5, page=2)
    assert [each.name for each in first.result] == names[::-1][5:10]
    assert first.result_info
    assert first.result_info.to_dict() == {
        "page": 2,
        "per_page": 5,
        "count": 5,
        "total_count": 23,
        "total_pages": 5,
    }
    found = await cloud.sdk.workflows.list(account_id=cloud.account, search="w1")
    assert {each.name for each in found.result} == {name for name in names if "w1" in name}
    past = await cloud.sdk.workflows.list(account_id=cloud.account, page=5000)
    assert past.result == []


async def test_delete(cloud: Cloud) -> None:
    await cloud.deploy("waits", {"nodes": [{"id": "w", "type": "wait_for_event", "config": {"event": "go"}}]})
    await cloud.sdk.workflows.instances.create("waits", account_id=cloud.account, instance_id="one")
    gone = await cloud.sdk.workflows.delete("waits", account_id=cloud.account)
    assert gone.status == "ok"
    for call in (
        cloud.sdk.workflows.get("waits", account_id=cloud.account),
        cloud.get("waits", "one"),
        cloud.sdk.workflows.delete("waits", account_id=cloud.account),
        cloud.sdk.workflows.instances.create("waits", account_id=cloud.account),
    ):
        with pytest.raises(NotFoundError) as raised:
            await call
        assert codes(raised.value) == [10200]
    await cloud.deploy("waits", NODES)
    assert [each async for each in cloud.sdk.workflows.instances.list("waits", account_id=cloud.account)] == []


async def test_versions(cloud: Cloud) -> None:
    made = [await cloud.deploy("orders", {"nodes": [{"id": f"n{number}", "type": "noop"}]}) for number in range(3)]
    listed = [each async for each in cloud.sdk.workflows.versions.list("orders", account_id=cloud.account, per_page=2)]
    assert [each.id for each in listed] == [each.version_id for each in made[::-1]]
    got = await cloud.sdk.workflows.versions.get(listed[0].id, account_id=cloud.account, workflow_name="orders")
    assert (got.id, got.workflow_id, got.has_dag, got.language) == (listed[0].id, made[0].id, True, "document")
    assert got.created_on == got.modified_on


async def test_graph_and_dag(cloud: Cloud) -> None:
    made = await cloud.deploy("orders", NODES)
    graph = await cloud.sdk.workflows.versions.graph(made.version_id, account_id=cloud.account, workflow_name="orders")
    assert graph.graph and graph.graph.workflow
    [node] = [node for node in graph.graph.workflow.nodes if node.type == "step_do"]
    assert node.name == "a"
    dag = (await cloud.http.get(f"/workflows/orders/versions/{made.version_id}/dag")).json()
    assert dag["result"]["dag"] == graph.to_dict()["dag"]


async def test_unknown_things(cloud: Cloud) -> None:
    await cloud.deploy("orders", NODES)
    for name in ("nope", "a.b", "x" * 65, "executions"):
        with pytest.raises(NotFoundError) as raised:
            await cloud.sdk.workflows.get(name, account_id=cloud.account)
        assert codes(raised.value) == [10200]
    for version, code in (("0199b2f2-7c1e-7d4a-9f0e-6b1f0a2c3d4e", 10300), ("nope", 7003), ("1", 7003)):
        with pytest.raises(NotFoundError) as missing:
            await cloud.sdk.workflows.versions.get(version, account_id=cloud.account, workflow_name="orders")
        assert codes(missing.value) == [code]


async def test_problems_of_a_document_are_one_error_each(cloud: Cloud) -> None:
    nodes = [
        {"id": "a", "type": "wait", "config": {"duration": "soon"}},
        {"id": "a", "type": "noop", "surprise": 1},
        {"id": "b", "type": "noop", "depends_on": ["nobody"]},
    ]
    with pytest.raises(BadRequestError) as raised:
        await cloud.deploy("orders", {"nodes": nodes})
    errors = raised.value.errors  # type: ignore[attr-defined]
    assert len(errors) >= 4
    pointers = {each.source.pointer for each in errors}  # type: ignore[union-attr]
    assert all(pointer.startswith("/definition/nodes/") for pointer in pointers)
    assert any(re.match(r"/definition/nodes/2/depends_on", pointer) for pointer in pointers)


@pytest.mark.parametrize("name", ["-a", "a b", "a.b", "x" * 65, "executions", "settings", "ä"])
async def test_names_that_are_not_allowed(cloud: Cloud, name: str) -> None:
    with pytest.raises(BadRequestError):
        await cloud.deploy(name, NODES)


async def test_credentials(server: Live, cloud: Cloud) -> None:
    await cloud.deploy("orders", NODES)
    stranger = await new_tenant(server.platform)
    weak = await new_tenant(server.platform, ["workflows:read"], of=cloud.tenant.id)
    async with cloud_of(server, stranger) as other:
        with pytest.raises(NotFoundError) as raised:
            await other.sdk.workflows.get("orders", account_id=cloud.account)
        assert codes(raised.value) == [7003]
        with pytest.raises(NotFoundError):
            await other.sdk.workflows.get("orders", account_id=other.account)
    async with cloud_of(server, weak) as reader:
        assert (await reader.sdk.workflows.get("orders", account_id=cloud.account)).name == "orders"
        with pytest.raises(PermissionDeniedError):
            await reader.sdk.workflows.delete("orders", account_id=cloud.account)
        with pytest.raises(PermissionDeniedError):
            await reader.sdk.workflows.instances.create("orders", account_id=cloud.account)
    wrong = cloud.sdk.with_options(api_token="sk_not_a_token_of_this_server_at_all")
    with pytest.raises(AuthenticationError) as refused:
        await wrong.workflows.get("orders", account_id=cloud.account)
    assert codes(refused.value) == [10000]


async def test_account_wide_settings(cloud: Cloud) -> None:
    changed = await cloud.http.patch("/workflows/settings", json={"default_retention": {"success_retention": "1 day"}})
    read = await cloud.http.get("/workflows/settings")
    assert changed.json()["result"] == {"default_retention": {"success_retention": 86_400_000}}
    assert read.json()["result"] == changed.json()["result"]
