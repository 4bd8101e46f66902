"""Services over the real database, for tests of the packages around them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.settings import Settings
from instances.engine.client import EngineClient
from jobs.doorbell import NoDoorbell
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService
from versions.service import VersionService


@pytest.fixture
async def tenants(
    db: Database, clock: ManualClock, ids: Ids, settings: Settings, redis: Redis
) -> AsyncIterator[TenantService]:
    service = TenantService(db, clock, ids, settings, redis)
    yield service
    await service.close()


@pytest.fixture
async def engine(db: Database, clock: ManualClock) -> AsyncIterator[EngineClient]:
    client = EngineClient(db, clock, NoDoorbell())
    await client.start()
    yield client
    await client.stop()


@pytest.fixture
def versions(db: Database, clock: ManualClock, ids: Ids, tenants: TenantService) -> VersionService:
    return VersionService(db, clock, ids, tenants)
