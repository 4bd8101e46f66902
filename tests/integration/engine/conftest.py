"""An engine on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tests.support.engine import Engine


@pytest.fixture
async def engine(
    db: Database, admin: asyncpg.Connection, clock: ManualClock, ids: Ids, account: UUID
) -> AsyncIterator[Engine]:
    engine = Engine(db, admin, clock, ids, account)
    await engine.client.start()
    yield engine
    await engine.close()
