"""Medusa's own JS SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenants.auth import operator
from tests.conformance.cloudflare.node_clients import NodeClients, node_clients

from .conftest import Medusa
from .test_runs import FAILS
from .test_streams import FLOW

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

PROJECT = Path(__file__).with_name("node")


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> NodeClients:
    return node_clients(request.config.cache.mkdir("npm"), PROJECT)  # type: ignore[union-attr]


async def test_js_sdk(clients: NodeClients, medusa: Medusa, tmp_path: Path) -> None:
    """List, retrieve, run, steps, streams, and logins by key, JWT and session."""
    await medusa.face.deploy("order-intake", FLOW)
    await medusa.face.deploy("fails", [{"id": "f", **FAILS}])
    tenant, platform = medusa.face.tenant, medusa.face.server.platform
    email, password = f"ada-{tenant.hex}@example.org", "correct horse battery"
    await platform.tenants.users.create(operator(tenant.id), "ada", role="operator", email=email, password=password)
    environment = {
        "MILLRACE_URL": medusa.face.server.base_url,
        "MILLRACE_TOKEN": tenant.token,
        "MILLRACE_EMAIL": email,
        "MILLRACE_PASSWORD": password,
    }
    project = clients.project(tmp_path)
    ran = await clients.run(project / "sdk.mjs", cwd=project, environment=environment)
    assert ran.code == 0 and "all as it should be" in ran.out, ran.out
