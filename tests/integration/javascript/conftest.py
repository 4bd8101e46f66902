from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.api import new_tenant
from tests.support.javascript import Scripts
from tests.support.live import Live, live_for_tests


@pytest.fixture(scope="package")
async def running(databases, valkey) -> AsyncIterator[Live]:
    """A Millrace with one worker, shared by the tests of this package."""
    async with live_for_tests(databases, valkey) as running:
        yield running


@pytest.fixture(scope="package")
async def js(running: Live) -> AsyncIterator[Scripts]:
    """A tenant that deploys scripts."""
    async with httpx.AsyncClient(timeout=60) as client:
        yield Scripts(running, await new_tenant(running.platform), client)
