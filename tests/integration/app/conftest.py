"""The application of one test, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.composition import Platform
from app.settings import Settings
from tests.support.api import Tenant, client_of, new_tenant


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
