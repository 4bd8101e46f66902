"""The official TypeScript SDK, and an EventSource as browsers have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.live import Live

from .conftest import Cloud
from .node_clients import NodeClients

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

WAITS = {"nodes": [{"id": "a"}, {"id": "go", "type": "wait_for_event", "depends_on": ["a"], "config": {"event": "go"}}]}


@pytest.fixture
def environment(server: Live, cloud: Cloud) -> dict[str, str]:
    return {
        "MILLRACE_URL": server.base_url,
        "MILLRACE_API": f"{server.base_url}/client/v4",
        "MILLRACE_ACCOUNT": cloud.account,
        "MILLRACE_TOKEN": cloud.tenant.token,
    }


async def test_typescript_sdk(clients: NodeClients, environment: dict[str, str], tmp_path: Path) -> None:
    """Every method, and every answer of the type that the SDK declares for it."""
    project = clients.project(tmp_path)
    ran = await clients.run(project / "sdk.mjs", cwd=project, environment=environment)
    assert ran.code == 0 and "answers of 21 types" in ran.out, ran.out
    compiled = await clients.run("typescript/bin/tsc", "--project", ".", cwd=project, environment={})
    assert compiled.code == 0, compiled.out


async def test_event_source(clients: NodeClients, environment: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    """A live log through a lost connection: nothing missing, nothing twice, and no connection after the end."""
    await cloud.deploy("waits", WAITS)
    await cloud.sdk.workflows.instances.create("waits", account_id=cloud.account, instance_id="i")
    await cloud.until("waits", "i", "waiting")
    project = clients.project(tmp_path)
    instance = {"MILLRACE_INSTANCE": f"{cloud.tenant.path}/workflows/waits/instances/i"}
    ran = await clients.run(project / "event_source.mjs", cwd=project, environment=environment | instance)
    assert ran.code == 0, ran.out
    told = [json.loads(line) for line in ran.out.splitlines()]
    lines = (await cloud.http.get("/workflows/waits/instances/i/logs")).json()["result"]
    assert [one["line"] for one in told if "line" in one] == lines
    assert [one["id"] for one in told if "id" in one] == [line["id"] for line in lines]
    asked = [one["asked"] for one in told if "asked" in one]
    cut = next(line["id"] for line in lines if line["message"] == "Waiting for an event")
    assert asked == [None, str(cut), str(lines[-1]["id"])]
    assert [one["end"] for one in told if "end" in one] == [{"status": "complete"}]
    assert told[-1] == {"closed": 204, "state": 2}
