"""The application, shared by the tests of one file: making it takes longer than most tests. Each has an account."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from tests.support.api import Tenant, client_of, new_tenant
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests, settings_for_tests


@pytest.fixture(scope="module")
async def platform(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Platform]:
    """A platform, open."""
    async with settings_for_tests(databases, valkey) as settings, Platform(settings).opened() as platform:
        yield platform


@pytest.fixture
async def tenant(platform: Platform) -> Tenant:
    """An account with a token that may do everything."""
    return await new_tenant(platform)


@pytest.fixture(scope="module")
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials whose answers are not held to the contract."""
    async with client_of(platform.settings, platform, checked=False) as client:
        yield client


@pytest.fixture(scope="module")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    """A running Millrace."""
    async with live_for_tests(databases, valkey) as running:
        yield running
