"""The JavaScript engine, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.javascript_engine import Engine


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()
