"""The installation of one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.crash.installation import Installation, installed


@pytest.fixture
async def site(settings: Settings, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation on the test's database, without any process yet."""
    async with installed(settings, tmp_path) as installation:
        yield installation
