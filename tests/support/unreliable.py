"""A database that misbehaves on command: it freezes, forgets to answer, fails, and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from tenants.database import Database

Hook = Callable[[str, Any], Awaitable[None]]
"""Given a statement and its answer, after it was carried out and before its sender hears of it. May wait or raise."""


class UnreliableDatabase(Database):
    """Everything a process sends through it can be held back (`freeze`), delayed, or lose its answer (`lose`)."""

    def __init__(self, dsn: str, *, size: int = 5) -> None:
        super().__init__(dsn, size=size)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.hooks: list[Hook] = []
        self.statements: Counter[str] = Counter()
        """How often each statement was sent."""
        self.connections: list[asyncpg.Connection] = []
        """Connections outside the pools, as long as they are open."""

    def freeze(self) -> None:
        """From now on nothing is sent: the process stands still, as far as the database can tell."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def lose(self, statement: str, *, times: int = 1, every: int = 1) -> None:
        """Break the connection after the commit of each `every`-th of the next uses of a statement, `times` times."""
        left, uses = times, 0

        async def lose(sent: str, _answer: Any) -> None:
            nonlocal left, uses
            if sent == statement and left:
                uses += 1
                if uses % every == 0:
                    left -= 1
                    raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        self.hooks.append(lose)

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
        try:
            for hook in self.hooks:
                await hook(statement, answer)
        except asyncpg.PostgresConnectionError:
            if isinstance(to, asyncpg.Connection):
                to.terminate()
            raise
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
