"""Scripts run by Cloudflare's local engine and by Millrace, with the same results. Opt-in, as it installs some 100 MB:

MILLRACE_LOCAL_ENGINE=1 pytest tests/conformance/local_engine
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.cloudflare.node_clients import wrangler_with_runtime
from tests.support.api import new_tenant
from tests.support.javascript import Scripts
from tests.support.live import live_for_tests

from .comparable import comparable
from .engines import WORKFLOWS, Engine, local_engine
from .scripts import SCRIPTS, module

pytestmark = [
    pytest.mark.npm,
    pytest.mark.skipif("MILLRACE_LOCAL_ENGINE" not in os.environ, reason="opt-in: set MILLRACE_LOCAL_ENGINE"),
]


@pytest.fixture(scope="module")
async def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    clients = wrangler_with_runtime(Path(request.config.cache.mkdir("npm")))  # type: ignore[union-attr]
    async with local_engine(clients, tmp_path_factory.mktemp("wrangler")) as engine:
        yield engine


@pytest.fixture(scope="module")
async def ours(databases, valkey) -> AsyncIterator[Engine]:
    async with live_for_tests(databases, valkey) as live, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        tenant = await new_tenant(live.platform)
        scripts = Scripts(live, tenant, client)
        bindings = [
            {"type": "workflow", "name": name.upper(), "workflow_name": name, "class_name": cls}
            for name, cls in WORKFLOWS.items()
        ]
        await scripts.upload("compared", {"index.js": module()}, bindings=bindings)
        for name, cls in WORKFLOWS.items():
            await scripts.bind(name, "compared", cls)
        yield Engine(live.base_url + tenant.path, client, tenant.headers, "instance_id")


@pytest.mark.parametrize("number", range(len(SCRIPTS)), ids=list(SCRIPTS))
async def test_both_engines_say_the_same(ours: Engine, theirs: Engine, number: int) -> None:
    script, id = list(SCRIPTS.values())[number], f"n{number}"
    told = comparable(await theirs.run(number, script, id), id)
    assert comparable(await ours.run(number, script, id), id) == told
