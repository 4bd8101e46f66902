"""A database connection that belongs to one task, for statements that must not wait for others."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

REPLAN_AFTER = frozenset(2**power for power in range(3, 15))
"""Statements on a connection after which its plans are made anew: those made on empty tables scan too much later on."""


class OwnConnection:
    """Opened when it is used first, and again when it was lost."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._uses = 0

    async def open(self) -> Any:
        """The connection."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
            self._uses = 0
        return self._connection

    async def get(self) -> Any:
        """The connection, for one statement."""
        connection = await self.open()
        self._uses += 1
        if self._uses in REPLAN_AFTER:
            await connection.execute("discard plans")
        return connection

    def drop(self) -> None:
        """Close it at once; what it was doing may or may not be carried out."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()
