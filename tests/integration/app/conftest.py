"""The application of one test, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.composition import Platform
from app.embedded.valkey import EmbeddedValkey
from app.settings import Settings
from tests.support.api import Tenant, client_of, new_tenant
from tests.support.databases import Databases
from tests.support.live import Live, live_for_tests


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    """The test's platform, open."""
    async with Platform(settings).opened() as platform:
        yield platform


@pytest.fixture
async def tenant(platform: Platform) -> Tenant:
    """An account with a token that may do everything."""
    return await new_tenant(platform)


@pytest.fixture
async def http(settings: Settings, platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials whose answers are not held to the contract."""
    async with client_of(settings, platform, checked=False) as client:
        yield client


@pytest.fixture
async def api(settings: Settings, platform: Platform, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the tenant's account whose answers are held to the contract."""
    async with client_of(settings, platform, tenant) as client:
        yield client


@pytest.fixture(scope="module")
async def server(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Live]:
    """A running Millrace, shared by the tests of one file; each makes an account of its own."""
    async with live_for_tests(databases, valkey) as running:
        yield running
