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
from tests.support.puppet import Puppet
from tests.support.unreliable import UnreliableDatabase


@pytest.fixture
async def engine(
    db: Database, admin: asyncpg.Connection, clock: ManualClock, ids: Ids, account: UUID
) -> AsyncIterator[Engine]:
    engine = Engine(db, admin, clock, ids, account)
    await engine.client.start()
    yield engine
    await engine.close()


@pytest.fixture
async def puppet(engine: Engine) -> Puppet:
    """A worker that does what the test says, and nothing else."""
    return await Puppet.enter(engine)


@pytest.fixture
async def unreliable(dsn: str, engine: Engine) -> AsyncIterator[UnreliableDatabase]:
    """The test's database, as a process with bad luck sees it."""
    database = UnreliableDatabase(dsn)
    await database.connect()
    yield database
    database.hooks.clear()
    database.thaw()
    await engine.close()
    await database.close()
