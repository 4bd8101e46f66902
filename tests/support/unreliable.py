"""A database that misbehaves on command: it freezes, forgets to answer, fails, and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg

from tenants.database import Database

Decision = Callable[[str], bool]


class UnreliableDatabase(Database):
    """Everything a process sends through it can be held back (`freeze`), or its answer lost after the commit."""

    def __init__(self, dsn: str, *, size: int = 5) -> None:
        super().__init__(dsn, size=size)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.loses_answer: Decision = lambda _: False
        """Given a statement: whether the connection breaks after it was carried out and before it is answered."""
        self.statements: Counter[str] = Counter()
        """How often each statement was sent."""
        self.connections: list[asyncpg.Connection] = []
        """Connections outside the pools, as long as they are open."""

    def freeze(self) -> None:
        """From now on nothing is sent: the process stands still, as far as the database can tell."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def dedicated(self, application_name: str, *, role: str = "millrace_engine") -> Any:
        await self._flowing.wait()
        connection = await super().dedicated(application_name, role=role)
        self.connections = [c for c in self.connections if not c.is_closed()] + [connection]
        return _Wrapped(self, connection)

    @property
    def engine(self) -> Any:
        return _Wrapped(self, super().engine)

    async def _send(self, to: Any, method: str, statement: str, args: Any, kwargs: Any) -> Any:
        await self._flowing.wait()
        self.statements[statement] += 1
        answer = await getattr(to, method)(statement, *args, **kwargs)
        await self._flowing.wait()
        if self.loses_answer(statement):
            if isinstance(to, asyncpg.Connection):
                to.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return answer


class _Wrapped:
    """A connection or a pool."""

    def __init__(self, db: UnreliableDatabase, inner: Any) -> None:
        self._db = db
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, statement: str, *args: Any, **kwargs: Any) -> Any:
        return await self._db._send(self._inner, "fetch", statement, args, kwargs)

    async def fetchrow(self, statement: str, *args: Any, **kwargs: Any) -> Any:
        return await self._db._send(self._inner, "fetchrow", statement, args, kwargs)

    async def fetchval(self, statement: str, *args: Any, **kwargs: Any) -> Any:
        return await self._db._send(self._inner, "fetchval", statement, args, kwargs)

    async def execute(self, statement: str, *args: Any, **kwargs: Any) -> Any:
        return await self._db._send(self._inner, "execute", statement, args, kwargs)
