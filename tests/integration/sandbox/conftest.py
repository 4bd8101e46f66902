from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from instances.sandbox.host import SandboxHost
from instances.sandbox.process import SandboxProcess
from tests.support.sandbox import hostile


@pytest.fixture(scope="package")
async def host() -> AsyncIterator[SandboxHost]:
    """A host whose sandboxes run whatever they are sent."""
    host = SandboxHost("hostile", hostile())
    yield host
    await host.close()


@pytest.fixture
async def child(host: SandboxHost) -> AsyncIterator[SandboxProcess]:
    """A sandbox of this test."""
    child = await host.spawn()
    yield child
    await child.close()
