"""An EventSource as browsers have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tenants.auth import operator
from tests.conformance.cloudflare.node_clients import NodeClients, node_clients
from tests.conformance.conftest import Face
from tests.conformance.workspaces.support import HERE, WAITS, at_event, look, make, start

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

SCRIPT = Path(__file__).with_name("node") / "workspace_stream.mjs"


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> NodeClients:
    """Clients that need Node."""
    return node_clients(request.config.cache.mkdir("npm"))  # type: ignore[union-attr]


async def test_event_source(face: Face, clients: NodeClients, tmp_path: Path) -> None:
    """A stream through a lost connection: nothing missing, nothing twice, and no connection after the end."""
    tenants, name = face.server.platform.tenants, f"u-{face.tenant.hex}"
    await tenants.users.create(operator(face.tenant.id), name, role="viewer", password="correct horse battery")
    login = await tenants.logins.log_in(name, "correct horse battery", account=face.tenant.hex)
    cookie, _ = await tenants.sessions.create(login.caller)
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    [instance] = (await face.cloud.get("/workflows/flow/instances")).json()["result"]
    project = clients.project(tmp_path)
    script = shutil.copy(SCRIPT, project)
    ran = await clients.run(
        Path(script),
        cwd=project,
        environment={
            "MILLRACE_URL": face.server.base_url,
            "MILLRACE_STREAM": f"{HERE}/workflows/executions/{id}/stream",
            "MILLRACE_GO": f"{face.tenant.path}/workflows/flow/instances/{instance['id']}/events/go",
            "MILLRACE_TOKEN": face.tenant.token,
            "MILLRACE_COOKIE": f"connect.sid={cookie}",
        },
    )
    assert ran.code == 0, ran.out
    told = [json.loads(line) for line in ran.out.splitlines()]
    events = [one for one in told if "name" in one]
    assert [one["data"]["resumed"] for one in events if one["name"] == "connected"] == [False, True]
    shown = await look(face, id)
    assert [one["data"] for one in events if one["name"] == "step"] == shown["execution"]["steps"]
    [end] = [one["data"] for one in events if one["name"] == "complete"]
    assert end["status"] == "COMPLETED"
    asked = [one["asked"] for one in told if "asked" in one]
    assert (len(asked), asked[0]) == (3, None)
    assert int(asked[1]) < int(asked[2])
    assert told[-1] == {"closed": 204, "state": 2}
