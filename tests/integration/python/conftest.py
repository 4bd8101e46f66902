from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from instances.runtimes.python.runtime import sandbox_options
from instances.sandbox.host import SandboxHost
from tests.support.api import new_tenant
from tests.support.javascript import Scripts
from tests.support.live import Live, live_for_tests
from tests.support.python_scripts import Run, Script, flow


@pytest.fixture(scope="package")
async def host() -> AsyncIterator[SandboxHost]:
    host = SandboxHost("python", sandbox_options())
    yield host
    await host.close()


Loads = Callable[..., Awaitable[Script]]
Runs = Callable[..., Awaitable[Run]]


@pytest.fixture
async def load(host: SandboxHost) -> AsyncIterator[Loads]:
    """Load a script into a sandbox of its own."""
    scripts: list[Script] = []

    async def load(source: Any, **options: Any) -> Script:
        scripts.append(await Script.load(host, source, **options))
        return scripts[-1]

    yield load
    for script in scripts:
        await script.process.close()


@pytest.fixture
async def run(load: Loads) -> Runs:
    """Run a workflow whose `run` has this body."""

    async def run(body: str, payload: Any = None, *, outside: str = "", flags: Any = None, **options: Any) -> Run:
        loading = {"flags": flags} if flags is not None else {}
        loading |= {key: options.pop(key) for key in ("vars", "workflows", "exports") if key in options}
        return await (await load(flow(body, outside), **loading)).run(payload, **options)

    return run


@pytest.fixture(scope="package")
async def running(databases, valkey) -> AsyncIterator[Live]:
    """A Millrace with one worker, shared by the tests of this package."""
    async with live_for_tests(databases, valkey) as running:
        yield running


@pytest.fixture(scope="package")
async def scripts(running: Live) -> AsyncIterator[Scripts]:
    """A tenant that deploys scripts."""
    async with httpx.AsyncClient(timeout=60) as client:
        yield Scripts(running, await new_tenant(running.platform), client)
