from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from instances.runtimes.python.runtime import sandbox_options
from instances.sandbox.host import SandboxHost
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
